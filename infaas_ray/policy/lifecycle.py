"""The lifecycle of a replica as one table, and the books of one replica and one worker.

    starting ──ready──▶ ready ──drain──▶ draining ──stop──▶ stopping ──stopped──▶ stopped
        └──failed──▶ failed     (any) ──died, worker lost──▶ lost

Rule: `TRANSITIONS` holds every legal change; what is not in it does not happen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from infaas_ray.policy.messages import (
    DrainReplica,
    Message,
    ReplicaDied,
    ReplicaDrained,
    ReplicaFailed,
    ReplicaReady,
    ReplicaStopped,
    StopReplica,
    WorkerLost,
)
from infaas_ray.policy.placement import BUSY_CPU_SHARE, Needs, Room


class State(StrEnum):
    """The lifecycle of a replica. The last three are ends."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


ENDS = frozenset({State.STOPPED, State.FAILED, State.LOST})

TRANSITIONS: Mapping[tuple[State, type[Message]], State] = {
    (State.STARTING, ReplicaReady): State.READY,
    (State.STARTING, ReplicaFailed): State.FAILED,
    (State.STARTING, ReplicaDied): State.LOST,
    (State.STARTING, ReplicaStopped): State.LOST,
    (State.STARTING, StopReplica): State.STOPPING,
    (State.STARTING, WorkerLost): State.LOST,
    (State.READY, ReplicaReady): State.READY,  # its address changed
    (State.READY, DrainReplica): State.DRAINING,
    (State.READY, ReplicaDied): State.LOST,
    (State.READY, ReplicaStopped): State.LOST,
    (State.READY, WorkerLost): State.LOST,
    (State.DRAINING, ReplicaDrained): State.DRAINING,  # asks for the order to stop
    (State.DRAINING, StopReplica): State.STOPPING,
    (State.DRAINING, ReplicaDied): State.LOST,
    (State.DRAINING, ReplicaStopped): State.LOST,
    (State.DRAINING, WorkerLost): State.LOST,
    (State.STOPPING, ReplicaStopped): State.STOPPED,
    (State.STOPPING, ReplicaDied): State.STOPPED,
    (State.STOPPING, ReplicaFailed): State.STOPPED,  # stopped while it was starting
    (State.STOPPING, WorkerLost): State.LOST,
}


@dataclass(slots=True, kw_only=True)
class Replica:
    """A replica as booked. `since`: when it entered its state; `drained`: it holds no query any more.

    `leaving_since`: when its worker was first seen to leave.
    """

    id: str
    variant: str
    worker: str
    needs: Needs | None
    state: State
    since: float
    requested_at: float
    address: str = ""
    drained: bool = False
    leaving_since: float | None = None


@dataclass(slots=True, kw_only=True)
class Worker:
    """A worker, what it has in all, what its monitor says, and its replicas by id.

    One that is `leaving` gets no new replica. Its replicas move off, by `leave_by` at the latest where a provider takes
    it away; then it is `released`, and its end is awaited.
    """

    name: str
    worker_type: str
    resources: Mapping[str, float]
    memory_bytes: int
    joined_at: float = 0.0
    leaving: bool = False
    leave_by: float = inf
    released: bool = False
    cpu_share: float = 0.0
    memory_share: float = 0.0
    replicas: dict[str, Replica] = field(default_factory=dict)
    _room: Room | None = None
    _room_soon: Room | None = None

    @property
    def cores(self) -> int:
        """Whole processors."""
        return int(self.resources.get("CPU", 0.0))

    @property
    def busy(self) -> bool:
        """Whether its processors are busy, as its monitor says."""
        return self.cpu_share > BUSY_CPU_SHARE

    def changed(self) -> None:
        """What it has, or the state or needs of a replica, is another: the room is to be counted anew."""
        self._room = self._room_soon = None

    def room(self) -> Room:
        """What is free; never negative. The same object until something changes."""
        if self._room is None:
            self._room = self.room_without(lambda replica: False)
        return self._room

    def room_soon(self) -> Room:
        """What will be free when the replicas that drain and stop are gone. The same object until something changes."""
        if self._room_soon is None:
            self._room_soon = self.room_without(lambda replica: replica.state in (State.DRAINING, State.STOPPING))
        return self._room_soon

    def room_without(self, without: Callable[[Replica], bool]) -> Room:
        """What is free, leaving out of account the replicas for which `without` holds. Never negative."""
        free = dict(self.resources)
        memory = self.memory_bytes
        for replica in self.replicas.values():
            if replica.needs is not None and not without(replica):
                resource = replica.needs.resource
                free[resource] = max(0.0, free.get(resource, 0.0) - replica.needs.amount)
                memory = max(0, memory - replica.needs.memory_bytes)
        return Room(
            worker=self.name,
            worker_type=self.worker_type,
            free=free,
            free_memory_bytes=memory,
            total=self.resources,
            memory_bytes=self.memory_bytes,
            busy=self.busy,
        )
