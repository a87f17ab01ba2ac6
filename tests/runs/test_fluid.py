import numpy as np
import pytest

from infaas_ray.domain import SLO, HardwareKind
from infaas_ray.policy.routing import Catalog
from infaas_ray.simulator.fluid import FluidBound, fluid_bound
from infaas_ray.simulator.workload import QueryKind
from tests.unit.policy.builders import offer
from tests.unit.simulator.worlds import Given, catalog_with, worker_type

CPU = worker_type("cpu", resources={"CPU": 4.0}, usd_per_hour=1.0)
GPU = worker_type("gpu", resources={"CPU": 4.0, "GPU": 1.0}, usd_per_hour=5.0)
# One row takes 100 ms, eight 400 ms: 10 rows a second alone, 20 in full batches.
SLOW = {"p99_ms": ((1, 100.0), (8, 400.0)), "median": 1.0}


def bound(catalog: Catalog, slo: SLO, rate_qps: float, duration_s: float = 120.0, rows: int = 1) -> FluidBound:
    times = [(x / rate_qps, 0) for x in range(int(duration_s * rate_qps))]
    workload = Given((QueryKind("classification:digits", slo, rows),), times)
    return fluid_bound(catalog, workload, np.random.default_rng(1), until_s=duration_s)


def test_batches_are_as_large_as_the_bound_allows() -> None:
    catalog = catalog_with(offer("net", **SLOW), types=[CPU])
    # 100 rows a second are 5 processors in full batches, 10 one by one: 2 machines and 3.
    assert bound(catalog, SLO(latency_s=0.5), 100.0).usd == pytest.approx(2 * 120 / 3600)
    assert bound(catalog, SLO(latency_s=0.1), 100.0).usd == pytest.approx(3 * 120 / 3600)
    assert bound(catalog, SLO(latency_s=0.5), 100.0).usd_divisible == pytest.approx(1.25 * 120 / 3600)


def test_the_cheapest_machines_that_suffice_are_taken() -> None:
    fast = offer("fast", accuracy=0.99, p99_ms=((1, 1.0),), median=1.0, hardware=HardwareKind.GPU)
    catalog = catalog_with(offer("net", **SLOW), fast, types=[CPU, GPU])
    assert bound(catalog, SLO(), 100.0).usd == pytest.approx(2 * 120 / 3600)
    assert bound(catalog, SLO(min_accuracy=0.95), 100.0).usd == pytest.approx(5 * 120 / 3600)
    assert bound(catalog, SLO(), 1000.0).usd == pytest.approx(5 * 120 / 3600)  # one GPU carries what 13 others do


def test_what_nobody_can_serve_is_left_out_and_counted() -> None:
    found = bound(catalog_with(offer("net", **SLOW), types=[CPU]), SLO(latency_s=0.05), 10.0)
    assert (found.usd, found.queries, found.unserved, found.usd_per_1k) == (0.0, 1200, 1200, None)


def test_windows_follow_the_demand() -> None:
    catalog = catalog_with(offer("net", **SLOW), types=[CPU])
    kinds = (QueryKind("classification:digits", SLO(), 8),)
    workload = Given(kinds, [(x / 20, 0) for x in range(1200)] + [(90.0, 0)])
    found = fluid_bound(catalog, workload, np.random.default_rng(1), until_s=180.0)
    assert found.usd_per_hour == pytest.approx([2.0, 1.0, 0.0])  # 160 rows a second, then 8 rows in all, then none
    assert found.usd_divisible < found.usd


NEURON = worker_type("neuron", resources={"CPU": 4.0, "neuron_cores": 1.0}, usd_per_hour=2.0)


def resident(load_s: float, latency_s: float, gap_s: float, names: tuple[str, ...] = ("a", "b")) -> FluidBound:
    """A query every `gap_s` seconds, in turn for each of these architectures, which run on Neuron cores only."""
    offers = [offer(x, p99_ms=((1, 10.0),), median=1.0, hardware=HardwareKind.NEURON, load_s=load_s) for x in names]
    kinds = tuple(QueryKind(x, SLO(latency_s=latency_s)) for x in names)
    workload = Given(kinds, [(x * gap_s, x % len(names)) for x in range(int(120 / gap_s))])
    return fluid_bound(catalog_with(*offers, types=[NEURON]), workload, np.random.default_rng(1), until_s=120.0)


def test_models_that_must_be_there_at_once_need_a_core_each() -> None:
    found = resident(load_s=5.0, latency_s=0.1, gap_s=1.0)
    assert found.usd == pytest.approx(2 * 120 / 3600)  # by work, one machine is next to idle
    assert found.usd_tight == pytest.approx(2 * 2 * 120 / 3600)


def test_models_that_can_be_loaded_in_time_share_a_core() -> None:
    assert resident(load_s=5.0, latency_s=6.0, gap_s=1.0).usd_tight == pytest.approx(2 * 120 / 3600)
    # Asked for every 20 s, held for 5 s before: both fit into one core's time.
    assert resident(load_s=5.0, latency_s=0.1, gap_s=10.0).usd_tight == pytest.approx(2 * 120 / 3600)


def test_one_model_for_several_kinds_is_held_once() -> None:
    shared = offer("net", p99_ms=((1, 10.0),), median=1.0, hardware=HardwareKind.NEURON, load_s=5.0)
    kinds = tuple(QueryKind("classification:digits", SLO(latency_s=x)) for x in (0.1, 0.2))
    workload = Given(kinds, [(float(x), x % 2) for x in range(120)])
    found = fluid_bound(catalog_with(shared, types=[NEURON]), workload, np.random.default_rng(1), until_s=120.0)
    assert found.usd_tight == found.usd == pytest.approx(2 * 120 / 3600)
