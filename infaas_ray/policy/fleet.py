"""What is running: workers, replicas and their lifecycles, and the resources that they occupy.

Rules: a replica changes its state only as `lifecycle.TRANSITIONS` says. An order is booked (`request_*`) before
it is given. Facts come from a distributed system and may be late, doubled or wrong: one that fits no transition
changes nothing, and `apply` returns why; it never raises. A living replica that nobody asked for is adopted (a new
controller finds those); one that has ended here is not revived.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import ceil

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.blocks import Attempt, Blocks
from infaas_ray.policy.lifecycle import ENDS, TRANSITIONS, Replica, State, Worker
from infaas_ray.policy.machines import Machines
from infaas_ray.policy.messages import (
    CatalogChanged,
    DrainReplica,
    Event,
    LaunchFailed,
    LoadRequested,
    Message,
    PlanMade,
    ReplicaDied,
    ReplicaDrained,
    ReplicaFailed,
    ReplicaReady,
    ReplicaStopped,
    StopReplica,
    TrafficReported,
    WorkerInterrupted,
    WorkerJoined,
    WorkerLost,
    WorkerReported,
)
from infaas_ray.policy.placement import Crowd, Needs, Placement, Room, Rooms, fits, needs_of, place, runs_on
from infaas_ray.policy.roster import Roster
from infaas_ray.policy.routing import Catalog, RoutingTable
from infaas_ray.policy.starts import Starts, next_in_s

_REMEMBERED = 10_000  # ended replicas, so that late facts about them are recognised


class Fleet:
    """The books. Read its attributes; change them only by the methods."""

    def __init__(self, oversubscription: float, start_overhead_s: float = 0.0) -> None:
        self.catalog = Catalog()
        self.catalog_changes = 0
        self.targets: Mapping[str, tuple[str, ...]] = {}
        self.workers: dict[str, Worker] = {}
        self.blocks = Blocks()
        self.machines = Machines()
        self._oversubscription = oversubscription
        self._roster = Roster()
        self._leaving: dict[str, Worker] = {}
        self._needs: dict[tuple[str, str], Needs] = {}
        self._cores: Counter[int] | None = None
        self._rooms: dict[str, Rooms] = {}
        self._stale: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._ended: dict[str, State] = {}
        self._starts = Starts(start_overhead_s)
        self._lost_variants: list[str] = []

    # ---- reading

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """The living replicas by id, in the order of their booking."""
        return self._roster.replicas

    def of(self, variant: str, *states: State) -> list[Replica]:
        """The replicas of a variant in one of these states, oldest order first."""
        return self._roster.of(variant, states)

    def staying(self, variant: str, *states: State) -> list[Replica]:
        """As `of`, without those on workers that leave."""
        return [x for x in self.of(variant, *states) if not self.workers[x.worker].leaving]

    def variants(self) -> Iterator[str]:
        """The variants that have living replicas."""
        return self._roster.variants()

    def unsettled(self) -> list[Replica]:
        """The replicas that have drained, are of no variant of the catalogue, or are on workers that leave."""
        found = {x.id for x in self._roster.within(State.DRAINING) if x.drained}
        found |= {x.id for x in self._roster.of_others(self.catalog.offers)}
        found |= {name for worker in self._leaving.values() for name in worker.replicas}
        return [x for x in self.replicas.values() if x.id in found] if found else []

    def leaving(self) -> list[Worker]:
        """The workers that leave."""
        return list(self._leaving.values())

    def cores(self) -> Counter[int]:
        """How many workers have so many whole processors."""
        if self._cores is None:
            self._cores = Counter(x.cores for x in self.workers.values())
        return self._cores

    def needs(self, variant: str, worker_type: str = "") -> Needs:
        """What a replica of a variant of the catalogue occupies on a worker of that type."""
        known = self._needs.get((variant, worker_type))
        if known is None:
            known = self._needs[variant, worker_type] = needs_of(
                self.catalog.offers[variant], self._oversubscription, self.catalog.worker_types.get(worker_type)
            )
        return known

    def needs_in(self, variant: str, room: Room) -> Needs | None:
        """What a replica of a variant of the catalogue would occupy in a room; None where it cannot run there."""
        if not self.runs_on(variant, room.worker_type, room.total):
            return None
        return self.needs(variant, room.worker_type)

    def runs_on(self, variant: str, worker_type: str, resources: Mapping[str, float]) -> bool:
        """Whether a variant of the catalogue runs on workers of that type, which have these resources in all."""
        return runs_on(self.catalog.offers[variant], worker_type, resources)

    def place(self, variant: str, worker_type: str | None = None, *, evenly: bool = False) -> Placement:
        """The best worker for a replica of a variant of the catalogue, on that type where one is named."""
        siblings = Counter(x.worker for x in self.of(variant, State.STARTING, State.READY))
        named = self.catalog.offers[variant].worker_types
        options = [
            (self.needs(variant, name), rooms)
            for name, rooms in self._rooms_now().items()
            if worker_type in (None, name) and (not named or name in named)
        ]
        crowd = Crowd(siblings=siblings, failures=self.blocks.failed_on(variant), evenly=evenly)
        return place(options, crowd)

    def _rooms_now(self) -> Mapping[str, Rooms]:
        """The rooms by worker type, with what has changed since they were last asked for."""
        missing: dict[str, list[Room]] = {}
        for worker in self.workers.values() if not self._rooms else ():
            if not worker.leaving:
                missing.setdefault(worker.worker_type, []).append(worker.room())
        self._rooms |= {name: Rooms(rooms) for name, rooms in missing.items()}
        for name in self._stale:
            if name in self.workers and not self.workers[name].leaving:
                self._rooms[self.workers[name].worker_type].update(self.workers[name].room())
        self._stale.clear()
        return self._rooms

    def counts(self) -> dict[str, int]:
        """How many workers of each type of the catalogue are there or booting, without those that leave."""
        types = self.catalog.worker_types
        here = {name: self.machines.booting(name) for name in types}
        for worker in self.workers.values():
            if worker.worker_type in here and not worker.leaving:
                here[worker.worker_type] += 1
        return here

    def take_lost(self) -> list[str]:
        """The variants of replicas that ended unasked since the last call, in order."""
        lost, self._lost_variants = self._lost_variants, []
        return lost

    def start_s(self, variant: str) -> float:
        """Seconds that a start of a variant takes."""
        return self._starts.usual_s(variant, self._load_s(variant) or 0.0)

    def _load_s(self, variant: str) -> float | None:
        offer = self.catalog.offers.get(variant)
        return None if offer is None else offer.profile.load_s

    def ready_in_s(self, variant: str, now: float) -> float | None:
        """Seconds until the first of the starting replicas is expected; None where none starts."""
        elapsed = [now - x.requested_at for x in self.of(variant, State.STARTING)]
        if not elapsed or variant not in self.catalog.offers:
            return None
        return next_in_s(self.start_s(variant), elapsed)

    def routing_table(self, version: int, now: float) -> RoutingTable:
        """What routers should know: ready replicas, loads under way, and what cannot be loaded."""
        offers = self.catalog.offers
        ready = self._roster.ready(offers)
        starting = sorted({x.variant for x in self._roster.within(State.STARTING)})
        loading = {
            name: eta
            for name in starting
            if not self.of(name, State.READY) and (eta := self.ready_in_s(name, now)) is not None
        }
        blocked = {name: reason for name, reason in self.blocks.at(now).items() if name in offers}
        broken = frozenset(name for name in blocked if self.blocks.permanent(name))
        return RoutingTable(
            version=version,
            catalog=self.catalog,
            replicas=ready,
            loading=loading,
            blocked=blocked,
            broken=broken,
            start_overhead_s=ceil(self._starts.overhead_s * 10)
            / 10,  # coarse, so that learning seldom makes a new table
        )

    # ---- orders, booked before they are given

    def request_start(self, variant: str, worker: str, now: float) -> str:
        """Book a new replica; returns its id. Raises InvalidInput where variant or worker is unknown or has no room."""
        if variant not in self.catalog.offers or worker not in self.workers:
            raise InvalidInput(f"cannot start {variant!r} on {worker!r}: one of them is unknown")
        room = self.workers[worker].room()
        needs = self.needs_in(variant, room)
        if needs is None or not fits(needs, room) or self.workers[worker].leaving:
            raise InvalidInput(f"cannot start {variant!r} on {worker!r}: there is no room")
        number = self._numbers[variant] = self._numbers.get(variant, 0) + 1
        name = f"{variant}#{number}"
        self._add(
            Replica(
                id=name,
                variant=variant,
                worker=worker,
                needs=needs,
                state=State.STARTING,
                since=now,
                requested_at=now,
            )
        )
        return name

    def request_drain(self, replica: str, now: float) -> bool:
        """Book that the replica drains; False where its state does not allow it."""
        return self._move(replica, DrainReplica, now) is None

    def request_stop(self, replica: str, now: float) -> bool:
        """Book that the replica stops; False where its state does not allow it."""
        return self._move(replica, StopReplica, now) is None

    def request_workers(self, counts: Mapping[str, int], now: float) -> bool:
        """Book how many workers of each type are to be there or on their way; whether that is anything new."""
        before = self.counts()
        for name, count in counts.items():
            if name in before:
                self.machines.want(name, max(0, self.machines.booting(name) + count - before[name]), now)
        return self.counts() != before

    def request_leave(self, worker: str) -> bool:
        """Book that a worker gets no new replica and is given back when it is empty; False where it leaves already."""
        known = self.workers.get(worker)
        if known is None or known.leaving:
            return False
        self._leave(known)
        return True

    def request_release(self, worker: str) -> bool:
        """Book that a worker is given back; False where it does not leave, is not empty, or was released before."""
        known = self.workers.get(worker)
        if known is None or not known.leaving or known.replicas or known.released:
            return False
        known.released = True
        return True

    # ---- facts

    def apply(self, event: Event, now: float) -> str | None:
        """Take a fact into the books; returns why it was refused, None where it was not."""
        match event:
            case CatalogChanged():
                self._change_catalog(event.catalog)
            case WorkerJoined():
                self._join(event, now)
            case WorkerLost():
                return self._lose(event.worker, now)
            case WorkerReported():
                return self._report(event)
            case WorkerInterrupted():
                return self._interrupt(event, now)
            case LaunchFailed():
                self.machines.failed(event.worker_type, event.reason, now, event.coming)
            case ReplicaReady():
                return self._ready(event, now)
            case ReplicaFailed() | ReplicaDied() | ReplicaDrained() | ReplicaStopped():
                return self._change(event, now)
            case TrafficReported() | LoadRequested() | PlanMade():
                pass  # not about what is running
        return None

    def _change_catalog(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.catalog_changes += 1
        self.targets = catalog.targets()
        self._needs.clear()
        self._roster.forget_published()
        self.blocks.catalog_changed()
        for replica in self.replicas.values():
            if replica.needs is None and replica.variant in catalog.offers:
                worker = self.workers[replica.worker]
                replica.needs = self.needs(replica.variant, worker.worker_type)
                self._touch(worker)

    def _join(self, event: WorkerJoined, now: float) -> None:
        self._forget_workers()
        known = self.workers.get(event.worker)
        if known is None:
            self.machines.joined(event.worker_type, now)
            self.workers[event.worker] = Worker(
                name=event.worker,
                worker_type=event.worker_type,
                resources=dict(event.resources),
                memory_bytes=event.memory_bytes,
                joined_at=now,
            )
        else:
            known.resources, known.memory_bytes = dict(event.resources), event.memory_bytes
            self._touch(known)

    def _report(self, event: WorkerReported) -> str | None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return f"report of unknown worker {event.worker!r}"
        was_busy = worker.busy
        worker.cpu_share, worker.memory_share = event.cpu_share, event.memory_share
        if worker.busy != was_busy:
            self._touch(worker)
        return None

    def _interrupt(self, event: WorkerInterrupted, now: float) -> str | None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return f"interruption of unknown worker {event.worker!r}"
        self._leave(worker)
        worker.leave_by = min(worker.leave_by, now + event.within_s)
        return None

    def _leave(self, worker: Worker) -> None:
        worker.leaving = True
        self._leaving[worker.name] = worker
        if worker.worker_type in self._rooms:
            self._rooms[worker.worker_type].close(worker.name)

    def _lose(self, name: str, now: float) -> str | None:
        worker = self.workers.get(name)
        if worker is None:
            return f"loss of unknown worker {name!r}"
        for replica in list(worker.replicas):
            self._move(replica, WorkerLost, now)
        del self.workers[name]
        self._leaving.pop(name, None)
        self.blocks.worker_lost(name, now)
        self._forget_workers()
        return None

    def _forget_workers(self) -> None:
        """Another set of workers: what was counted over all of them is to be counted anew."""
        self._cores = None
        self._rooms = {}

    def _touch(self, worker: Worker) -> None:
        """What a worker has free is to be counted anew."""
        worker.changed()
        self._stale.add(worker.name)

    def _ready(self, event: ReplicaReady, now: float) -> str | None:
        known = self.replicas.get(event.replica)
        if known is None:
            return self._adopt(event, now)
        if (known.variant, known.worker) != (event.variant, event.worker):
            booked = f"{known.variant} on {known.worker}"
            return f"{event.replica} is booked as {booked}, not as {event.variant} on {event.worker}"
        was_starting = known.state is State.STARTING
        refusal = self._move(event.replica, ReplicaReady, now)
        if refusal is None:
            self._roster.readdress(known, event.address)
            if was_starting:
                self._starts.learn(known.variant, now - known.requested_at, self._load_s(known.variant))
                self.blocks.ready(known.variant, known.worker)
        return refusal

    def _adopt(self, event: ReplicaReady, now: float) -> str | None:
        if event.replica in self._ended:
            return f"{event.replica} is {self._ended[event.replica]} already"
        if event.worker not in self.workers:
            return f"{event.replica} is on unknown worker {event.worker!r}"
        _, _, number = event.replica.rpartition("#")
        if number.isdecimal():
            self._numbers[event.variant] = max(self._numbers.get(event.variant, 0), int(number))
        self.blocks.ready(event.variant, event.worker)
        self._add(
            Replica(
                id=event.replica,
                variant=event.variant,
                worker=event.worker,
                needs=self.needs(event.variant, self.workers[event.worker].worker_type)
                if event.variant in self.catalog.offers
                else None,
                state=State.READY,
                since=now,
                requested_at=now,
                address=event.address,
            )
        )
        return None

    def _change(self, event: ReplicaFailed | ReplicaDied | ReplicaDrained | ReplicaStopped, now: float) -> str | None:
        replica = self.replicas.get(event.replica)
        if replica is None:
            return f"{type(event).__name__} of {event.replica}, which is {self._ended.get(event.replica, 'unknown')}"
        was, lived_s = replica.state, now - replica.since
        refusal = self._move(event.replica, type(event), now)
        if refusal is not None or was is State.STOPPING:
            return refusal
        attempt = Attempt(replica.variant, replica.worker, replica.requested_at)
        match event:
            case ReplicaDrained():
                replica.drained = True
            case ReplicaFailed():
                self.blocks.failed(attempt, event.reason, event.permanent, now)
            case _ if was is State.STARTING:
                self.blocks.failed(attempt, "its process died", False, now)
            case _ if was is State.READY:
                self.blocks.died(attempt, lived_s, now)
        return None

    # ---- the one place where states change

    def _move(self, name: str, cause: type[Message], now: float) -> str | None:
        replica = self.replicas.get(name)
        if replica is None:
            return f"{cause.__name__} of {name}, which is {self._ended.get(name, 'unknown')}"
        to = TRANSITIONS.get((replica.state, cause))
        if to is None:
            return f"{cause.__name__} of {name}, which is {replica.state}"
        if to is State.LOST and replica.state in (State.STARTING, State.READY):
            self._lost_variants.append(replica.variant)
        if to is not replica.state:
            self._roster.move(replica, to, now)
            self._touch(self.workers[replica.worker])
        if to in ENDS:
            self._remove(replica)
        return None

    def _add(self, replica: Replica) -> None:
        self._roster.add(replica)
        worker = self.workers[replica.worker]
        worker.replicas[replica.id] = replica
        self._touch(worker)

    def _remove(self, replica: Replica) -> None:
        self._roster.remove(replica)
        worker = self.workers[replica.worker]
        del worker.replicas[replica.id]
        self._touch(worker)
        self._ended[replica.id] = replica.state
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
