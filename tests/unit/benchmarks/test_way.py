"""The way of a query, found from latencies."""

import os
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.live import way as way_module
from benchmarks.live.open_system import LiveRun
from benchmarks.live.way import Quantiles, Way, fit_way, measure_work
from infaas_ray.domain import Accuracy, BatchLatency, Hardware, HardwareKind, Profile
from infaas_ray.simulator.settings import WorldSettings


def simulate(world: Mapping[str, float]) -> Quantiles:
    """A world in which waits and batches take as long again as half of the way, and 1 ms."""
    p50, p95, p99 = (1.5 * world[x] + 0.001 for x in ("way_s", "way_p95_s", "way_p99_s"))
    return p50, p95, p99


def test_the_way_is_what_gives_the_latencies_that_were_seen() -> None:
    way = fit_way((0.004, 0.007, 0.010), 0.0002, 0.0005, simulate)
    assert way.quantiles_s == pytest.approx((0.002, 0.004, 0.006), rel=0.05)
    assert (way.world()["way_loop_s"], way.world()["way_work_s"]) == (0.0002, 0.0005)


@given(st.floats(1e-5, 1.0), st.floats(0.0, 0.01), st.floats(0.0, 0.01))
def test_every_way_makes_a_world(p50_s: float, loop_s: float, work_s: float) -> None:
    WorldSettings(**Way(quantiles_s=(p50_s, 2 * p50_s, 3 * p50_s), loop_s=loop_s, work_s=work_s).world())


def test_the_work_of_a_way_is_what_nobody_else_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, other = (os.getpid(), 0.0), (1, 0.0)
    looks = iter([{other: 0.0}, {other: 0.5}, {here: 1.0, other: 1.0}, {here: 1.2, other: 3.0}])
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(way_module, "_cpu", lambda pid: next(looks))
    monkeypatch.setattr(way_module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(way_module.time, "monotonic", lambda: next(clock))
    run = LiveRun(arrived=1000, batches=Counter({("net", 1): 600, ("net", 2): 400}))
    profile = Profile(
        variant="net",
        hardware=Hardware(kind=HardwareKind.CPU, model="test", cores=1, memory_bytes=1),
        load_s=0.0,
        latencies=tuple(BatchLatency(batch=b, p50_s=s, p95_s=s, p99_s=s) for b, s in ((1, 0.0005), (2, 0.001))),
        saturation_qps=1000.0,
        peak_memory_bytes=1,
        accuracy=Accuracy(value=0.5, metric="top1_accuracy", rows=1, standard_error=0.5),
    )
    # Of 2.2 s, 10 s of idling used 1.0, 1,000 rows of 0.5 ms computed for 0.5, and the driver used 0.2.
    assert measure_work(1, lambda: run, {"net": profile}) == pytest.approx((0.0002, 0.0005))


def test_what_cannot_be_reached_gives_a_world_that_may_be() -> None:
    """Latencies below what waits and batches take alone: the way is next to nothing, and its quantiles do not fall."""
    world = fit_way((0.0005, 0.0005, 0.0004), 0.0002, 0.0005, simulate).world()
    assert 0 < world["way_s"] <= world["way_p95_s"] <= world["way_p99_s"]
    WorldSettings(**world)  # refuses what cannot be
