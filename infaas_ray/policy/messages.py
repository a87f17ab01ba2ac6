"""What the controller tells the autoscaler (events, past tense) and what it is told to do (actions, imperative).

Each message is one line of the decision log: JSON with its type under `type`, so a log can be read back and fed
to a fresh autoscaler. Messages carry facts only, never handles or clocks.
"""

from collections.abc import Mapping

import msgspec

from infaas_ray.domain import OnMiss
from infaas_ray.policy.planner.problem import Plan, PlanProblem
from infaas_ray.policy.routing import Catalog


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all events and actions."""


# ---- events ----------------------------------------------------------------------------------------------------


class CatalogChanged(Message, frozen=True, kw_only=True):
    """The catalogue is now this one."""

    catalog: Catalog


class WorkerJoined(Message, frozen=True, kw_only=True):
    """A worker can take replicas. `resources` are Ray's (CPU, GPU, neuron_cores), as free for replicas at the start."""

    worker: str
    worker_type: str
    resources: Mapping[str, float]
    memory_bytes: int


class WorkerLost(Message, frozen=True, kw_only=True):
    """A worker is gone, with every replica on it."""

    worker: str


class WorkerReported(Message, frozen=True, kw_only=True):
    """The monitor of a worker: shares in 0..1 of its processors and memory in use."""

    worker: str
    cpu_share: float
    memory_share: float


class WorkerInterrupted(Message, frozen=True, kw_only=True):
    """The provider takes a worker away in `within_s` seconds (a spot machine)."""

    worker: str
    within_s: float


class LaunchFailed(Message, frozen=True, kw_only=True):
    """The provider could not start workers of a type (no capacity, quota, a wrong setting).

    `coming`: how many others of the type, asked for too, are known to be starting.
    """

    worker_type: str
    reason: str
    coming: int = 0


class PlanMade(Message, frozen=True, kw_only=True):
    """The plan asked for under `number`; None where there is none, and why."""

    number: int
    plan: Plan | None
    took_s: float
    reason: str = ""


class ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    """Rows in a window that ask for the same, in queries of `rows_each` rows on average; None means "any".

    `missed`: refused, expired, answered late, or answered less accurately than asked.
    """

    target: str
    latency_s: float | None = None
    min_accuracy: float | None = None
    max_usd_per_1k: float | None = None
    on_miss: OnMiss = OnMiss.REJECT
    rows_each: float = 1.0
    rows: int
    missed: int = 0


class TrafficReported(Message, frozen=True, kw_only=True):
    """One router's last window of `window_s` seconds, in rows.

    `wanted` counts each query at the cheapest variant that meets its SLO, loaded or not, answered or refused;
    `served` counts it where it was dispatched; `refused` counts, by wanted variant, those refused for lack of capacity.
    `classes` counts by what was asked, whatever became of it. At the end of the window: `ongoing` by variant, online
    rows that are queued, computed, or wait for a load; `slowdowns` by replica, measured over profiled latency, of those
    that are markedly slow. `applications` is what of `served` was of a named application, by its name and variant.
    """

    router: str
    window_s: float
    wanted: Mapping[str, int]
    served: Mapping[str, int]
    refused: Mapping[str, int]
    classes: tuple[ClassCount, ...] = ()
    ongoing: Mapping[str, int] = msgspec.field(default_factory=dict)
    slowdowns: Mapping[str, float] = msgspec.field(default_factory=dict)
    applications: Mapping[str, Mapping[str, int]] = msgspec.field(default_factory=dict)


class LoadRequested(Message, frozen=True, kw_only=True):
    """A query needs `variant`, of which no replica is ready, within `within_s` seconds (None: whenever)."""

    variant: str
    within_s: float | None = None


class ReplicaReady(Message, frozen=True, kw_only=True):
    """A replica answers. Also sent for each living replica that a new controller finds."""

    replica: str
    variant: str
    worker: str
    address: str


class ReplicaFailed(Message, frozen=True, kw_only=True):
    """A replica did not start. `permanent`: trying again cannot help (a corrupt artifact, a missing framework)."""

    replica: str
    variant: str
    reason: str
    permanent: bool


class ReplicaDied(Message, frozen=True, kw_only=True):
    """A replica that was ready or draining is gone without having been told to stop."""

    replica: str


class ReplicaDrained(Message, frozen=True, kw_only=True):
    """A draining replica has answered its last query."""

    replica: str


class ReplicaStopped(Message, frozen=True, kw_only=True):
    """A replica that was told to stop is gone."""

    replica: str


Event = (
    CatalogChanged
    | WorkerJoined
    | WorkerLost
    | WorkerReported
    | WorkerInterrupted
    | LaunchFailed
    | PlanMade
    | TrafficReported
    | LoadRequested
    | ReplicaReady
    | ReplicaFailed
    | ReplicaDied
    | ReplicaDrained
    | ReplicaStopped
)

# ---- actions ---------------------------------------------------------------------------------------------------


class StartReplica(Message, frozen=True, kw_only=True):
    """Start a replica of `variant` on `worker` under the id `replica`; it occupies `amount` of its main resource."""

    replica: str
    variant: str
    worker: str
    amount: float
    because: str


class DrainReplica(Message, frozen=True, kw_only=True):
    """Take the replica out of the routing table, then let it finish what it holds."""

    replica: str
    because: str


class StopReplica(Message, frozen=True, kw_only=True):
    """End the replica's process; it holds no query."""

    replica: str
    because: str


class RequestWorkers(Message, frozen=True, kw_only=True):
    """Let there be so many workers of each type: those that live and do not leave, and those to be started.

    Replaces the last request. Lowering a count releases no worker; `ReleaseWorker` does.
    """

    counts: Mapping[str, int]
    because: str


class ReleaseWorker(Message, frozen=True, kw_only=True):
    """Give a worker back; no replica is on it."""

    worker: str
    because: str


class SolvePlan(Message, frozen=True, kw_only=True):
    """Make a plan beside the control loop, and report it as `PlanMade` with this number."""

    number: int
    problem: PlanProblem
    because: str


Action = StartReplica | DrainReplica | StopReplica | RequestWorkers | ReleaseWorker | SolvePlan
