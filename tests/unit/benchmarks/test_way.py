"""The way of a query, found from latencies."""

from collections.abc import Mapping

import pytest

from benchmarks.live.way import Quantiles, fit_way
from infaas_ray.simulator.settings import WorldSettings


def simulate(world: Mapping[str, float]) -> Quantiles:
    """A world in which waits and batches take as long again as half of the way, and 1 ms."""
    p50, p95, p99 = (1.5 * world[x] + 0.001 for x in ("way_s", "way_p95_s", "way_p99_s"))
    return p50, p95, p99


def test_the_way_is_what_gives_the_latencies_that_were_seen() -> None:
    way = fit_way((0.004, 0.007, 0.010), 0.0002, 0.0005, simulate)
    assert way.quantiles_s == pytest.approx((0.002, 0.004, 0.006), rel=0.05)
    assert (way.world()["way_loop_s"], way.world()["way_work_s"]) == (0.0002, 0.0005)


def test_what_cannot_be_reached_gives_a_world_that_may_be() -> None:
    """Latencies below what waits and batches take alone: the way is next to nothing, and its quantiles do not fall."""
    world = fit_way((0.0005, 0.0005, 0.0004), 0.0002, 0.0005, simulate).world()
    assert 0 < world["way_s"] <= world["way_p95_s"] <= world["way_p99_s"]
    WorldSettings(**world)  # refuses what cannot be
