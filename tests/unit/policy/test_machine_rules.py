"""Machines by the rules of INFaaS: room, the three triggers, idleness, limits, types that cannot be had."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.messages import LoadRequested, ReleaseWorker, WorkerReported
from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.settings import MachineSettings
from tests.unit.policy.builders import MIB, offer, traffic, v, worker, worker_type
from tests.unit.policy.world import World, requests, starts

A = v("a")
CPU, BIG = worker_type("cpu", usd=0.4), worker_type("big", cpu=16.0, usd=1.6)
GPU = worker_type("gpu", gpu=1.0, usd=3.0)


def world(*offers: Offer, types: Sequence[WorkerType] = (CPU, BIG, GPU), **changes: object) -> World:
    settings = ScalingSettings(**{"strategy": "individual", "start_overhead_s": 0.0, **changes})  # type: ignore[arg-type]
    return World(*(offers or (offer("a"),)), types=types, settings=settings)


class TestRoom:
    def test_a_replica_without_room_gets_the_cheapest_worker_that_holds_it(self) -> None:
        made = world()
        assert requests(made.step(LoadRequested(variant=A))) == [{"cpu": 1, "big": 0, "gpu": 0}]
        assert requests(made.steady({A: 10}, 8)) == []
        assert starts(made.steady({A: 10}, 3)) == [A]

    def test_one_that_needs_more_than_the_cheapest_has_gets_a_larger(self) -> None:
        large = offer("a", threads=32)  # 8 processors at 4 threads each
        made = world(large)
        assert requests(made.step(LoadRequested(variant=large.name))) == [{"cpu": 0, "big": 1, "gpu": 0}]

    def test_a_gpu_variant_gets_a_gpu(self) -> None:
        fast = offer("a", hardware=HardwareKind.GPU)
        made = world(fast)
        assert requests(made.step(LoadRequested(variant=fast.name))) == [{"cpu": 0, "big": 0, "gpu": 1}]

    def test_what_cannot_be_held_asks_for_nothing(self) -> None:
        huge = offer("a", memory_bytes=2**40)
        made = world(huge)
        assert made.step(LoadRequested(variant=huge.name)) == []
        assert huge.name in made.autoscaler.routing_table(made.now).blocked

    def test_replicas_for_a_load_get_cores_of_their_own(self) -> None:
        made = world(types=(CPU,))
        made.step(LoadRequested(variant=A))
        made.steady({A: 1000}, 120)
        assert made.workers() == {"cpu": 3}
        assert made.counts() == {A: 11}

    def test_replicas_for_a_load_get_gpus_of_their_own(self) -> None:
        """Three would fit a device's memory, and compute no more there than one."""
        fast = offer("a", hardware=HardwareKind.GPU)
        fast = replace(fast, profile=replace(fast.profile, peak_device_memory_bytes=MIB))
        made = world(fast, types=(replace(GPU, device_memory_bytes=3 * MIB),))
        made.step(LoadRequested(variant=fast.name))
        made.steady({fast.name: 200}, 120)  # at 100 each, with some slack
        assert made.workers() == {"gpu": 3}
        assert made.counts() == {fast.name: 3}
        homes = {x.worker for x in made.autoscaler.fleet.replicas.values()}
        assert len(homes) == 3

    def test_never_more_than_the_type_allows(self) -> None:
        made = world(types=(worker_type("cpu", most=2),))
        made.step(LoadRequested(variant=A))
        made.steady({A: 10_000}, 120)
        assert made.workers() == {"cpu": 2}

    def test_at_the_limit_the_next_type_is_asked_for(self) -> None:
        made = world(types=(worker_type("cpu", usd=0.1, most=1), BIG))
        made.step(LoadRequested(variant=A))
        made.steady({A: 1000}, 60)
        assert made.workers() == {"cpu": 1, "big": 1}

    def test_a_type_that_cannot_be_had_is_replaced_and_tried_again_later(self) -> None:
        made = world(types=(CPU, BIG))
        made.failing = {"cpu"}
        made.step(LoadRequested(variant=A))
        asked = requests(made.steady({A: 10}, 3))
        assert asked == [{"cpu": 0, "big": 0}, {"cpu": 0, "big": 1}]
        made.failing = set()
        made.steady({A: 10}, 40)
        made.steady({A: 1800}, 30)
        assert made.workers() == {"cpu": 1, "big": 1}

    def test_the_least_number_of_workers_is_always_there(self) -> None:
        made = world(types=(worker_type("cpu", least=2),))
        made.steady({}, 120)
        assert made.workers() == {"cpu": 2}


