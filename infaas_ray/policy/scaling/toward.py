"""Brings the replicas to given counts, new before old.

Rules: what is missing starts at once where there is room. What is too much drains when all that is wanted of its use
case is ready. Where there is no room, as many of those that are too much drain at once as are missing there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.scaling.strategy import Orders, Situation

Spot = tuple[str, str]  # a variant on a worker type


def follow(desired: Mapping[Spot, int], situation: Situation, orders: Orders, because: str) -> None:
    """Order what is missing or too much of `desired`; what it does not name is not wanted."""
    fleet = situation.fleet
    have: dict[Spot, list[Replica]] = {}
    for replica in fleet.replicas.values():
        worker = fleet.workers[replica.worker]
        if not worker.leaving and replica.state in (State.STARTING, State.READY):
            have.setdefault((replica.variant, worker.worker_type), []).append(replica)
    crowded: Counter[str] = Counter()
    unready: set[str] = set()
    for (variant, kind), count in desired.items():
        if variant not in fleet.catalog.offers:
            continue
        here = have.get((variant, kind), [])
        missing = max(0, count - len(here))
        crowded[kind] += missing - _start(variant, kind, missing, situation, orders, because)
        if missing or any(x.state is State.STARTING for x in here):
            unready.add(_use_case(variant, fleet))
    going = _leaving_by_type(fleet)
    for kind in crowded:
        crowded[kind] -= going[kind]
    surplus = (x for spot, replicas in have.items() for x in _too_many(replicas, desired.get(spot, 0)))
    _drain(surplus, crowded, unready, fleet, orders, because)


def _start(variant: str, kind: str, count: int, situation: Situation, orders: Orders, because: str) -> int:
    """Start so many on workers of a type, as far as there is room; how many. A blocked one counts as started."""
    for started in range(count):
        if situation.fleet.blocks.reason(variant, situation.now) is not None:
            return count
        if orders.start(variant, because, kind) is not None:
            return started
    return count


def _drain(
    surplus: Iterable[Replica], crowded: Counter[str], unready: set[str], fleet: Fleet, orders: Orders, because: str
) -> None:
    for replica in surplus:
        kind = fleet.workers[replica.worker].worker_type
        if replica.variant not in fleet.catalog.offers:
            continue
        if crowded[kind] > 0:
            crowded[kind] -= 1
            orders.drain(replica.id, f"{because}; what is wanted needs its room")
        elif _use_case(replica.variant, fleet) not in unready:
            orders.drain(replica.id, because)


def _too_many(replicas: list[Replica], count: int) -> list[Replica]:
    """The ready ones beyond a count, newest first."""
    return [x for x in reversed(replicas) if x.state is State.READY][: max(0, len(replicas) - count)]


def _leaving_by_type(fleet: Fleet) -> Counter[str]:
    states = (State.DRAINING, State.STOPPING)
    return Counter(fleet.workers[x.worker].worker_type for x in fleet.replicas.values() if x.state in states)


def _use_case(variant: str, fleet: Fleet) -> str:
    catalog = fleet.catalog
    return catalog.architectures[catalog.offers[variant].variant.architecture].use_case.name
