"""The headline benchmark from a scenario file to its results, on a tiny scenario."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "catalogue": str(ROOT / "configs" / "catalogs" / "infaas-2021.yaml"),
    "duration_s": 90,
    "warmup_s": 60,
    "bins": 6,
    "workload": {
        "rates": {"shape": "flat", "rate_qps": 20, "duration_s": 90},
        "queries": {"target": "resnet50", "latency_ms": 300},
    },
}
STRATEGIES = ("Clipper+ accurate", "SM+ accurate", "Clipper+ accurate on CPU", "Clipper+ cheapest", "infaas")


def bench(folder: Path, *more: str) -> str:
    """What the benchmark prints that runs in that folder."""
    scenario = folder / "paper-flat.yaml"  # a name by which the numbers count it in
    scenario.write_text(yaml.safe_dump(TINY))
    options = [x for name in STRATEGIES for x in ("--strategy", name)]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.headline", "--seeds", "2", "--jobs", "1", "--out", "out", *options, *more],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_tiny_scenario_from_file_to_numbers(tmp_path: Path) -> None:
    told = bench(tmp_path, "--scenario", str(tmp_path / "paper-flat.yaml"))
    numbers = json.loads(told.splitlines()[-1])
    assert numbers["cost_ratio_max"] >= numbers["cost_ratio_mean"] > 0
    assert numbers["throughput_ratio"] is None
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "| paper-flat | accurate | " in text
    assert "| paper-flat | cheapest | " in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 1
    assert (tmp_path / "out" / "summary.png").stat().st_size > 1000
    kept = sorted((tmp_path / ".infaas" / "bench" / "headline").glob("*.json"))
    assert len(kept) == 2 * (len(STRATEGIES) + 2)  # with ours and the fluid bound
    before = [x.stat().st_mtime_ns for x in kept]
    again = bench(tmp_path, "--scenario", str(tmp_path / "paper-flat.yaml"))
    assert again.splitlines()[-1] == told.splitlines()[-1]
    assert [x.stat().st_mtime_ns for x in kept] == before
