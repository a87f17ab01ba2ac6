"""The static strategy: what is listed, and nothing else."""

from infaas_ray.policy.messages import LoadRequested, ReplicaDied, ReplicaFailed
from infaas_ray.policy.scaling.settings import ScalingSettings
from tests.unit.policy.builders import offer, ready, v, worker, worker_type
from tests.unit.policy.world import World, drains, requests, starts

A, B = v("a"), v("b")


def world(**keep_warm: int) -> World:
    settings = ScalingSettings(strategy="static", keep_warm=keep_warm)
    return World(offer("a"), offer("b", usd=0.5), workers=[worker(cpu=1.0)], settings=settings)


def test_it_keeps_what_is_listed_whatever_the_traffic() -> None:
    made = world(a=2)
    made.steady({A: 1000, B: 1000}, 20)
    assert made.counts() == {A: 2}
    made.steady({}, 200)
    assert made.counts() == {A: 2}


def test_the_dead_are_replaced() -> None:
    made = world(a=1)
    made.steady({}, 20)
    assert starts(made.step(ReplicaDied(replica=A + "#1"))) == [A]


def test_what_is_too_much_or_not_listed_is_drained() -> None:
    made = world(a=1)
    made.step()
    assert drains(made.step(ready(A + "#7"), ready(B + "#1"))) == [A + "#7", B + "#1"]


def test_loads_are_refused_for_good() -> None:
    made = world(a=1)
    assert starts(made.step(LoadRequested(variant=B), LoadRequested(variant=A))) == []
    assert made.autoscaler.routing_table(1e6).blocked == {B: "the static strategy loads only what keep_warm lists"}


def test_without_room_the_variant_is_blocked_for_a_while() -> None:
    made = world(a=9)
    assert made.counts() == {}
    made.steady({}, 2)
    assert made.counts() == {A: 4}
    assert A in made.autoscaler.routing_table(made.now).blocked


class TestMachines:
    def made(self, count: int, most: int = 10) -> World:
        settings = ScalingSettings(strategy="static", keep_warm={"a": count})
        types = [worker_type("cpu", most=most), worker_type("dear", usd=9.0)]
        return World(offer("a"), types=types, settings=settings)

    def test_the_workers_that_hold_them_are_asked_for_at_once(self) -> None:
        made = self.made(9)
        assert requests(made.log[0][2]) == [{"cpu": 3, "dear": 0}]
        made.steady({}, 20)
        assert (made.counts(), made.workers()) == ({A: 9}, {"cpu": 3})

    def test_they_are_kept_whatever_the_traffic(self) -> None:
        made = self.made(1)
        made.steady({A: 1000}, 60)
        assert made.steady({}, 600) == []
        assert made.workers() == {"cpu": 1}

    def test_at_the_limit_the_next_type_holds_the_rest(self) -> None:
        made = self.made(9, most=1)
        made.steady({}, 20)
        assert (made.counts(), made.workers()) == ({A: 9}, {"cpu": 1, "dear": 2})

    def test_a_lost_worker_is_replaced(self) -> None:
        made = self.made(4)
        made.steady({}, 20)
        (name,) = made.autoscaler.fleet.workers
        assert requests(made.lose(name)) == [{"cpu": 1, "dear": 0}]
        made.steady({}, 20)
        assert made.counts() == {A: 4}


def test_a_variant_that_cannot_start_is_not_replaced_by_another() -> None:
    made = world(**{"classification:digits": 1})
    broken = ReplicaFailed(replica=A + "#1", variant=A, reason="corrupt", permanent=True)
    assert made.step(broken, passed=0.1) == []
    assert made.steady({}, 20) == []
