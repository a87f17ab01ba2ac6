"""How many workers of which type would hold the replicas that found no room.

Rules: replicas go to workers that are empty or booting first, then to new ones of the cheapest type that holds them; a
type that is blocked or at its limit is passed over for the next. First fit, in the order given. A replica that computes
on processors is given cores of its own here, and replicas of one variant a GPU each, because they are wanted for their
capacity.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from infaas_ray.domain import WorkerType
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica
from infaas_ray.policy.placement import Needs, Room, fits


def cores_left(variant: str, have: list[Replica], fleet: Fleet, without_limit: int) -> int:
    """How many more replicas would have cores (or GPUs) of their own beside their siblings; others add no capacity.

    `without_limit` for what computes on other accelerators, of which replicas get their share in any case.
    """
    needs = fleet.needs(variant)
    here = Counter(x.worker for x in have)
    if needs.resource == "GPU":
        workers = [x for x in fleet.workers.values() if not x.leaving]
        able = (x for x in workers if fleet.runs_on(variant, x.worker_type, x.resources))
        return sum(max(0, int(x.resources["GPU"]) - here[x.name]) for x in able)
    if needs.resource != "CPU":
        return without_limit
    threads = needs.threads
    in_all = sum(cores // threads * workers for cores, workers in fleet.cores().items())
    in_all -= sum(x.cores // threads for x in fleet.leaving())
    return in_all - sum(min(n, fleet.workers[x].cores // threads) for x, n in here.items())


def hosts(variant: str, fleet: Fleet, now: float) -> list[WorkerType]:
    """The types of which an empty worker holds a replica of the variant, and which can be had; the cheapest first."""
    blocks = fleet.machines.blocks
    able = [
        known
        for known in fleet.catalog.worker_types.values()
        if blocks.reason(known.name, now) is None and _able(variant, empty(known, fleet), fleet)
    ]
    return sorted(able, key=attrgetter("usd_per_hour", "name"))


def can_come(variant: str, fleet: Fleet, now: float) -> bool:
    """Whether a worker that holds a replica of the variant is booting or may be asked for."""
    counts = fleet.counts()
    return any(fleet.machines.booting(x.name) or counts[x.name] < x.max_workers for x in hosts(variant, fleet, now))


def empty(known: WorkerType, fleet: Fleet) -> Room:
    """A new worker of a type: as one that is there says, else as the type says."""
    seen = next((x for x in fleet.workers.values() if x.worker_type == known.name), None)
    resources, memory = (known.resources, known.memory_bytes) if seen is None else (seen.resources, seen.memory_bytes)
    return Room(
        worker="",
        worker_type=known.name,
        free=resources,
        free_memory_bytes=memory,
        total=resources,
        memory_bytes=memory,
    )


@dataclass(slots=True)
class _Bin:
    """A worker to come, and what is left of it."""

    worker_type: str
    total: Mapping[str, float]
    memory_bytes: int
    free: dict[str, float] = field(default_factory=dict)
    on_gpus: Counter[str] = field(default_factory=Counter)

    def take(self, variant: str, fleet: Fleet) -> bool:
        """Put a replica there; False where it does not fit."""
        room = Room(
            worker="",
            worker_type=self.worker_type,
            free=self.free,
            free_memory_bytes=self.memory_bytes,
            total=self.total,
            memory_bytes=self.memory_bytes,
        )
        needs = _exclusive(variant, room, fleet)
        if needs is None or not fits(needs, room):
            return False
        if needs.resource == "GPU":
            if self.on_gpus[variant] >= int(self.total["GPU"]):
                return False
            self.on_gpus[variant] += 1
        self.free[needs.resource] -= needs.amount
        self.memory_bytes -= needs.memory_bytes
        return True


def workers_for(homeless: Mapping[str, int], fleet: Fleet, now: float) -> dict[str, int]:
    """How many workers of each type to have or await, so that `homeless` replicas by variant find room; see the top."""
    counts = fleet.counts()
    types = fleet.catalog.worker_types
    bins = [
        _Bin(x.worker_type, x.resources, x.memory_bytes, dict(x.resources))
        for x in fleet.workers.values()
        if not x.replicas and not x.leaving
    ]
    bins += [_bin(known, fleet) for known in types.values() for _ in range(fleet.machines.booting(known.name))]
    for variant, count in homeless.items():
        able = hosts(variant, fleet, now)
        for _ in range(count):
            if any(x.take(variant, fleet) for x in bins):
                continue
            chosen = next((x for x in able if counts[x.name] < x.max_workers), None)
            if chosen is None:
                break
            counts[chosen.name] += 1
            bins.append(_bin(chosen, fleet))
            bins[-1].take(variant, fleet)
    return counts


def _bin(known: WorkerType, fleet: Fleet) -> _Bin:
    room = empty(known, fleet)
    return _Bin(known.name, room.total, room.memory_bytes, dict(room.free))


def _able(variant: str, room: Room, fleet: Fleet) -> bool:
    needs = fleet.needs_in(variant, room)
    return needs is not None and fits(needs, room)


def _exclusive(variant: str, room: Room, fleet: Fleet) -> Needs | None:
    """What the replica needs there, with cores of its own where the worker has so many."""
    if not fleet.runs_on(variant, room.worker_type, room.total):
        return None
    needs = fleet.needs(variant, room.worker_type)
    if needs.resource != "CPU":
        return needs
    amount = max(needs.amount, min(float(needs.threads), room.total["CPU"]))
    return Needs(resource="CPU", amount=amount, threads=needs.threads, memory_bytes=needs.memory_bytes)
