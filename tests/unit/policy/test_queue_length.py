"""Replicas by queue length: the target, the delays, nodes for pending replicas, idle nodes."""

from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.messages import LoadRequested, ReleaseWorker
from infaas_ray.policy.scaling.delays import Delays
from infaas_ray.policy.scaling.settings import QueueLengthSettings
from tests.unit.policy.builders import offer, traffic, v, worker, worker_type
from tests.unit.policy.world import World, drains, requests, starts

A, B = v("a"), v("b")


def world(*, machines: bool = False, most: int = 10, **changes: float) -> World:
    settings = ScalingSettings(
        strategy="queue_length",
        start_overhead_s=0.0,
        keep_warm={"a": 1},
        queue_length=QueueLengthSettings(**changes),
    )
    offers = offer("a", usd=0.02), offer("b", usd=0.01)
    if machines:
        return World(*offers, types=[worker_type("cpu", most=most)], settings=settings)
    return World(*offers, workers=[worker(cpu=16.0)], settings=settings)


def ongoing(made: World, count: int, seconds: int) -> list[object]:
    report = traffic({A: 10}, ongoing={A: count})
    return [x for _ in range(seconds) for x in made.step(report)]


def test_as_many_replicas_as_rows_are_ongoing_over_the_target() -> None:
    made = world(up_delay_s=0.0)
    ongoing(made, 7, 30)
    assert made.counts() == {A: 4}


def test_more_only_after_the_delay() -> None:
    made = world()
    assert ongoing(made, 7, 30) == []
    ongoing(made, 7, 5)
    assert made.counts()[A] > 1


def test_a_short_peak_changes_nothing() -> None:
    made = world(up_delay_s=10.0)
    for _ in range(10):
        assert ongoing(made, 8, 6) == []
        assert ongoing(made, 0, 12) == []


def test_fewer_only_after_their_delay() -> None:
    made = world(up_delay_s=0.0)
    ongoing(made, 8, 30)
    assert ongoing(made, 2, 590) == []
    assert len(drains(ongoing(made, 2, 30))) == 3  # type: ignore[arg-type]


def test_refused_rows_count_as_long_as_one_takes() -> None:
    made = world(up_delay_s=0.0)
    report = traffic({A: 1000}, served={A: 400}, refused={A: 600}, ongoing={A: 2})
    for _ in range(30):
        made.step(report)
    assert made.counts() == {A: 4}  # (2 + 600 x 10 ms) / 2


def test_nothing_else_is_used() -> None:
    made = world()
    made.step(LoadRequested(variant=B))
    made.steady({B: 1000}, 60)
    assert made.counts() == {A: 1}
    assert B in made.autoscaler.routing_table(made.now).broken


def test_pending_replicas_get_as_many_nodes_as_hold_them() -> None:
    made = world(machines=True, up_delay_s=0.0)
    made.steady({}, 15)
    assert made.workers() == {"cpu": 1}
    asked = requests(ongoing(made, 20, 20))  # type: ignore[arg-type]
    assert asked[-1] == {"cpu": 3}
    ongoing(made, 20, 20)
    assert (made.counts(), made.workers()) == ({A: 10}, {"cpu": 3})


def test_at_the_limit_of_nodes_replicas_stay_pending() -> None:
    made = world(machines=True, most=1, up_delay_s=0.0)
    made.steady({}, 15)
    ongoing(made, 20, 60)
    assert (made.counts(), made.workers()) == ({A: 4}, {"cpu": 1})


def test_idle_nodes_are_removed_after_their_time() -> None:
    made = world(machines=True, up_delay_s=0.0, down_delay_s=20.0)
    made.steady({}, 15)
    ongoing(made, 20, 60)
    quiet = [x for _ in range(340) for x in made.step(traffic())]
    assert sum(isinstance(x, ReleaseWorker) for x in quiet) == 2
    assert (made.counts(), made.workers()) == ({A: 1}, {"cpu": 1})


def test_a_dead_replica_is_replaced_at_once() -> None:
    made = world(machines=True)
    made.steady({}, 15)
    (name,) = made.autoscaler.fleet.workers
    made.lose(name)
    assert starts(made.steady({}, 15)) == [A]


class TestDelays:
    def test_a_change_of_direction_starts_anew(self) -> None:
        delays = Delays(5.0, 10.0)
        assert [delays.may("a", 1, now) for now in (0.0, 4.0)] == [False, False]
        assert [delays.may("a", -1, now) for now in (4.5, 14.0)] == [False, False]
        assert delays.may("a", -1, 14.5)
        assert not delays.may("a", 1, 15.0)
        assert delays.may("a", 1, 20.0)

    def test_a_moment_without_need_starts_anew(self) -> None:
        delays = Delays(5.0, 10.0)
        delays.may("a", 1, 0.0)
        delays.may("a", 0, 4.0)
        assert not delays.may("a", 1, 5.0)
