"""A world that obeys: it performs the autoscaler's actions in virtual time and reports what became of them."""

from collections.abc import Mapping, Sequence

from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import (
    Action,
    CatalogChanged,
    DrainReplica,
    Event,
    ReleaseWorker,
    ReplicaDrained,
    ReplicaReady,
    ReplicaStopped,
    RequestWorkers,
    SolvePlan,
    StartReplica,
    StopReplica,
    WorkerJoined,
)
from infaas_ray.policy.routing import Offer
from tests.unit.policy.builders import catalog, traffic, worker


class World:
    """One second passes at each `step`; loads take `load_s`, draining and stopping one step each."""

    def __init__(
        self,
        *offers: Offer,
        workers: Sequence[WorkerJoined] | None = None,
        settings: ScalingSettings | None = None,
        load_s: float = 1.0,
    ) -> None:
        self.autoscaler = Autoscaler(settings or ScalingSettings(start_overhead_s=0.0))
        self.now = 0.0
        self.load_s = load_s
        self.log: list[tuple[float, tuple[Event, ...], tuple[Action, ...]]] = []
        self._due: list[tuple[float, Event]] = []
        self.step(CatalogChanged(catalog=catalog(*offers)), *([worker()] if workers is None else workers))

    def step(self, *events: Event, passed: float = 1.0) -> list[Action]:
        """Let time pass, report what is due and `events`, and perform the actions."""
        self.now += passed
        due = [event for at, event in self._due if at <= self.now]
        self._due = [(at, event) for at, event in self._due if at > self.now]
        actions = self.autoscaler.step([*due, *events], self.now)
        self.log.append((self.now, (*due, *events), tuple(actions)))
        self._due += [self._outcome(action) for action in actions]
        return actions

    def steady(self, wanted: Mapping[str, int], seconds: int, refused: Mapping[str, int] | None = None) -> list[Action]:
        """The same traffic for so many seconds; returns all actions."""
        return [action for _ in range(seconds) for action in self.step(traffic(wanted, refused=refused))]

    def _outcome(self, action: Action) -> tuple[float, Event]:
        match action:
            case StartReplica(replica=replica, variant=variant, worker=on):
                event = ReplicaReady(replica=replica, variant=variant, worker=on, address="a")
                return self.now + self.load_s, event
            case DrainReplica(replica=replica):
                return self.now + 1.0, ReplicaDrained(replica=replica)
            case StopReplica(replica=replica):
                return self.now + 1.0, ReplicaStopped(replica=replica)
            case RequestWorkers() | ReleaseWorker() | SolvePlan():
                raise NotImplementedError("this world has a fixed set of workers")

    def counts(self, *states: State) -> dict[str, int]:
        """Living replicas by variant in these states (ready where none is named)."""
        found: dict[str, int] = {}
        for replica in self.autoscaler.fleet.replicas.values():
            if replica.state in (states or (State.READY,)):
                found[replica.variant] = found.get(replica.variant, 0) + 1
        return found


def starts(actions: Sequence[Action]) -> list[str]:
    """The variants that are started."""
    return [x.variant for x in actions if isinstance(x, StartReplica)]


def drains(actions: Sequence[Action]) -> list[str]:
    """The replicas that are drained."""
    return [x.replica for x in actions if isinstance(x, DrainReplica)]
