"""How many machines hold replicas that somebody places by hand: processors for each alone, devices shared by memory.

Rule: a replica on processors has as many cores as threads; replicas share a GPU as far as its memory goes and as they
keep it busy less than all the time together; Neuron cores belong to one. The variants that keep most busy come first;
replicas go to machines that are there, then to new ones of the type on which the rest costs least.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, inf

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.placement import needs_of, runs_on
from infaas_ray.policy.routing import Catalog, Offer

_EPSILON = 1e-9
_BUSY = "busy"  # of a machine's GPUs, beside their memory
_MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Machines by type, and the replicas by variant that they do not hold."""

    machines: Mapping[str, int]
    homeless: Mapping[str, int]

    def usd_per_hour(self, catalog: Catalog) -> float:
        """What they cost; infinite where not all replicas have room."""
        if self.homeless:
            return inf
        return sum(count * catalog.worker_types[name].usd_per_hour for name, count in self.machines.items())


def pack(
    counts: Mapping[str, int],
    busy: Mapping[str, float],
    catalog: Catalog,
    most: Mapping[str, int] | None = None,
    there: Mapping[str, int] | None = None,
) -> Packed:
    """The machines for `counts` replicas by variant, each of which keeps its share of a device `busy`.

    No more than `most` of a type, where it says so, and not more than the type allows; `there` are there anyway.
    """
    types = catalog.worker_types
    limits = {x.name: min(x.max_workers, (most or {}).get(x.name, x.max_workers)) for x in types.values()}
    machines: Counter[str] = Counter()
    bins: list[tuple[str, dict[str, float]]] = []
    for name, count in (there or {}).items():
        bins += [(name, _room(types[name])) for _ in range(count)]
        machines[name] += count
    homeless = {}
    for variant in sorted(counts, key=lambda x: (-counts[x] * busy.get(x, 1.0), x)):
        offer, left = catalog.offers[variant], counts[variant]
        needs = {name: _needs(offer, known, busy.get(variant, 1.0)) for name, known in types.items()}
        for name, room in bins:
            left -= _take(room, needs[name], left)
        while left > 0:
            chosen = _cheapest(left, needs, {x: limits[x] - machines[x] for x in types}, types)
            if chosen is None:
                homeless[variant] = left
                break
            machines[chosen] += 1
            bins.append((chosen, _room(types[chosen])))
            left -= _take(bins[-1][1], needs[chosen], left)
    return Packed(machines={x: count for x, count in machines.items() if count}, homeless=homeless)


def _room(known: WorkerType) -> dict[str, float]:
    return {**known.resources, _BUSY: known.resources.get("GPU", 0.0), _MEMORY: float(known.memory_bytes)}


def _needs(offer: Offer, known: WorkerType, busy: float) -> dict[str, float] | None:
    """What a replica takes of a machine of that type; None where it does not run there."""
    if not runs_on(offer, known.name, known.resources):
        return None
    needs = needs_of(offer, 1.0, known)
    amount = needs.amount
    if offer.variant.hardware is HardwareKind.CPU:
        amount = min(amount, known.resources["CPU"])
    found = {needs.resource: amount, _MEMORY: float(needs.memory_bytes)}
    if offer.variant.hardware is HardwareKind.GPU:
        found[_BUSY] = min(1.0, busy)
    return found


def _fit(room: Mapping[str, float], needs: Mapping[str, float]) -> int:
    return min(floor(room.get(x, 0.0) / amount + _EPSILON) for x, amount in needs.items() if amount > 0)


def _take(room: dict[str, float], needs: Mapping[str, float] | None, count: int) -> int:
    """Put as many as fit into a room; how many."""
    if needs is None or count <= 0:
        return 0
    taken = min(count, _fit(room, needs))
    for name, amount in needs.items():
        room[name] = room.get(name, 0.0) - taken * amount
    return taken


def _cheapest(
    count: int,
    needs: Mapping[str, Mapping[str, float] | None],
    left: Mapping[str, int],
    types: Mapping[str, WorkerType],
) -> str | None:
    """The type on which so many replicas cost least, of those of which there may be one more."""
    prices = {}
    for name, known in types.items():
        need = needs[name]
        each = _fit(_room(known), need) if need is not None else 0
        if each > 0 and left[name] > 0:
            prices[name] = (ceil(count / each) * known.usd_per_hour, known.usd_per_hour, name)
    return min(prices, key=lambda x: prices[x]) if prices else None
