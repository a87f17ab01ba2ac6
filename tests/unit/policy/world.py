"""A world that obeys: it performs the autoscaler's actions in virtual time and reports what became of them.

Workers of types of the catalogue boot for `boot_s` of their type; launches of the types in `failing` fail after a
second, and so do starts on the workers in `broken`, and for good those of the variants in `corrupt`; a worker that is
released or lost is gone with all that is on it. `ask` has queries served as a fluid (see `fluid`).
"""

from collections.abc import Mapping, Sequence

from infaas_ray.domain import WorkerType
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import (
    Action,
    CatalogChanged,
    DrainReplica,
    Event,
    LaunchFailed,
    LoadRequested,
    PlanMade,
    ReleaseWorker,
    ReplicaDrained,
    ReplicaFailed,
    ReplicaReady,
    ReplicaStopped,
    RequestWorkers,
    SolvePlan,
    StartReplica,
    StopReplica,
    TrafficReported,
    WorkerInterrupted,
    WorkerJoined,
    WorkerLost,
)
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.routing import Offer
from tests.unit.policy.builders import catalog, traffic, worker
from tests.unit.policy.fluid import Asked, serve


class World:
    """One second passes at each `step`; loads take `load_s`, draining and stopping one step each."""

    def __init__(
        self,
        *offers: Offer,
        workers: Sequence[WorkerJoined] | None = None,
        settings: ScalingSettings | None = None,
        load_s: float = 1.0,
        types: Sequence[WorkerType] = (),
    ) -> None:
        self.autoscaler = Autoscaler(settings or ScalingSettings(strategy="individual", start_overhead_s=0.0))
        self.now = 0.0
        self.load_s = load_s
        self.solve = solve
        self.types = {x.name: x for x in types}
        self.failing: set[str] = set()
        self.broken: set[str] = set()
        self.corrupt: set[str] = set()
        self.missed = 0.0  # share of rows in the last second that `ask` found no room for
        self.log: list[tuple[float, tuple[Event, ...], tuple[Action, ...]]] = []
        self._due: list[tuple[float, Event]] = []
        self._living: dict[str, str] = {}  # worker -> its type
        self._made = 0
        if workers is None:
            workers = () if types else (worker(),)
        self.step(CatalogChanged(catalog=catalog(*offers, types=types)), *workers)

    # ---- time

    def step(self, *events: Event, passed: float = 1.0) -> list[Action]:
        """Let time pass, report what is due and `events`, and perform the actions."""
        self.now += passed
        due = [event for at, event in self._due if at <= self.now]
        self._due = [(at, event) for at, event in self._due if at > self.now]
        for event in (*due, *events):
            self._notice(event)
        actions = self.autoscaler.step([*due, *events], self.now)
        self.log.append((self.now, (*due, *events), tuple(actions)))
        for action in actions:
            self._perform(action)
        return actions

    def steady(self, wanted: Mapping[str, int], seconds: int, refused: Mapping[str, int] | None = None) -> list[Action]:
        """The same traffic for so many seconds; returns all actions."""
        return [action for _ in range(seconds) for action in self.step(traffic(wanted, refused=refused))]

    def ask(self, *asked: Asked, seconds: int = 1) -> list[Action]:
        """Have these queries served for so many seconds; returns all actions."""
        return [action for _ in range(seconds) for action in self.step(*self._serve(asked))]

    def _serve(self, asked: Sequence[Asked]) -> tuple[TrafficReported | LoadRequested, ...]:
        report, loads = serve(self.autoscaler.routing_table(self.now), asked)
        rows = sum(x.rows for x in report.classes)
        self.missed = sum(x.missed for x in report.classes) / rows if rows else 0.0
        return (report, *loads)

    # ---- what happens to workers

    def lose(self, name: str) -> list[Action]:
        """A worker dies."""
        return self.step(WorkerLost(worker=name))

    def interrupt(self, name: str, within_s: float) -> list[Action]:
        """A worker is to be taken away, and then is."""
        self._due.append((self.now + within_s, WorkerLost(worker=name)))
        return self.step(WorkerInterrupted(worker=name, within_s=within_s))

    def _notice(self, event: Event) -> None:
        """Keep the books of what lives; what is on a lost worker says nothing more."""
        match event:
            case WorkerJoined():
                self._living[event.worker] = event.worker_type
            case WorkerLost():
                self._living.pop(event.worker, None)
                self._due = [
                    (at, x)
                    for at, x in self._due
                    if not (isinstance(x, ReplicaReady | WorkerLost) and x.worker == event.worker)
                ]

    def _perform(self, action: Action) -> None:
        match action:
            case StartReplica(replica=replica, variant=variant, worker=on):
                self._start(replica, variant, on)
            case DrainReplica(replica=replica):
                self._due.append((self.now + 1.0, ReplicaDrained(replica=replica)))
            case StopReplica(replica=replica):
                self._due.append((self.now + 1.0, ReplicaStopped(replica=replica)))
            case ReleaseWorker(worker=name):
                self._due.append((self.now + 1.0, WorkerLost(worker=name)))
            case RequestWorkers(counts=counts):
                for name, count in counts.items():
                    self._have(self.types[name], count)
            case SolvePlan(number=number, problem=problem):
                plan = self.solve(problem, time_limit_s=10.0)
                self._due.append((self.now + 0.5, PlanMade(number=number, plan=plan, took_s=0.5)))

    def _start(self, replica: str, variant: str, on: str) -> None:
        if on in self.broken or variant in self.corrupt:
            lasting = variant in self.corrupt
            failed = ReplicaFailed(replica=replica, variant=variant, reason="it breaks", permanent=lasting)
            self._due.append((self.now + 1.0, failed))
        else:
            ready = ReplicaReady(replica=replica, variant=variant, worker=on, address="a")
            self._due.append((self.now + self.load_s, ready))

    def _have(self, known: WorkerType, count: int) -> None:
        """Let so many workers of a type be there or booting, without those that leave."""
        fleet = self.autoscaler.fleet
        here = sum(kind == known.name and not fleet.workers[name].leaving for name, kind in self._living.items())
        booting = [x for x in self._due if isinstance(x[1], WorkerJoined) and x[1].worker_type == known.name]
        for late in booting[max(0, count - here) :]:
            self._due.remove(late)
        missing = count - here - len(booting)
        if missing > 0 and known.name in self.failing:
            self._due.append((self.now + 1.0, LaunchFailed(worker_type=known.name, reason="no capacity")))
            return
        for _ in range(missing):
            self._made += 1
            joined = WorkerJoined(
                worker=f"{known.name}-{self._made}",
                worker_type=known.name,
                resources=known.resources,
                memory_bytes=known.memory_bytes,
            )
            self._due.append((self.now + known.boot_s, joined))

    # ---- what there is

    def counts(self, *states: State) -> dict[str, int]:
        """Living replicas by variant in these states (ready where none is named)."""
        found: dict[str, int] = {}
        for replica in self.autoscaler.fleet.replicas.values():
            if replica.state in (states or (State.READY,)):
                found[replica.variant] = found.get(replica.variant, 0) + 1
        return found

    def workers(self) -> dict[str, int]:
        """Living workers by type."""
        found: dict[str, int] = {}
        for kind in self._living.values():
            found[kind] = found.get(kind, 0) + 1
        return found

    def booting(self) -> dict[str, int]:
        """Workers to come by type."""
        found: dict[str, int] = {}
        for _, event in self._due:
            if isinstance(event, WorkerJoined):
                found[event.worker_type] = found.get(event.worker_type, 0) + 1
        return found


def starts(actions: Sequence[Action]) -> list[str]:
    """The variants that are started."""
    return [x.variant for x in actions if isinstance(x, StartReplica)]


def drains(actions: Sequence[Action]) -> list[str]:
    """The replicas that are drained."""
    return [x.replica for x in actions if isinstance(x, DrainReplica)]


def requests(actions: Sequence[Action]) -> list[Mapping[str, int]]:
    """The counts of workers that are asked for."""
    return [x.counts for x in actions if isinstance(x, RequestWorkers)]
