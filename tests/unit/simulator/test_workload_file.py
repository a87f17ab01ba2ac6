"""The workload section of a scenario, and the scenarios that come with the project."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infaas_ray.config import from_yaml
from infaas_ray.domain import SLO, HardwareKind, OnMiss
from infaas_ray.errors import ConfigError
from infaas_ray.simulator.arrivals import Gamma
from infaas_ray.simulator.catalogues import load_catalogue
from infaas_ray.simulator.rates import Flat, MarkovModulated, Scaled, mean_qps
from infaas_ray.simulator.settings import WorldSettings
from infaas_ray.simulator.workload_file import read_workload
from infaas_ray.simulator.workloads import Stream, Together, hot_and_cold, zipf

from .builders import catalog, measured

ROOT = Path(__file__).parents[3]
SCENARIOS = sorted((ROOT / "configs/simulations").glob("*.yaml"))
CATALOG = catalog(measured("fast", p50_s=0.01), measured("slow", p50_s=0.1))
NAN = float("nan")
FLAT = {"shape": "flat", "rate_qps": 5, "duration_s": 60}


def read(**sections: Any) -> Stream:
    found = read_workload({"rates": FLAT, "queries": {"target": "fast"}} | sections, CATALOG, Path())
    assert isinstance(found, Stream)
    return found


def test_a_small_section_is_enough() -> None:
    found = read()
    assert found.rates == Flat(rate_qps=5, duration_s=60)
    assert [(x.target, x.slo, x.rows) for x in found.kinds] == [("fast", SLO(), 1)]


def test_everything_that_can_be_said() -> None:
    found = read(
        rates={**FLAT, "factor": 2, "speed": 4, "hidden": {"factors": [1, 3], "stays_s": [10, 5]}},
        arrivals={"process": "gamma", "variation": 2},
        queries=[
            {
                "target": ["fast", "slow"],
                "zipf": 1.0,
                "share": 3,
                "on_miss": "late",
                "classes": [{"share": 1, "latency_ms": 50}, {"share": 1, "min_accuracy": 0.8, "on_miss": "reject"}],
            },
            {"target": "vision:things", "share": 1, "rows": {1: 1, 8: 3}},
        ],
    )
    assert found.rates == Scaled(
        rates=MarkovModulated(rates=Flat(rate_qps=5, duration_s=60), factors=(1, 3), stays_s=(10, 5)),
        factor=2,
        speed=4,
    )
    assert found.process == Gamma(variation=2)
    assert [(x.target, x.rows) for x in found.kinds] == [
        *[("fast", 1)] * 2,
        *[("slow", 1)] * 2,
        ("vision:things", 1),
        ("vision:things", 8),
    ]
    assert found.kinds[0].slo == SLO(latency_s=0.05, on_miss=OnMiss.LATE)
    assert found.kinds[1].slo == SLO(min_accuracy=0.8)
    assert found.popular.shares == pytest.approx((1, 1, 0.5, 0.5, 0.25, 0.75))


def test_a_list_of_streams_runs_together() -> None:
    one = {"rates": FLAT, "queries": {"target": "fast"}}
    found = read_workload([one, one], CATALOG, Path())
    assert isinstance(found, Together)
    assert len(found.kinds) == 2


def test_traces_are_cleaned_cut_and_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counts.txt").write_text("\n".join(["9", "4", *["0"] * 5, "2", "6"]))
    monkeypatch.setenv("COUNTS", "counts.txt")
    rates = {"shape": "trace", "format": "counts", "file": "$COUNTS", "gap_s": 5, "from_s": 1, "mean_qps": 8}
    section = {"rates": rates, "queries": {"target": "fast"}}
    found = read_workload(section, CATALOG, tmp_path)
    assert isinstance(found, Stream)
    assert np.concatenate(list(found.rates.blocks(np.random.default_rng()))).tolist() == [8, 4, 12]
    monkeypatch.delenv("COUNTS")
    with pytest.raises(ConfigError, match=r"set the environment variable in '\$COUNTS'"):
        read_workload(section, CATALOG, tmp_path)
    (tmp_path / "azure.csv").write_text(
        "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f1,http,60,60\no,a,f2,http,6,6\n"
    )
    rates = {"shape": "trace", "format": "azure", "files": ["azure.csv"], "function": 2, "keep": 0.5, "speed": 2}
    second = read_workload({"rates": rates, "queries": {"target": "fast"}}, CATALOG, tmp_path)
    assert isinstance(second, Stream)
    assert (second.rates.duration_s, mean_qps(second.rates, np.random.default_rng())) == (60, pytest.approx(0.05))
    (tmp_path / "rows.csv").write_text("timestamp\n0\n10\n999\n1500\n")
    rates = {"shape": "trace", "format": "queries", "file": "rows.csv", "unit": "ms"}
    third = read_workload({"rates": rates, "queries": {"target": "fast"}}, CATALOG, tmp_path)
    assert isinstance(third, Stream)
    assert np.concatenate(list(third.rates.blocks(np.random.default_rng()))).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"rates": {"shape": "square"}}, "workload.rates.shape: unknown shape 'square'"),
        ({"rates": {**FLAT, "rate": 5}}, "workload.rates: unknown key 'rate'"),
        ({"rates": {"shape": "flat", "rate_qps": 1}}, "workload.rates.duration_s is missing"),
        ({"rates": {**FLAT, "rate_qps": "many"}}, "Expected `float`, got `str`"),
        ({"rates": {**FLAT, "rate_qps": 0}}, "rate_qps must be above 0"),
        ({"rates": {**FLAT, "speed": "fast"}}, "workload.rates.speed must be a number"),
        ({"rates": {"shape": "trace", "format": "counts"}}, "a trace needs `file`"),
        ({"rates": {"shape": "trace", "format": "xml", "file": "a"}}, "unknown format 'xml'"),
        ({"arrivals": {"process": "gamma"}}, "workload.arrivals.variation is missing"),
        ({"arrivals": 3}, "workload.arrivals must hold keys and values"),
        ({"queries": []}, "must be a list of groups"),
        ({"queries": {"target": "medium"}}, "unknown target 'medium'; known: fast"),
        ({"queries": {"target": []}}, "needs a `target`"),
        ({"queries": {"target": "fast", "latency": 5}}, "unknown key 'latency'"),
        ({"queries": {"target": "fast", "latency_ms": -5}}, "latency_ms must be above 0"),
        ({"queries": {"target": "fast", "on_miss": "cry"}}, "unknown on_miss 'cry'"),
        ({"queries": {"target": "fast", "rows": "x"}}, "must be a number of rows"),
        ({"queries": {"hot_and_cold": {"order": ["medium"]}}}, "no architecture 'medium'"),
        ({"query": {}}, "unknown key 'query'"),
        ({"rates": {**FLAT, "rate_qps": 1e300}}, "rate_qps must be at most 1e+09"),
        ({"rates": {**FLAT, "step_s": 1e-12}}, "steps of 1e-12 s are too short for 60 s"),
        ({"rates": {**FLAT, "hidden": {"factors": "x"}}}, "hidden.factors must be a list of numbers"),
        ({"rates": {**FLAT, "hidden": {"factors": [1, "a"]}}}, "hidden.factors[1] must be a number"),
        ({"rates": {**FLAT, "hidden": {"factors": [1, 2], "stays_s": [1e-9, 5]}}}, "are too short"),
        (
            {"rates": {"shape": "steady", "low_qps": 2, "high_qps": 1, "duration_s": 9}},
            "low_qps must be at most high_qps",
        ),
        (
            {"rates": {"shape": "trace", "format": "counts", "files": ["a"]}},
            "files is nothing for a trace of the format",
        ),
        ({"rates": {"shape": "trace", "format": "azure", "file": "a", "files": ["b"]}}, "`file` or `files`, not both"),
        ({"rates": {"shape": "trace", "format": "azure", "files": 5}}, "files must be a list of names"),
        (
            {"rates": {"shape": "trace", "format": "azure", "file": "a", "function": NAN}},
            "function must be a whole number",
        ),
        ({"rates": {"shape": "trace", "format": "queries", "file": "a", "step_s": 0}}, "step_s must be above 0"),
        ({"rates": {"shape": "trace", "format": "counts", "file": "a\0b"}}, "cannot read"),
        (
            {"rates": {"shape": "on-off", "on_qps": 5, "off_qps": 0, "on_s": 1e-9, "off_s": 1, "duration_s": 9}},
            "at least a thousandth of step_s",
        ),
        ({"arrivals": {"process": "gamma", "variation": 1e9}}, "variation must be above 0 and at most 100"),
        ({"queries": {"target": [{}]}}, "unknown target"),
        ({"queries": {"target": "fast", "share": NAN}}, "share must be a number"),
        ({"queries": {"target": "fast", "zipf": NAN}}, "zipf must be a number"),
        ({"queries": {"target": "fast", "classes": None}}, "classes must be a list of classes"),
        ({"queries": {"target": "fast", "classes": []}}, "classes must be a list of classes"),
        ({"queries": {"target": "fast", "rows": {1: 0}}}, "shares of sizes must be 0 or more, and one above 0"),
        ({"queries": {"target": "fast", "rows": {1: NAN}}}, "shares of sizes must be 0 or more"),
        ({"queries": {"hot_and_cold": {"order": 5}}}, "order must be a list of names"),
        ({"queries": {"hot_and_cold": {"hot": 1.5}}}, "hot must be a whole number"),
        ({"queries": {"hot_and_cold": {"hot_bound_ms": -1}}}, "hot_bound_s must be above 0"),
        ({"queries": {"hot_and_cold": {"exponent": "x"}}}, "exponent must be a number"),
    ],
)
def test_what_is_wrong_is_named(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as found:
        read(**section)
    assert says in str(found.value)


def test_hot_architectures_have_a_tight_bound_and_others_what_a_processor_needs() -> None:
    many = catalog(
        *[measured(f"net{i}", p50_s=0.01 * (i + 1)) for i in range(5)],
        measured("net4", p50_s=0.002, hardware=HardwareKind.GPU, worker_types=("gpu",)),
    )
    found = hot_and_cold(many, order=["net3", "net4", "net1"], hot=2, hot_bound_s=0.05, exponent=1.0)
    # net3 takes 40 ms, too long for the bound; net4 has a GPU.
    assert [x.target for x in found.kinds] == ["net4", "net1", "net3", "net0", "net2"]
    assert [x.slo.latency_s for x in found.kinds] == pytest.approx([0.05, 0.05, 0.06, 0.015, 0.045])
    assert found.shares == pytest.approx((*(0.8 * x for x in zipf(2)), *(0.2 * x for x in zipf(3))))
    cold = hot_and_cold(many, hot=0)
    assert sum(cold.shares) == pytest.approx(1)
    assert cold.kinds[0].slo.latency_s == pytest.approx(0.015)


def timm_tables(folder: Path) -> None:
    """A few rows in the format of timm's tables, for every table that a catalogue names."""
    sizes = ((0.76, 9000), (0.83, 2000), (0.87, 700), (0.89, 200))
    (folder / "results-imagenet.csv").write_text(
        "model,img_size,top1\n" + "".join(f"net{i},224,{100 * top1}\n" for i, (top1, _) in enumerate(sizes))
    )
    named = from_yaml((ROOT / "configs/catalogs/timm-2026.yaml").read_text())["timm"]["tables"]
    for table in named:
        (folder / Path(table["file"]).name).write_text(
            "model,infer_img_size,infer_samples_per_sec,infer_batch_size,param_count,infer_macts\n"
            + "".join(f"net{i},224,{rate},256,20,5\n" for i, (_, rate) in enumerate(sizes))
        )


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda x: x.stem)
def test_the_scenarios_can_be_read_and_each_of_their_queries_can_be_met(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = from_yaml(path.read_text())
    (tmp_path / "counts").write_text("3\n" * 86_400)
    monkeypatch.setenv("TRACE", str(tmp_path / "counts"))
    timm_tables(tmp_path)
    monkeypatch.setenv("TIMM", str(tmp_path))
    catalog = load_catalogue(path.parent / content["catalogue"])
    workload = read_workload(content["workload"], catalog, path.parent)
    targets = catalog.targets()
    for kind in workload.kinds:
        offers = [catalog.offers[x] for x in targets[kind.target]]
        bound = kind.slo.latency_s or float("inf")
        assert any(
            x.profile.latency_s(kind.rows) < bound and x.accuracy >= (kind.slo.min_accuracy or 0) for x in offers
        ), kind
    WorldSettings(**content.get("world", {}))
    first = next(iter(workload.chunks(np.random.default_rng(1))))
    assert first.times[0] >= 0
