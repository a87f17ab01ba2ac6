"""Chooses the worker for a new replica.

Rule: best fit, so that workers fill before others are used and empty ones can be given back: among the workers with
room for what the replica needs, the one that will have the least left. Three things go before: not a worker whose
processors are busy, not one where replicas of the same variant would already share cores (such a replica adds no
capacity), and not one whose accelerators the replica does not need.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from infaas_ray.domain import HardwareKind
from infaas_ray.policy.routing import Offer

BUSY_CPU_SHARE = 0.8  # of the processors in use, as the worker's monitor reports
_EPSILON = 1e-9  # shares of cores are fractions whose sums are not exact
_ACCELERATORS = ("GPU", "neuron_cores")


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


def needs_of(offer: Offer, oversubscription: float) -> Needs:
    """What a replica of the offered variant occupies.

    Processors: its threads divided by `oversubscription`, because replicas seldom compute at the same time; one whole
    GPU; or as many Neuron cores as threads. Memory: the profiled peak.
    """
    threads, memory = offer.variant.threads, offer.profile.peak_memory_bytes
    match offer.variant.hardware:
        case HardwareKind.CPU:
            return Needs(resource="CPU", amount=threads / oversubscription, threads=threads, memory_bytes=memory)
        case HardwareKind.GPU:
            return Needs(resource="GPU", amount=1.0, threads=threads, memory_bytes=memory)
        case HardwareKind.NEURON:
            return Needs(resource="neuron_cores", amount=float(threads), threads=threads, memory_bytes=memory)


def fits(needs: Needs, room: Room) -> bool:
    """Whether the replica has room there."""
    return (
        room.free.get(needs.resource, 0.0) + _EPSILON >= needs.amount and room.free_memory_bytes >= needs.memory_bytes
    )


def place(needs: Needs, rooms: Iterable[Room], crowd: Crowd | None = None) -> Placement:
    """The best worker for the replica, by the rule of this module."""
    crowd = crowd or Crowd()
    rooms = list(rooms)
    fitting = [x for x in rooms if fits(needs, x)]
    if not fitting:
        return Placement(worker=None, reason=_why(needs, rooms))

    def rank(room: Room) -> tuple[bool, bool, bool, float, str]:
        spare = any(room.total.get(x, 0.0) > 0 for x in _ACCELERATORS if x != needs.resource)
        left = (room.free[needs.resource] - needs.amount) / room.total[needs.resource]
        left_memory = (room.free_memory_bytes - needs.memory_bytes) / max(1, room.memory_bytes)
        return room.busy, crowd.shares_cores(room, needs), spare, min(left, left_memory), room.worker

    return Placement(worker=min(fitting, key=rank).worker)


def _why(needs: Needs, rooms: list[Room]) -> str:
    wanted = f"{needs.amount:g} {needs.resource} and {needs.memory_bytes / 2**20:.0f} MiB"
    if not rooms:
        return f"needs {wanted}, and there is no worker"
    able = [
        x
        for x in rooms
        if x.total.get(needs.resource, 0.0) + _EPSILON >= needs.amount and x.memory_bytes >= needs.memory_bytes
    ]
    if not able:
        return f"needs {wanted}, more than any worker has"
    return f"needs {wanted}, and no worker has that free"
