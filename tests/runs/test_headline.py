"""The headline benchmark from a scenario file to its results, on a tiny scenario."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.headline.lineup import Entry
from benchmarks.headline.throughput import fixed_machines, highest, on_fixed
from infaas_ray.domain import SLO
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.simulator.rates import Flat
from infaas_ray.simulator.scenario import Scenario
from infaas_ray.simulator.workload import QueryKind
from infaas_ray.simulator.workloads import Popular, Stream
from tests.unit.policy.builders import offer
from tests.unit.simulator.worlds import CALM, catalog_with, worker_type

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
    for name in ("cost_ratio_mean", "cost_ratio_max"):
        assert numbers[f"{name}_of_bound"] >= numbers[name]
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


# One row takes 10 ms, and batches do not help: a replica serves at most 100 a second.
NET = offer("net", p99_ms=((1, 10.0),), median=1.0, rate_qps=100.0, batch_limit=1)


@pytest.mark.parametrize("expected_qps", [40.0, 100.0, 400.0])
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_highest_rate_is_found_wherever_one_looks_first(expected_qps: float, replicas: int) -> None:
    popular = Popular(kinds=(QueryKind("net", SLO(latency_s=0.2)),), shares=(1.0,))
    scenario = Scenario(
        catalog=on_fixed(catalog_with(NET), {"cpu": 1}),
        workload=Stream(popular=popular, rates=Flat(rate_qps=1.0, duration_s=1.0)),
        duration_s=1.0,
        world=CALM,
    )
    entry = Entry(name="fixed", scaling=ScalingSettings(strategy="static", keep_warm={NET.name: replicas}))
    found = highest(scenario, popular, entry, 1, expected_qps).rate_qps
    assert 0.8 * 100 * replicas < found < 1.05 * 100 * replicas


def test_machines_hold_every_choice() -> None:
    nets = [offer(x, threads=2) for x in ("a", "b", "c")]
    catalog = catalog_with(*nets, types=[worker_type(), worker_type("large", resources={"CPU": 8.0})])
    choices = {"one": {"a": nets[0].name}, "all": {x.variant.architecture: x.name for x in nets}}
    assert fixed_machines(catalog, choices) == {"cpu": 1, "large": 1}
    many = [offer(f"net{x}", threads=4) for x in range(5)]
    catalog = catalog_with(*many, types=[worker_type()])
    assert fixed_machines(catalog, {"all": {x.variant.architecture: x.name for x in many}}) == {"cpu": 5}
