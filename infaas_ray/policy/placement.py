"""Chooses the worker for a new replica.

Rule: best fit, so that workers fill before others are used and empty ones can be given back: among the workers with
room for what the replica needs, the one that will have the least left. Four things go before, in this order: not a
worker where starts of the same variant failed (of such workers, one with the fewest failures), not one whose processors
are busy, not one where replicas of the same variant would already share cores or a GPU (such a replica adds no
capacity), and not one whose accelerators the replica does not need.

Where it is decided already how many workers there are, to fill one before others is to leave what is paid idle. There
replicas are placed `evenly`: best fit while each has cores or a device for itself, and beyond that the worker that has
the most free, of those where it shares nothing with replicas of its own variant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.routing import Offer

BUSY_CPU_SHARE = 0.8  # of the processors in use, as the worker's monitor reports
_EPSILON = 1e-9  # shares of cores are fractions whose sums are not exact
_ACCELERATORS = ("GPU", "neuron_cores")
RESOURCE_OF: Mapping[HardwareKind, str] = {
    HardwareKind.CPU: "CPU",
    HardwareKind.GPU: "GPU",
    HardwareKind.NEURON: "neuron_cores",
}
_MOST_ON_A_GPU = 48  # replicas that share one device, however small: as many clients has CUDA's Multi-Process Service
_SHARES = 10_000  # in which Ray counts a device


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a replica occupies: an amount of one of Ray's resources, threads, and memory."""

    resource: str
    amount: float
    threads: int
    memory_bytes: int

    @property
    def units(self) -> int | None:
        """How many cores or GPUs compute for it, which others may share; None where it has its own anyway."""
        match self.resource:
            case "CPU":
                return self.threads
            case "GPU":
                return 1
            case _:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a worker has free, of what in all. `busy`: its processors are."""

    worker: str
    worker_type: str = ""
    free: Mapping[str, float]
    free_memory_bytes: int
    total: Mapping[str, float]
    memory_bytes: int
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The chosen worker, or None and the reason.

    `shares`: the replica would share cores or a device there; `with_own`: with replicas of its own variant.
    """

    worker: str | None
    reason: str = ""
    shares: bool = False
    with_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many replicas of the same variant each worker has already, and how many starts of it failed there.

    `evenly`: as the rule of this module has it.
    """

    siblings: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    evenly: bool = False


class Rooms:
    """The rooms of many workers as columns, so that one of thousands is found without looking at each in turn."""

    def __init__(self, rooms: Sequence[Room]) -> None:
        self._names = [x.worker for x in rooms]
        self._slots = {name: slot for slot, name in enumerate(self._names)}
        self._busy = np.zeros(len(rooms), dtype=bool)
        self._memory = np.zeros((2, len(rooms)))  # free, in all
        resources = {name for x in rooms for name in x.total} | set(RESOURCE_OF.values())
        self._amounts = {name: np.zeros((2, len(rooms))) for name in resources}
        for room in rooms:
            self.update(room)

    def update(self, room: Room) -> None:
        """A room is now like this; one of an unknown worker is passed over."""
        slot = self._slots.get(room.worker)
        if slot is not None:
            self._busy[slot] = room.busy
            self._memory[:, slot] = room.free_memory_bytes, room.memory_bytes
            for name, column in self._amounts.items():
                column[:, slot] = room.free.get(name, 0.0), room.total.get(name, 0.0)

    def close(self, worker: str) -> None:
        """A worker takes no replica any more."""
        self.update(Room(worker=worker, free={}, free_memory_bytes=0, total={}, memory_bytes=0))

    def best(self, needs: Needs, crowd: Crowd) -> "tuple[_Rank, str] | None":
        """The worker for the replica by the rule of this module, and its rank; None where none has room."""
        free, total = self._amounts[needs.resource]
        fitting = (total > 0) & (free + _EPSILON >= needs.amount) & (self._memory[0] >= needs.memory_bytes)
        slots = np.flatnonzero(fitting)
        if not slots.size:
            return None
        failures = self._column(crowd.failures)[slots]
        fewest = int(failures.min())
        slots = slots[failures == fewest]
        flags = []
        own = self._with_own(needs, crowd)
        for flag in (self._busy, self._shared(needs) if crowd.evenly else own, own, self._spare(needs)):
            better = slots[~flag[slots]]
            flags.append(not better.size)
            slots = better if better.size else slots
        left = (free[slots] - needs.amount) / total[slots]
        left_memory = (self._memory[0, slots] - needs.memory_bytes) / np.maximum(1, self._memory[1, slots])
        least = -left if crowd.evenly and flags[1] else np.minimum(left, left_memory)
        lowest = float(least.min())
        name = min(self._names[x] for x in slots[least == lowest])
        return (fewest, flags[0], flags[1], flags[2], flags[3], lowest), name

    def _column(self, counts: Mapping[str, int]) -> "NDArray[np.int_]":
        """Counts by worker as a column; unknown workers are passed over."""
        found = np.zeros(len(self._names), dtype=int)
        for worker, count in counts.items():
            slot = self._slots.get(worker)
            if slot is not None:
                found[slot] = count
        return found

    def _shared(self, needs: Needs) -> "NDArray[np.bool_]":
        """Where one more replica would share cores or a device."""
        units = needs.units
        if units is None:
            return np.zeros(len(self._names), dtype=bool)
        free, total = self._amounts[needs.resource]
        found: NDArray[np.bool_] = (total - free + needs.amount) * units > (total + _EPSILON) * needs.amount
        return found

    def _with_own(self, needs: Needs, crowd: Crowd) -> "NDArray[np.bool_]":
        """Where it would with its siblings."""
        units = needs.units
        if units is None:
            return np.zeros(len(self._names), dtype=bool)
        siblings = self._column(crowd.siblings)
        found: NDArray[np.bool_] = (siblings > 0) & ((siblings + 1) * units > self._amounts[needs.resource][1])
        return found

    def _spare(self, needs: Needs) -> "NDArray[np.bool_]":
        """Which have accelerators that the replica does not need."""
        found = np.zeros(len(self._names), dtype=bool)
        for name in _ACCELERATORS:
            if name != needs.resource:
                found |= self._amounts[name][1] > 0
        return found

    def could_run(self, needs: Needs) -> bool:
        """Whether there is a worker with some of the resource."""
        return bool((self._amounts[needs.resource][1] > 0).any())

    def could_hold(self, needs: Needs) -> bool:
        """Whether there is a worker that would have room for the replica if it were empty."""
        enough = self._amounts[needs.resource][1] + _EPSILON >= needs.amount
        return bool((enough & (self._memory[1] >= needs.memory_bytes)).any())


_Rank = tuple[int, bool, bool, bool, bool, float]


def needs_of(offer: Offer, oversubscription: float, worker_type: WorkerType | None = None) -> Needs:
    """What a replica of the offered variant occupies on a worker of that type.

    Processors: its threads divided by `oversubscription`, because replicas seldom compute at the same time. A GPU: the
    share of its memory that the profiled device memory is (of several, the largest of 1, 1/2, 1/3 ... that holds it, as
    shares of one are no shares of the next); all of it where one of them is unknown. Or as many Neuron cores as
    threads. Memory: the profiled peak.
    """
    variant, profile = offer.variant, offer.profile
    resource = RESOURCE_OF[variant.hardware]
    match variant.hardware:
        case HardwareKind.CPU:
            amount = variant.threads / oversubscription
        case HardwareKind.GPU:
            amount = _share_of_gpu(profile.peak_device_memory_bytes, worker_type)
        case HardwareKind.NEURON:
            amount = float(variant.threads)
    return Needs(resource=resource, amount=amount, threads=variant.threads, memory_bytes=profile.peak_memory_bytes)


def _share_of_gpu(device_memory_bytes: int, worker_type: WorkerType | None) -> float:
    if device_memory_bytes <= 0 or worker_type is None or worker_type.device_memory_bytes <= 0:
        return 1.0
    beside = worker_type.device_memory_bytes / device_memory_bytes
    if worker_type.resources.get("GPU", 0.0) > 1:
        return 1.0 / max(1, min(floor(beside), _MOST_ON_A_GPU))
    return min(1.0, max(_SHARES // _MOST_ON_A_GPU, ceil(_SHARES / beside)) / _SHARES)


def runs_on(offer: Offer, worker_type: str, resources: Mapping[str, float]) -> bool:
    """Whether a replica of the offered variant can run at all on a worker of that type with these resources in all."""
    named = not offer.worker_types or worker_type in offer.worker_types
    return named and resources.get(RESOURCE_OF[offer.variant.hardware], 0.0) > 0


def fits(needs: Needs, room: Room) -> bool:
    """Whether the replica has room there."""
    return (
        room.free.get(needs.resource, 0.0) + _EPSILON >= needs.amount and room.free_memory_bytes >= needs.memory_bytes
    )


def place(options: Iterable[tuple[Needs, Rooms]], crowd: Crowd | None = None) -> Placement:
    """The best worker for the replica, by the rule of this module.

    `options`: what the replica would occupy in these rooms, once for each worker type that it can run on.
    """
    able = [(needs, rooms) for needs, rooms in options if rooms.could_run(needs)]
    found = [best for needs, rooms in able if (best := rooms.best(needs, crowd or Crowd())) is not None]
    if not found:
        return Placement(worker=None, reason=_why(able))
    rank, worker = min(found)
    return Placement(worker=worker, shares=rank[2], with_own=rank[3])


def _why(options: list[tuple[Needs, Rooms]]) -> str:
    if not options:
        return "there is no worker that it could run on"
    needs = min((need for need, _ in options), key=lambda x: x.amount)
    wanted = f"{needs.amount:g} {needs.resource} and {needs.memory_bytes / 2**20:.0f} MiB"
    if not any(rooms.could_hold(need) for need, rooms in options):
        return f"needs {wanted}, more than any worker has"
    return f"needs {wanted}, and no worker has that free"
