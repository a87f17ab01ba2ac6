"""Where a new replica goes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.domain import HardwareKind
from infaas_ray.policy.placement import Crowd, Needs, Placement, Room, Rooms, fits, needs_of
from infaas_ray.policy.placement import place as place_by_room
from tests.unit.policy.builders import MIB, offer, worker_type

NEEDS = Needs(resource="CPU", amount=1.0, threads=1, memory_bytes=100 * MIB)
GPU_NEEDS = Needs(resource="GPU", amount=1.0, threads=1, memory_bytes=100 * MIB)


def place(needs: Needs, rooms: list[Room], crowd: Crowd | None = None) -> Placement:
    return place_by_room([(needs, Rooms(rooms))], crowd)


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


def test_where_starts_failed_comes_after_all_others_and_the_fewest_failures_first() -> None:
    busy = room("c", busy=True)
    assert place(NEEDS, [room("a"), room("b"), busy], Crowd(failures={"a": 1, "b": 2})).worker == "c"
    assert place(NEEDS, [room("a"), room("b"), busy], Crowd(failures={"a": 2, "b": 1, "c": 2})).worker == "b"
    assert place(NEEDS, [room("a"), room("b", 0.5)], Crowd(failures={"a": 9})).worker == "a"


def test_replicas_of_one_variant_do_not_share_cores_while_others_are_free() -> None:
    rooms = [room("a"), room("b", 3.0, total=2.0)]
    assert place(NEEDS, rooms).worker == "a"
    small = Needs(resource="CPU", amount=0.25, threads=1, memory_bytes=MIB)
    fuller = [room("a"), room("b", 1.5, total=2.0)]
    assert place(small, fuller, Crowd(siblings={"b": 1})).worker == "b"
    assert place(small, fuller, Crowd(siblings={"b": 2})).worker == "a"


def test_evenly_means_cores_of_its_own_and_then_the_emptiest() -> None:
    quarter = Needs(resource="CPU", amount=0.25, threads=1, memory_bytes=MIB)
    even = Crowd(evenly=True)
    found = place(quarter, [room("a", 3.5), room("b", 3.0)], even)  # two of four cores are promised, and all four
    assert (found.worker, found.shares) == ("a", False)
    found = place(quarter, [room("a", 1.5), room("b", 2.0)], even)
    assert (found.worker, found.shares) == ("b", True)


def test_where_all_share_evenly_means_with_others_rather_than_with_its_own() -> None:
    small = replace(GPU_NEEDS, amount=0.1)
    rooms = [replace(room(x, gpu=1.0), free={"CPU": 4.0, "GPU": free}) for x, free in (("a", 0.9), ("b", 0.5))]
    found = place(small, rooms, Crowd(siblings={"a": 1}, evenly=True))
    assert (found.worker, found.shares, found.with_own) == ("b", True, False)
    found = place(small, rooms, Crowd(siblings={"a": 1, "b": 1}, evenly=True))
    assert (found.worker, found.with_own) == ("a", True)


def test_accelerators_are_kept_for_those_who_need_them() -> None:
    assert place(NEEDS, [room("gpu", 2.0, gpu=1.0), room("plain")]).worker == "plain"
    assert place(GPU_NEEDS, [room("gpu", 2.0, gpu=1.0), room("plain")]).worker == "gpu"


@pytest.mark.parametrize(
    ("rooms", "reason"),
    [
        ([], "there is no worker that it could run on"),
        ([room("a")], "there is no worker that it could run on"),
        ([room("a", gpu=0.5)], "needs 1 GPU and 100 MiB, more than any worker has"),
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


@pytest.mark.parametrize(("share", "expected"), [(0.55, 0.55), (0.123456, 0.1235), (0.001, 0.0208), (2.0, 1.0)])
def test_one_gpu_is_shared_by_its_memory(share: float, expected: float) -> None:
    gpu = replace(worker_type("gpu", gpu=1.0), device_memory_bytes=10_000 * MIB)
    fast = offer(hardware=HardwareKind.GPU)
    fast = replace(fast, profile=replace(fast.profile, peak_device_memory_bytes=int(share * 10_000 * MIB)))
    assert needs_of(fast, 4.0, gpu).amount == expected
    assert needs_of(fast, 4.0).amount == 1.0


@pytest.mark.parametrize(("share", "beside"), [(0.6, 1), (0.5, 2), (0.3, 3), (0.001, 48), (2.0, 1)])
def test_of_several_gpus_none_is_promised_more_than_it_has(share: float, beside: int) -> None:
    two = replace(worker_type("gpu", gpu=2.0), device_memory_bytes=10_000 * MIB)
    fast = offer(hardware=HardwareKind.GPU)
    fast = replace(fast, profile=replace(fast.profile, peak_device_memory_bytes=int(share * 10_000 * MIB)))
    assert needs_of(fast, 4.0, two).amount == 1 / beside


def test_fractions_that_do_not_sum_exactly_still_fit() -> None:
    needs = Needs(resource="CPU", amount=0.1, threads=1, memory_bytes=MIB)
    left = 0.3 - 0.2
    assert left < 0.1
    assert place(needs, [room("a", left)]).worker == "a"


class TestManyRooms:
    @given(
        st.lists(
            st.builds(
                room,
                st.sampled_from("abcdefgh"),
                st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]),
                memory=st.sampled_from([50, 100, 500, 1000]),
                total=st.sampled_from([1.0, 2.0, 4.0]),
                gpu=st.sampled_from([0.0, 1.0]),
                busy=st.booleans(),
            ),
            unique_by=lambda x: x.worker,
        ),
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 4)),
        st.sampled_from([NEEDS, replace(NEEDS, amount=0.25), GPU_NEEDS, replace(GPU_NEEDS, amount=0.25)]),
        st.booleans(),
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 2)),
    )
    def test_columns_choose_what_the_rule_says_of_each_room(
        self, rooms: list[Room], siblings: dict[str, int], needs: Needs, evenly: bool, failures: dict[str, int]
    ) -> None:
        def failed(x: Room) -> int:
            return failures.get(x.worker, 0)

        def units(x: Room) -> tuple[int, float]:
            return needs.threads if needs.resource == "CPU" else 1, x.total[needs.resource]

        def with_own(x: Room) -> bool:
            own, total = units(x)
            return (siblings.get(x.worker, -1) + 1) * own > total

        def crowded(x: Room) -> bool:
            own, total = units(x)
            others = (total - x.free[needs.resource]) / needs.amount * own + own > total
            return others if evenly else with_own(x)

        def rank(x: Room) -> tuple[int, bool, bool, bool, bool, float, str]:
            spare = needs.resource != "GPU" and x.total.get("GPU", 0.0) > 0
            left = (x.free[needs.resource] - needs.amount) / x.total[needs.resource]
            memory = (x.free_memory_bytes - needs.memory_bytes) / x.memory_bytes
            alike = [y for y in fitting if (failed(y), y.busy) == (failed(x), x.busy)]
            fit = -left if evenly and all(crowded(y) for y in alike) else min(left, memory)
            return failed(x), x.busy, crowded(x), with_own(x), spare, fit, x.worker

        fitting = [x for x in rooms if x.total.get(needs.resource, 0.0) > 0 and fits(needs, x)]
        expected = min(fitting, key=rank) if fitting else None
        found = place(needs, rooms, Crowd(siblings=siblings, failures=failures, evenly=evenly))
        assert found.worker == (expected.worker if expected else None)
        assert found.shares == (expected is not None and crowded(expected))
        assert found.with_own == (expected is not None and with_own(expected))

    def test_rooms_that_change_or_close_are_seen(self) -> None:
        rooms = Rooms([room("a"), room("b")])
        rooms.update(room("b", 2.0))
        rooms.update(room("new", 1.0))
        assert place_by_room([(NEEDS, rooms)]).worker == "b"
        rooms.close("b")
        assert place_by_room([(NEEDS, rooms)]).worker == "a"
        rooms.close("a")
        assert place_by_room([(NEEDS, rooms)]).reason == "there is no worker that it could run on"
