"""Machine-level scaling by the rules of INFaaS: three triggers for more workers, idleness for fewer.

Rules:
- Replicas that found no room get workers that hold them (`packing`), at once.
- Every `period_s` one worker is added where (1) more than `busy_share` of some hardware is used on all workers that
  have it, (2) the variants of some hardware are interfered on all workers that have it, or (3) more than
  `overloaded_share` of the workers have overloaded variants: one with that hardware, the cheapest that can be had. Not
  while one with that hardware is booting: what it will bring is not known yet.
- A worker without a replica for `idle_s` is given back, one at a time, the dearest first; not where a trigger would
  fire without it, and not below the least number of its type.

How much a device is used is estimated from the load of its replicas; processors are measured too.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from math import inf

from infaas_ray.domain import WorkerType
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State, Worker
from infaas_ray.policy.placement import RESOURCE_OF
from infaas_ray.policy.scaling.capacity import busy_share, served_per_replica
from infaas_ray.policy.scaling.packing import can_come, workers_for
from infaas_ray.policy.scaling.settings import MachineSettings
from infaas_ray.policy.scaling.states import States
from infaas_ray.policy.scaling.strategy import Orders, Situation

_RESOURCES = tuple(RESOURCE_OF.values())


class Homeless:
    """Replicas that found no room, remembered for a while, because a variant without room is not tried every turn."""

    def __init__(self, remember_s: float) -> None:
        self._remember_s = remember_s
        self._found: dict[str, tuple[int, float]] = {}

    def add(self, variant: str, count: int, situation: Situation) -> bool:
        """Note that `count` more replicas found no room; whether a worker that holds one may come."""
        if not can_come(variant, situation.fleet, situation.now):
            return False
        self._found[variant] = (count, situation.now + self._remember_s)
        return True

    def housed(self, variant: str) -> None:
        """Forget what is noted of a variant: it found room."""
        self._found.pop(variant, None)

    def now(self, situation: Situation) -> dict[str, int]:
        """How many of which variants."""
        offers = situation.fleet.catalog.offers
        self._found = {x: found for x, found in self._found.items() if situation.now <= found[1] and x in offers}
        return {variant: count for variant, (count, _) in self._found.items()}


class EmptyWorkers:
    """Since when workers have had no replica."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def update(self, situation: Situation) -> None:
        """Look at all workers."""
        workers = situation.fleet.workers.values()
        self._since = {
            x.name: self._since.get(x.name, situation.now) for x in workers if not x.replicas and not x.leaving
        }

    def for_s(self, idle_s: float, situation: Situation) -> list[Worker]:
        """Workers that were empty for so long and may be given back, the dearest first."""
        fleet = situation.fleet
        types, counts = fleet.catalog.worker_types, fleet.counts()
        found: list[Worker] = []
        since = sorted(self._since.items(), key=lambda x: (-_price(fleet.workers[x[0]], types), x[0]))
        for name, empty_since in since:
            worker = fleet.workers[name]
            known = types.get(worker.worker_type)
            if known is None or situation.now - empty_since < idle_s or counts[known.name] <= known.min_workers:
                continue
            counts[known.name] -= 1
            found.append(worker)
        return found


def _price(worker: Worker, types: Mapping[str, WorkerType]) -> float:
    known = types.get(worker.worker_type)
    return known.usd_per_hour if known is not None else 0.0


def at_least(counts: dict[str, int], fleet: Fleet) -> dict[str, int]:
    """The counts, raised to the least number of each type."""
    return {name: max(counts[name], known.min_workers) for name, known in fleet.catalog.worker_types.items()}


