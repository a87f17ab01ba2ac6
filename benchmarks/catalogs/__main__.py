"""Write the catalogue anew: `python -m benchmarks.catalogs`."""

from pathlib import Path

from benchmarks.catalogs.derive import as_csv, derive, figures_file

TARGET = Path("configs/catalogs/infaas-2021.csv")

if __name__ == "__main__":
    rows = derive(figures_file())
    TARGET.write_text(as_csv(rows))
    measured = sum(x["latency_estimated"] == "no" for x in rows)
    print(f"{TARGET}: {len(rows)} variants, latencies of {measured} as published")
