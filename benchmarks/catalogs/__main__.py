"""Write the catalogue anew: `python -m benchmarks.catalogs`."""

import json
from pathlib import Path

from benchmarks.catalogs.derive import as_csv, derive, figures_file

TARGET = Path(__file__).parents[2] / "configs/catalogs/infaas-2021.csv"

if __name__ == "__main__":
    rows = derive(figures_file())
    TARGET.write_text(as_csv(rows))
    published = sum(x["latency_estimated"] == "no" for x in rows)
    print(json.dumps({"variants": len(rows), "latencies_as_published": published}))
