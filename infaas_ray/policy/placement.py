"""Chooses the worker for a new replica.

Rule: best fit, so that workers fill before others are used and empty ones can be given back: among the workers with
room for what the replica needs, the one that will have the least left. Three things go before: not a worker whose
processors are busy, not one where replicas of the same variant would already share cores (such a replica adds no
capacity), and not one whose accelerators the replica does not need.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import floor

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
_MOST_ON_A_GPU = 16  # replicas that share one device, however small they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a replica occupies: an amount of one of Ray's resources, threads, and memory."""

    resource: str
    amount: float
    threads: int
    memory_bytes: int


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
    """The chosen worker, or None and the reason."""

    worker: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many replicas of the same variant each worker has already."""

    siblings: Mapping[str, int] = field(default_factory=dict)

    def shares_cores(self, room: Room, needs: Needs) -> bool:
        """Whether one more replica there would share cores with its siblings."""
        busy = self.siblings.get(room.worker, 0)
        return busy > 0 and needs.resource == "CPU" and (busy + 1) * needs.threads > room.total.get("CPU", 0.0)


def needs_of(offer: Offer, oversubscription: float, worker_type: WorkerType | None = None) -> Needs:
    """What a replica of the offered variant occupies on a worker of that type.

    Processors: its threads divided by `oversubscription`, because replicas seldom compute at the same time. A GPU: the
    largest of 1, 1/2, 1/3 ... that holds the profiled device memory; all of it where that or the device's memory is
    unknown. Or as many Neuron cores as threads. Memory: the profiled peak.
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
    beside = floor(worker_type.device_memory_bytes / device_memory_bytes)
    return 1.0 / max(1, min(beside, _MOST_ON_A_GPU))


def runs_on(offer: Offer, worker_type: str, resources: Mapping[str, float]) -> bool:
    """Whether a replica of the offered variant can run at all on a worker of that type with these resources in all."""
    named = not offer.worker_types or worker_type in offer.worker_types
    return named and resources.get(RESOURCE_OF[offer.variant.hardware], 0.0) > 0


def fits(needs: Needs, room: Room) -> bool:
    """Whether the replica has room there."""
    return (
        room.free.get(needs.resource, 0.0) + _EPSILON >= needs.amount and room.free_memory_bytes >= needs.memory_bytes
    )


def place(needs: Callable[[Room], Needs | None], rooms: Iterable[Room], crowd: Crowd | None = None) -> Placement:
    """The best worker for the replica, by the rule of this module.

    `needs` says what the replica would occupy in a room, None where it cannot run there.
    """
    crowd = crowd or Crowd()
    able = [(found, x) for x in rooms if (found := needs(x)) is not None]
    fitting = [(need, room) for need, room in able if fits(need, room)]
    if not fitting:
        return Placement(worker=None, reason=_why(able))

    def rank(option: tuple[Needs, Room]) -> tuple[bool, bool, bool, float, str]:
        need, room = option
        spare = any(room.total.get(x, 0.0) > 0 for x in _ACCELERATORS if x != need.resource)
        left = (room.free[need.resource] - need.amount) / room.total[need.resource]
        left_memory = (room.free_memory_bytes - need.memory_bytes) / max(1, room.memory_bytes)
        return room.busy, crowd.shares_cores(room, need), spare, min(left, left_memory), room.worker

    return Placement(worker=min(fitting, key=rank)[1].worker)


def _why(options: list[tuple[Needs, Room]]) -> str:
    if not options:
        return "there is no worker that it could run on"
    needs = min((need for need, _ in options), key=lambda x: x.amount)
    wanted = f"{needs.amount:g} {needs.resource} and {needs.memory_bytes / 2**20:.0f} MiB"
    able = [
        room
        for need, room in options
        if room.total.get(need.resource, 0.0) + _EPSILON >= need.amount and room.memory_bytes >= need.memory_bytes
    ]
    if not able:
        return f"needs {wanted}, more than any worker has"
    return f"needs {wanted}, and no worker has that free"
