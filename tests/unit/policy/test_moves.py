"""Replicas that move to make room for another."""

from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import CatalogChanged, DrainReplica, ReplicaFailed, StartReplica, WorkerInterrupted
from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.moves import Moves
from infaas_ray.policy.scaling.strategy import Orders, Situation
from infaas_ray.policy.traffic import Traffic
from tests.unit.policy.builders import catalog, offer, ready, worker

GIB = 2**30
SMALL = offer("small", memory_bytes=3 * GIB)
TINY = offer("tiny", memory_bytes=GIB)
LARGE = offer("large", memory_bytes=7 * GIB)


class Fixture:
    """Workers of 8 GiB with so many small replicas each, ready."""

    def __init__(self, *counts: int, small: Offer = SMALL) -> None:
        names = [f"w{n}" for n in range(len(counts))]
        self.scaler = Autoscaler(ScalingSettings(strategy="static"))
        self.scaler.step([CatalogChanged(catalog=catalog(small, LARGE)), *(worker(x) for x in names)], 0.0)
        self.fleet, self.moves = self.scaler.fleet, Moves()
        orders = Orders(self.fleet, 0.0)
        for name, count in zip(names, counts, strict=True):
            for _ in range(count):
                replica = orders.start_at(name, small.name, "")
                assert replica is not None
                self.fleet.apply(ready(replica, name), 1.0)

    def turn(self, now: float, make_room: bool = False) -> list[object]:
        orders = Orders(self.fleet, now)
        situation = Situation(fleet=self.fleet, traffic=Traffic(3.0), requests={}, lost=(), pins={}, now=now)
        self.moves.advance(situation, orders)
        if make_room:
            self.moves.make_room(LARGE.name, "test", situation, orders)
        return list(orders.actions)


def test_one_moves_and_the_old_one_drains_when_the_new_one_is_ready() -> None:
    made = Fixture(1, 1)
    [start] = made.turn(10.0, make_room=True)
    assert isinstance(start, StartReplica)
    assert made.moves.under_way(made.fleet).total() == 1
    assert made.turn(11.0, make_room=True) == []
    made.fleet.apply(ready(start.replica, start.worker), 12.0)
    [drain] = made.turn(12.0)
    assert isinstance(drain, DrainReplica)
    assert made.fleet.replicas[drain.replica].worker != start.worker
    assert made.moves.under_way(made.fleet).total() == 0


def test_nothing_moves_where_that_makes_no_room() -> None:
    made = Fixture(2, 1)
    assert made.turn(10.0, make_room=True) == []


def test_the_fewest_move() -> None:
    assert len(Fixture(2, 2, 1, 1).turn(10.0, make_room=True)) == 1


def test_several_move_where_one_is_not_enough() -> None:
    starts = Fixture(4, 4, small=TINY).turn(10.0, make_room=True)
    assert [type(x) for x in starts] == [StartReplica] * 3


def test_nothing_drains_where_the_successor_is_on_a_worker_that_leaves() -> None:
    made = Fixture(1, 1)
    [start] = made.turn(10.0, make_room=True)
    assert isinstance(start, StartReplica)
    made.fleet.apply(ready(start.replica, start.worker), 12.0)
    made.fleet.apply(WorkerInterrupted(worker=start.worker, within_s=30.0), 12.0)
    assert made.turn(12.0) == []


def test_a_successor_that_fails_changes_nothing() -> None:
    made = Fixture(1, 1)
    [start] = made.turn(10.0, make_room=True)
    assert isinstance(start, StartReplica)
    made.fleet.apply(ReplicaFailed(replica=start.replica, variant=SMALL.name, reason="memory", permanent=False), 11.0)
    assert made.turn(11.0) == []
    assert len(made.fleet.of(SMALL.name, State.READY)) == 2
    assert made.turn(25.0, make_room=True), "it is tried again"