class MachineRules:
    """Asks for workers and gives them back, by the rules of this module."""

    def __init__(self, settings: MachineSettings, states: States, remember_s: float) -> None:
        self._settings = settings
        self._states = states
        self.homeless = Homeless(remember_s)
        self._empty = EmptyWorkers()
        self._next = -inf

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Order at most one change of the workers; to be called last in a turn, after `states` were updated."""
        fleet = situation.fleet
        if not fleet.catalog.worker_types:
            return
        self._empty.update(situation)
        counts, homeless = fleet.counts(), self.homeless.now(situation)
        wanted = at_least(workers_for(homeless, fleet, situation.now), fleet)
        reasons = [f"no room for {', '.join(homeless)}"] if homeless else []
        looks = situation.now >= self._next
        if looks:
            self._next = situation.now + self._settings.period_s
            for resource, because in self._triggers(situation, ""):
                if not _booting(resource, wanted, counts, fleet):
                    add_one(resource, wanted, situation)
                    reasons.append(because)
        if any(wanted[name] > counts[name] for name in counts):
            orders.workers(wanted, "; ".join(reasons) or "the least number of workers")
        elif looks and not homeless:
            self._give_back(situation, orders)

    def _give_back(self, situation: Situation, orders: Orders) -> None:
        workers = situation.fleet.workers.values()
        if any(x.leaving and x.leave_by == inf for x in workers):
            return
        for worker in self._empty.for_s(self._settings.idle_s, situation):
            missed = {resource for resource, _ in self._triggers(situation, worker.name)}
            if not any(worker.resources.get(x, 0.0) > 0 for x in missed):
                orders.leave(worker.name, f"empty for {self._settings.idle_s:g} s or more")
                return

    # ---- the three triggers

    def _triggers(self, situation: Situation, without: str) -> Iterator[tuple[str, str]]:
        """The hardware of which more is needed, and why; as if the worker `without` were not there."""
        fleet = situation.fleet
        workers = [x for x in fleet.workers.values() if not x.leaving and x.name != without]
        served = served_per_replica(situation)
        for resource in _RESOURCES:
            having = [x for x in workers if x.resources.get(resource, 0.0) > 0]
            if not having:
                continue
            if all(busy_share(x.name, resource, fleet, served) > self._settings.busy_share for x in having):
                yield resource, f"all workers use more than {self._settings.busy_share:.0%} of their {resource}"
            elif self._interfered_everywhere(resource, having):
                yield resource, f"variants on {resource} are interfered on all workers"
        overloaded = [(x, found) for x in workers if (found := self._overloaded_on(x))]
        if workers and len(overloaded) > self._settings.overloaded_share * len(workers):
            resource = Counter(x for _, found in overloaded for x in found).most_common(1)[0][0]
            yield resource, f"{len(overloaded)} of {len(workers)} workers have overloaded variants"

    def _interfered_everywhere(self, resource: str, having: Collection[Worker]) -> bool:
        hit = {x.worker for x in self._states.interfered.values() if x.needs and x.needs.resource == resource}
        return all(x.name in hit for x in having)

    def _overloaded_on(self, worker: Worker) -> list[str]:
        """The hardware of the overloaded variants on a worker."""
        ready = (x for x in worker.replicas.values() if x.state is State.READY)
        return [x.needs.resource for x in ready if x.needs and x.variant in self._states.overloaded]


def _booting(resource: str, wanted: dict[str, int], counts: dict[str, int], fleet: Fleet) -> bool:
    """Whether a worker with that hardware is on its way, or about to be asked for."""
    return any(
        known.resources.get(resource, 0.0) > 0 and (fleet.machines.booting(name) or wanted[name] > counts[name])
        for name, known in fleet.catalog.worker_types.items()
    )


def add_one(resource: str, wanted: dict[str, int], situation: Situation) -> None:
    """One more of the cheapest type with that hardware that can be had; none where there is none."""
    fleet = situation.fleet
    blocks = fleet.machines.blocks
    able = [
        x
        for x in fleet.catalog.worker_types.values()
        if x.resources.get(resource, 0.0) > 0
        and wanted[x.name] < x.max_workers
        and blocks.reason(x.name, situation.now) is None
    ]
    if able:
        wanted[min(able, key=lambda x: (x.usd_per_hour, x.name)).name] += 1
