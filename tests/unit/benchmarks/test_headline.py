"""The headline benchmark's rules: what is fixed, how much is provisioned, and the arithmetic of ratios."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.headline.choices import Wish, fixed_choices, wishes
from benchmarks.headline.lineup import Entry, Lineup
from benchmarks.headline.load import Load
from benchmarks.headline.packing import pack
from benchmarks.headline.provision import cheapest, provisioned
from benchmarks.headline.ratios import (
    Outcome,
    attainment,
    better,
    geometric,
    geometric_cost,
    mean_cost,
    pair_of,
    violations_ratio,
)
from benchmarks.headline.store import Store
from benchmarks.headline.summary import throughput_ratio
from benchmarks.headline.tables import throughput as throughput_table
from benchmarks.headline.throughput import Bench
from infaas_ray.domain import SLO, HardwareKind
from infaas_ray.policy.routing import Catalog
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.simulator.rates import Flat
from infaas_ray.simulator.report import Figure
from infaas_ray.simulator.scenario import Scenario
from infaas_ray.simulator.workload import Poisson, QueryKind
from infaas_ray.simulator.workloads import Popular, Stream
from tests.unit.policy.builders import USE_CASE, catalog, offer, worker_type

SMALL = offer("small", accuracy=0.7, p99_ms=((1, 10.0), (8, 40.0)), rate_qps=200, usd=0.001)
LARGE = offer("large", accuracy=0.9, p99_ms=((1, 80.0), (8, 400.0)), rate_qps=20, usd=0.01, threads=4)
QUICK = offer("large", accuracy=0.9, p99_ms=((1, 8.0), (8, 20.0)), rate_qps=400, usd=0.02, hardware=HardwareKind.GPU)
TYPES = (worker_type("cpu", cpu=4.0, usd=0.4), worker_type("gpu", gpu=1.0, usd=3.0))
CATALOG = catalog(SMALL, LARGE, QUICK, types=TYPES)


def load(*rates: float) -> Load:
    """Constant rates by kind."""
    return Load(days=(np.array([rates]),))


def wished(*slos: SLO, rates: tuple[float, ...] | None = None, found: Catalog = CATALOG) -> tuple[list[Wish], Load]:
    kinds = tuple(QueryKind(target=USE_CASE, slo=x) for x in slos)
    known = load(*(rates or (1.0,) * len(slos)))
    return wishes(found, Poisson(kinds=kinds, rate_qps=1.0, duration_s=1.0), known), known


# ---- what is fixed


def test_a_choice_meets_the_tightest_latency_and_the_highest_accuracy() -> None:
    found, _ = wished(SLO(latency_s=0.05), SLO(latency_s=1.0, min_accuracy=0.8))
    assert fixed_choices(found) == {"accurate": {USE_CASE: QUICK.name}, "fastest": {USE_CASE: QUICK.name}}


def test_processors_are_a_choice_where_they_meet_everything() -> None:
    found, _ = wished(SLO(latency_s=0.1))
    chosen = {name: x[USE_CASE] for name, x in fixed_choices(found).items()}
    assert chosen == {
        "accurate": QUICK.name,
        "fastest": QUICK.name,
        "accurate on CPU": LARGE.name,
        "fastest on CPU": SMALL.name,
    }


def test_where_no_variant_meets_all_the_one_that_meets_most_queries_is_able() -> None:
    without = catalog(SMALL, LARGE, types=TYPES)
    asks = (SLO(latency_s=0.05), SLO(latency_s=1.0, min_accuracy=0.8))
    for rates, name in (((3.0, 1.0), SMALL.name), ((1.0, 3.0), LARGE.name)):
        found, _ = wished(*asks, rates=rates, found=without)
        assert {x.name for x in found[0].able} == {name}
        assert set(fixed_choices(found)) == {"accurate", "fastest"}


def test_choices_that_name_the_same_variants_count_once() -> None:
    same = {USE_CASE: QUICK.name}
    made = Lineup(entries=(), choices={"accurate": same, "fastest": same, "cheapest": {USE_CASE: SMALL.name}})
    assert made.fixed == ["accurate"]


def test_entries_that_differ_by_name_only_run_once() -> None:
    first, second = (Entry(name=x, scaling=ScalingSettings(strategy="infaas")) for x in "ab")
    other = replace(second, name="c", workers={"cpu": 1})
    made = Lineup(entries=(first, second, other), choices={})
    assert [made.twin(x).name for x in made.entries] == ["a", "a", "c"]


# ---- how much is provisioned


def test_replicas_carry_the_peak_in_batches_of_half_the_bound() -> None:
    found, _ = wished(SLO(latency_s=0.08))
    peak = Load(days=(np.array([[100.0], [900.0], [200.0]]), np.array([[1000.0], [1.0], [1.0]])))
    fleet = provisioned(CATALOG, found, {USE_CASE: SMALL.name}, peak, None)
    assert fleet.replicas == {SMALL.name: 5}  # 950 rows/s by the median of the two peaks, 200 each
    assert fleet.packed.machines == {"cpu": 2}


def test_a_tighter_bound_means_smaller_batches_and_more_replicas() -> None:
    found, known = wished(SLO(latency_s=0.02), rates=(150.0,))  # half of the bound: one row, in a median of 5 ms
    assert provisioned(CATALOG, found, {USE_CASE: SMALL.name}, known).replicas == {SMALL.name: 1}
    found, known = wished(SLO(latency_s=0.015), rates=(350.0,))
    assert provisioned(CATALOG, found, {USE_CASE: SMALL.name}, known).replicas == {SMALL.name: 2}


def test_processors_are_not_shared_and_devices_only_while_idle() -> None:
    assert pack({LARGE.name: 3}, {}, CATALOG).machines == {"cpu": 3}
    assert pack({QUICK.name: 2}, {QUICK.name: 0.1}, CATALOG).machines == {"gpu": 2}  # unknown memory: a device each
    assert pack({SMALL.name: 4, LARGE.name: 1}, {}, CATALOG).machines == {"cpu": 2}


def test_what_has_no_room_is_told() -> None:
    found = pack({LARGE.name: 3}, {}, CATALOG, most={"cpu": 1, "gpu": 0})
    assert (found.machines, found.homeless) == ({"cpu": 1}, {LARGE.name: 2})
    assert found.usd_per_hour(CATALOG) == float("inf")


@pytest.mark.parametrize(("rate", "name"), [(10.0, LARGE.name), (1000.0, QUICK.name)])
def test_the_cheapest_choice_depends_on_the_load(rate: float, name: str) -> None:
    found, known = wished(SLO(latency_s=0.2, min_accuracy=0.8), rates=(rate,))
    assert cheapest(CATALOG, found, known) == {USE_CASE: name}


# ---- ratios


def outcomes(usd: float, missed: int, seeds: int = 3) -> list[Outcome]:
    return [Outcome(seed=x, arrived=1000, met=1000 - missed, usd=usd * x) for x in range(1, seeds + 1)]


def test_the_better_baseline_is_the_cheaper_of_the_good_ones() -> None:
    ours = outcomes(1.0, 2)
    assert better(ours, {"dear": outcomes(9.0, 0), "cheap": outcomes(3.0, 5), "poor": outcomes(1.0, 50)}) == "cheap"
    assert better(ours, {"dear": outcomes(9.0, 40), "poor": outcomes(1.0, 50)}) == "dear"


def test_who_attains_as_much_as_we_do_is_good() -> None:
    ours = outcomes(1.0, 100)
    assert better(ours, {"dear": outcomes(9.0, 0), "like us": outcomes(3.0, 90)}) == "like us"


def test_ratios_are_taken_seed_by_seed() -> None:
    pair = pair_of("s", "b", outcomes(6.0, 3), outcomes(2.0, 0))
    assert pair.costs == [3.0, 3.0, 3.0]
    assert pair.cost == Figure(mean=3.0, half_width=0.0)
    assert (pair.attainment, pair.our_attainment) == (0.997, 1.0)


def test_no_misses_at_all_are_no_infinite_ratio() -> None:
    assert violations_ratio(outcomes(1, 2), outcomes(1, 0)) == 7.0
    assert violations_ratio(outcomes(1, 0), outcomes(1, 2)) == 1 / 7
    assert attainment([]) == 1.0


def test_means_over_pairs() -> None:
    pairs = [pair_of("s", "b", outcomes(x, 0), outcomes(1.0, 0)) for x in (2.0, 8.0)]
    mean, shared, saved = mean_cost(pairs), geometric_cost(pairs), geometric_cost(pairs, inverse=True)
    assert mean is not None
    assert shared is not None
    assert saved is not None
    assert (mean.mean, shared.mean, saved.mean) == pytest.approx((5.0, 4.0, 0.25))
    assert geometric([]) is None
    assert mean_cost([]) is None


def test_throughput_is_compared_with_the_best_baseline() -> None:
    rates = {
        "a": {"planner": [300.0, 300.0], "Clipper+ fastest": [100.0, 100.0], "SM+ fastest": [150.0, 150.0]},
        "b": {"planner": [200.0, 200.0], "SM+ fastest": [100.0, 100.0], "SM+ accurate": [0.0, 0.0]},
    }
    found = throughput_ratio(rates, {"a": ["fastest"], "b": ["fastest", "accurate"]})
    assert found is not None
    assert found.mean == pytest.approx(2.0)
    assert throughput_ratio({}, {}) is None


# ---- results that are kept


def test_results_are_kept_until_they_are_to_be_made_anew(tmp_path: Path) -> None:
    kept = Store(tmp_path / "new")
    assert kept.load("key", Outcome) is None
    kept.save("key", outcomes(1.0, 0)[0])
    assert kept.load("key", Outcome) == outcomes(1.0, 0)[0]
    assert Store(tmp_path / "new", fresh=True).load("key", Outcome) is None
    (tmp_path / "new" / "key.json").write_text("half of a")
    assert kept.load("key", Outcome) is None


def test_the_table_of_throughput_shows_who_reaches_nothing() -> None:
    popular = Popular(kinds=(QueryKind(USE_CASE, SLO()),), shares=(1.0,))
    scenario = Scenario(
        catalog=CATALOG, workload=Stream(popular=popular, rates=Flat(rate_qps=1, duration_s=1)), duration_s=1
    )
    one = Bench(name="w", scenario=scenario, popular=popular, machines={"cpu": 2}, entries=(), expected_qps={})
    rows = throughput_table([one], {"w": {"planner": [30.0, 30.0], "SM+ fastest": [10.0, 10.0], "infaas": [0.0, 10.0]}})
    assert [x[-1] for x in rows[1:]] == ["1.00 ± 0.00", "3.00 ± 0.00", ""]
    assert rows[1][:4] == ("w", "2 cpu", "planner", "30 ± 0")
