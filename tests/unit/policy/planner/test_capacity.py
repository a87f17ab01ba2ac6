"""What a replica carries within a bound."""

from math import inf

import pytest

from infaas_ray.policy.planner.capacity import Capacity, undominated
from tests.unit.policy.builders import MIB, offer

NET = offer(p99_ms=[(1, 10.0), (8, 24.0)], median=0.5)  # medians 5 and 12 ms: 200 and 667 rows/s


def test_without_a_bound_full_batches_and_little_head_room() -> None:
    found = Capacity(NET).carried(inf, 10_000, 2.0)
    assert found is not None
    assert found.rate_qps == pytest.approx(8 / 0.012, rel=0.1)
    assert found.busy_s == pytest.approx(0.012 / 8)


def test_a_bound_that_no_batch_meets() -> None:
    assert Capacity(NET).carried(0.009, 10.0, 2.0) is None


def test_a_tighter_bound_carries_less_and_more_demand_pools_better() -> None:
    capacity = Capacity(NET)
    rates = [capacity.carried(bound, 1000.0, 2.0) for bound in (0.012, 0.02, 0.05, 0.2)]
    carried = [x.rate_qps for x in rates if x is not None]
    assert len(carried) == 4
    assert carried == sorted(carried)
    small, large = (capacity.carried(0.02, demand, 2.0) for demand in (10.0, 1000.0))
    assert small is not None
    assert large is not None
    assert small.rate_qps < large.rate_qps


def test_batches_are_of_whole_queries() -> None:
    one, three, nine = (Capacity(NET, rows) for rows in (1, 3, 9))
    assert one.least_s == 0.010
    assert three.least_s == pytest.approx(0.014)  # between 1 row and 8
    assert nine.least_s == 0.048  # two full batches
    assert three.carried(0.013, 100.0, 2.0) is None
    found = three.carried(inf, 10_000, 2.0)
    assert found is not None
    assert found.busy_s == pytest.approx(0.010 / 6)  # six rows fit the batch limit of eight


def test_more_head_room_carries_less() -> None:
    some, more = (Capacity(NET).carried(0.03, 100.0, z) for z in (1.0, 3.0))
    assert some is not None
    assert more is not None
    assert more.rate_qps < some.rate_qps
    assert more.busy_s <= 1 / more.rate_qps


def test_square_root_staffing_of_single_rows() -> None:
    """Batches of one, room to wait for exactly one: n replicas for load a carry a = n - z sqrt(a)."""
    single = offer(p99_ms=[(1, 10.0)], median=1.0, batch_limit=1)
    demand = 10_000.0
    found = Capacity(single).carried(0.02, demand, 2.0)
    assert found is not None
    load = demand * 0.01
    assert demand / found.rate_qps == pytest.approx(load + 2.0 * load**0.5)


def test_what_another_beats_in_everything_is_left_out() -> None:
    good = offer("good", accuracy=0.9, rate_qps=200, usd=0.01)
    worse = offer("worse", accuracy=0.8, rate_qps=100, usd=0.02)
    other = offer("other", accuracy=0.95, rate_qps=50, usd=0.03)
    small = offer("small", accuracy=0.7, rate_qps=100, usd=0.02, memory_bytes=MIB)
    assert {x.variant.architecture for x in undominated([good, worse, other, small])} == {"good", "other", "small"}


def test_of_equals_one_is_kept() -> None:
    assert len(undominated([offer("a"), offer("b")])) == 1


def test_beside_neighbours_a_row_counts_for_more_than_its_work_the_more_the_tighter_its_bound() -> None:
    capacity = Capacity(NET)
    factors = []
    for bound in (0.5, 0.03, 0.0125):
        alone, beside = (capacity.carried(bound, 100.0, 2.0, servers) for servers in (inf, 1.0))
        assert alone is not None
        assert beside is not None
        assert beside.rate_qps == alone.rate_qps
        assert beside.busy_s <= 1 / beside.rate_qps
        factors.append(beside.busy_s / alone.busy_s)
    assert 1.0 < factors[0] < factors[1] < factors[2]