class TestTriggers:
    """One worker of four processors, and a variant of 400 rows/s that uses as many threads as it has replicas."""

    def made(self, **machines: float) -> World:
        settings = ScalingSettings(
            strategy="individual",
            start_overhead_s=0.0,
            max_replicas_per_variant=1,
            machines=MachineSettings(**machines),
        )
        made = World(
            offer("a", threads=4, rate_qps=100),
            types=(CPU, GPU),
            settings=settings,
            workers=[worker("w1", kind="cpu")],
        )
        self.name = offer("a", threads=4).name
        made.step(LoadRequested(variant=self.name))
        made.steady({self.name: 10}, 3)
        return made

    def test_hardware_that_is_used_on_all_workers_gets_another(self) -> None:
        made = self.made()
        assert requests(made.steady({self.name: 79}, 20)) == []
        assert requests(made.steady({self.name: 86}, 20)) == [{"cpu": 2, "gpu": 0}]

    def test_processors_are_measured_too(self) -> None:
        made = self.made()
        busy = WorkerReported(worker="w1", cpu_share=0.81, memory_share=0.1)
        assert requests([x for _ in range(3) for x in made.step(busy, traffic({self.name: 10}))]) == [
            {"cpu": 2, "gpu": 0}
        ]

    def test_refusals_on_most_workers_are_overload(self) -> None:
        made = self.made(busy_share=1.0)
        many = traffic({self.name: 60}, served={self.name: 50}, refused={self.name: 10})
        (asked, *more) = [x for _ in range(4) for x in made.step(many)]
        assert more == []
        assert requests([asked]) == [{"cpu": 2, "gpu": 0}]
        assert asked.because == "1 of 1 workers have overloaded variants"

    def test_interference_on_all_workers_asks_for_another(self) -> None:
        made = self.made()
        slow = traffic({self.name: 60}, slowdowns={self.name + "#1": 3.0})
        asked = [x for _ in range(8) for x in made.step(slow)]
        assert requests(asked) == [{"cpu": 2, "gpu": 0}]
        assert asked[0].because == "variants on CPU are interfered on all workers"

    def test_an_idle_replica_that_is_slow_is_not_interfered(self) -> None:
        made = self.made()
        slow = traffic({self.name: 10}, slowdowns={self.name + "#1": 3.0})
        assert [x for _ in range(6) for x in made.step(slow)] == []

    def test_not_more_than_one_boots_at_a_time_for_a_trigger(self) -> None:
        made = self.made(busy_share=0.5, overloaded_share=1.0)
        made.steady({self.name: 60}, 9)
        assert made.booting() == {"cpu": 1}


class TestIdle:
    def test_empty_workers_are_given_back_one_at_a_time(self) -> None:
        workers = [worker(f"w{n}", kind="cpu") for n in range(3)]
        made = World(offer("a"), types=(CPU,), workers=workers)
        assert made.steady({}, 28) == []
        actions = [made.step() for _ in range(12)]
        assert made.workers() == {}
        assert all(sum(isinstance(x, ReleaseWorker) for x in turn) <= 1 for turn in actions)

    def test_dear_ones_first_and_not_below_the_least(self) -> None:
        kept = worker_type("cpu", least=1)
        workers = [worker("w1", kind="cpu"), worker("w2", kind="gpu", gpu=1.0)]
        made = World(offer("a"), types=(kept, GPU), workers=workers)
        released = [x.worker for x in made.steady({}, 90) if isinstance(x, ReleaseWorker)]
        assert released == ["w2"]

    def test_a_worker_with_a_replica_stays(self) -> None:
        made = world(keep_warm={"a": 1}, types=(CPU,))
        made.steady({}, 300)
        assert made.workers() == {"cpu": 1}

    def test_one_that_a_trigger_would_bring_back_stays(self) -> None:
        workers = [worker("w1", kind="cpu"), worker("w2", kind="cpu")]
        made = World(offer("a", threads=4), types=(CPU,), workers=workers)
        name = offer("a", threads=4).name
        made.step(LoadRequested(variant=name))
        made.steady({name: 90}, 120)
        assert made.workers() == {"cpu": 2}

    def test_workers_of_unknown_types_are_never_given_back(self) -> None:
        made = World(offer("a"), types=(CPU,), workers=[worker("w1", kind="somebody's")])
        assert made.steady({}, 120) == []


@pytest.mark.parametrize("strategy", ["individual", "infaas"])
def test_a_lost_worker_is_replaced(strategy: str) -> None:
    made = world(strategy=strategy, types=(CPU,))
    made.step(LoadRequested(variant=A))
    made.steady({A: 50}, 20)
    (name,) = made.autoscaler.fleet.workers
    assert requests(made.lose(name)) == [{"cpu": 1}]
    made.steady({A: 50}, 15)
    assert made.counts() == {A: 1}


@pytest.mark.parametrize("strategy", ["individual", "infaas"])
def test_a_worker_that_is_taken_away_has_a_successor_before(strategy: str) -> None:
    made = world(strategy=strategy, types=(CPU,))
    made.step(LoadRequested(variant=A))
    made.steady({A: 50}, 20)
    (name,) = made.autoscaler.fleet.workers
    made.interrupt(name, 60.0)
    for _ in range(80):
        made.step(traffic({A: 50}))
        assert made.counts().get(A, 0) >= 1
    assert name not in made.autoscaler.fleet.workers
