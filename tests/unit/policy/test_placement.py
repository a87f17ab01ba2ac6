"""Where a new replica goes."""

import pytest

from infaas_ray.domain import HardwareKind
from infaas_ray.policy.placement import Crowd, Needs, Placement, Room, needs_of
from infaas_ray.policy.placement import place as place_by_room
from tests.unit.policy.builders import MIB, offer

NEEDS = Needs(resource="CPU", amount=1.0, threads=1, memory_bytes=100 * MIB)
GPU_NEEDS = Needs(resource="GPU", amount=1.0, threads=1, memory_bytes=100 * MIB)


def place(needs: Needs, rooms: list[Room], crowd: Crowd | None = None) -> Placement:
    return place_by_room(lambda _: needs, rooms, crowd)


def room(
    name: str, cpu: float = 4.0, *, memory: int = 1000, total: float = 4.0, gpu: float = 0.0, busy: bool = False
) -> Room:
    more = {"GPU": gpu} if gpu else {}
    return Room(
        worker=name,
        free={"CPU": cpu, **more},
        free_memory_bytes=memory * MIB,
        total={"CPU": total, **more},
        memory_bytes=1000 * MIB,
        busy=busy,
    )


def test_the_fullest_worker_that_fits() -> None:
    assert place(NEEDS, [room("a"), room("b", 2.0), room("c", 0.5)]).worker == "b"


def test_full_of_memory_counts_as_full() -> None:
    assert place(NEEDS, [room("a"), room("b", memory=150)]).worker == "b"
    assert place(NEEDS, [room("a"), room("b", memory=50)]).worker == "a"


def test_equal_workers_are_taken_by_name() -> None:
    assert place(NEEDS, [room("b"), room("a")]).worker == "a"


def test_busy_workers_come_last() -> None:
    assert place(NEEDS, [room("a"), room("b", 2.0, busy=True)]).worker == "a"
    assert place(NEEDS, [room("b", 2.0, busy=True)]).worker == "b"


def test_replicas_of_one_variant_do_not_share_cores_while_others_are_free() -> None:
    rooms = [room("a"), room("b", 3.0, total=2.0)]
    assert place(NEEDS, rooms).worker == "a"
    small = Needs(resource="CPU", amount=0.25, threads=1, memory_bytes=MIB)
    fuller = [room("a"), room("b", 1.5, total=2.0)]
    assert place(small, fuller, Crowd(siblings={"b": 1})).worker == "b"
    assert place(small, fuller, Crowd(siblings={"b": 2})).worker == "a"


def test_accelerators_are_kept_for_those_who_need_them() -> None:
    assert place(NEEDS, [room("gpu", 2.0, gpu=1.0), room("plain")]).worker == "plain"
    assert place(GPU_NEEDS, [room("gpu", 2.0, gpu=1.0), room("plain")]).worker == "gpu"


@pytest.mark.parametrize(
    ("rooms", "reason"),
    [
        ([], "there is no worker that it could run on"),
        ([room("a")], "needs 1 GPU and 100 MiB, more than any worker has"),
        ([room("a", gpu=1.0, memory=50)], "needs 1 GPU and 100 MiB, and no worker has that free"),
    ],
)
def test_no_room_has_a_reason(rooms: list[Room], reason: str) -> None:
    found = place(GPU_NEEDS, rooms)
    assert (found.worker, found.reason) == (None, reason)


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [(HardwareKind.CPU, ("CPU", 0.5)), (HardwareKind.GPU, ("GPU", 1.0)), (HardwareKind.NEURON, ("neuron_cores", 2.0))],
)
def test_needs_follow_the_hardware(hardware: HardwareKind, expected: tuple[str, float]) -> None:
    needs = needs_of(offer(threads=2, hardware=hardware), oversubscription=4.0)
    assert (needs.resource, needs.amount) == expected
    assert needs.memory_bytes == 100 * MIB


def test_fractions_that_do_not_sum_exactly_still_fit() -> None:
    needs = Needs(resource="CPU", amount=0.1, threads=1, memory_bytes=MIB)
    left = 0.3 - 0.2
    assert left < 0.1
    assert place(needs, [room("a", left)]).worker == "a"
