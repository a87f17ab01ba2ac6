"""Scenarios as files, and the command that runs them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from infaas_ray.cli import main
from infaas_ray.errors import ConfigError, InvalidInput
from infaas_ray.simulator.report import RunResult, pair, summarize
from infaas_ray.simulator.scenario import read_scenario, run_scenario
from infaas_ray.simulator.tables import differences, overview

SIMULATIONS = Path(__file__).parents[2] / "configs" / "simulations"
CATALOGUE = SIMULATIONS.parent / "catalogs" / "infaas-2021.yaml"
SMALL: dict[str, Any] = {
    "catalogue": str(CATALOGUE),
    "duration_s": 20,
    "warmup_s": 5,
    "seeds": [1, 2],
    "bins": 10,
    "workload": {
        "rates": {"shape": "flat", "rate_qps": 10, "duration_s": 20},
        "queries": {"target": "resnet50", "latency_ms": 1000},
    },
    "world": {"workers": {"m5.2xlarge": 1}},
    "strategies": {"ours": {"strategy": "individual"}, "fixed": {"strategy": "static", "keep_warm": {"resnet50": 1}}},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"durations": 1}, "unknown key 'durations'; known: bins, catalogue"),
        ({"duration_s": -1}, "duration_s: Input should be greater than 0"),
        ({"warmup_s": 20}, "warmup_s must be less than duration_s"),
        ({"strategies": {"a": {"slak": 1}}}, "strategies.a.slak"),
        ({"strategies": {"a": {"slack": 0.5}}}, "scaling.slack must be a number of at least 1"),
        ({"world": {"way": 1}}, "world.way"),
        ({"world": {"start_failures": 2}}, "world.start_failures is a share"),
        ({"world": {"workers": {"m6": 1}}}, "unknown worker type 'm6'"),
        ({"catalogue": "nowhere.yaml"}, "nowhere.yaml"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0"),
        ({"seeds": [2, 2]}, "seeds must differ"),
        ({"duration_s": float("inf")}, "duration_s: Input should be less than or equal to"),
        ({"world": {"way_p99_s": 1e300}}, "world.way_p99_s must be a number from 0 to"),
        ({"world": {"start_jitter": 1000}}, "world.start_jitter must be a number from 0 to 3"),
        ({"world": {"routers": 0}}, "world.routers must be a number from 1 to"),
        ({"strategies": {"a": {"keep_warm": {"nope": 1}}}}, "strategies.a.keep_warm: unknown target 'nope'"),
        ({"workload": {"rates": 1}}, "scenario.yaml: workload"),
    ],
)
def test_what_is_wrong_in_a_scenario_is_told(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as told:
        read_scenario(written(tmp_path, **changes))
    assert says in str(told.value)


def test_a_scenario_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_bytes(file.read_bytes() + "# caf\u00e9".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"scenario\.yaml is not valid YAML"):
        read_scenario(file)


def test_what_cannot_be_done_in_the_end_is_told_in_the_beginning(tmp_path: Path) -> None:
    file = written(tmp_path)
    both = CliRunner().invoke(main, ["simulate", str(file), "--compare", "--strategy", "ours"])
    assert both.exit_code != 0
    assert "leave out --strategy" in both.output
    nowhere = CliRunner().invoke(main, ["simulate", str(file), "--html", str(tmp_path / "no" / "page.html")])
    assert nowhere.exit_code != 0
    assert "there is no folder" in nowhere.output


def test_an_unknown_strategy_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="known: fixed, ours"):
        run_scenario(read_scenario(written(tmp_path)), ["theirs"])


def test_strategies_get_the_same_arrivals_under_the_same_seed(tmp_path: Path) -> None:
    scenario = read_scenario(written(tmp_path))
    seen: list[float] = []
    runs = run_scenario(scenario, ["ours", "fixed"], lambda name, seed, share: seen.append(share))
    assert [(x.strategy, x.seed) for x in runs] == [("ours", 1), ("ours", 2), ("fixed", 1), ("fixed", 2)]
    arrived = {(x.strategy, x.seed): x.series.arrived for x in runs}
    assert arrived["ours", 1] == arrived["fixed", 1] != arrived["ours", 2]
    assert max(seen) == 1.0
    assert [x.strategy for x in summarize(runs)] == ["ours", "fixed"]
    [against] = pair(runs)
    assert against.differences["arrived"].mean == 0.0
    assert scenario.bound(1).queries == runs[0].arrived
    check_tables(runs)


def check_tables(runs: list[RunResult]) -> None:
    head, *rows = overview(runs, {})
    assert all(len(row) == len(head) for row in rows)
    head, *rows = differences(runs)
    assert all(len(row) == len(head) for row in rows)


def test_the_command_prints_json_and_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = CliRunner().invoke(
        main, ["simulate", str(written(tmp_path)), "--compare", "--seeds", "1", "--json", "--html", str(page)]
    )
    assert found.exit_code == 0, found.output
    content = json.loads(found.stdout)
    assert [x["strategy"] for x in content["summaries"]] == ["ours", "fixed"]
    assert content["runs"][0]["slo_attainment"] <= 1.0
    assert content["fluid_bounds"]["1"]["usd"] > 0
    text = page.read_text()
    assert text.count("<svg") == 1
    assert "fluid bound" in text
    assert not any(x in text for x in ("<script", "<link", "src="))  # the page needs nothing beside itself


def test_the_command_prints_tables(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["simulate", str(written(tmp_path, seeds=[3]))])
    assert found.exit_code == 0, found.output
    assert "SLO met" in found.stdout
    assert "queries in 1 runs" in found.stdout


def test_what_nobody_can_serve_is_told(tmp_path: Path) -> None:
    workload = {"rates": SMALL["workload"]["rates"], "queries": {"target": "resnet50", "latency_ms": 0.001}}
    found = CliRunner().invoke(main, ["simulate", str(written(tmp_path, seeds=[3], workload=workload))])
    assert found.exit_code == 0, found.output
    assert "no variant can serve" in found.stdout


def test_the_quickstart_is_a_scenario() -> None:
    assert len(read_scenario(SIMULATIONS / "quickstart.yaml").strategies) == 3
