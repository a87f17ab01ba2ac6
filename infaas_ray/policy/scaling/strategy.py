"""What every strategy of scaling gets and gives.

A strategy looks at a `Situation` and gives `Orders`. An order is booked in the fleet at the moment it is given, so
that the next one in the same turn sees its effect; the actions for the controller pile up in `Orders.actions`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import Action, DrainReplica, StartReplica, StopReplica
from infaas_ray.policy.placement import Crowd, place
from infaas_ray.policy.traffic import Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A moment as a strategy sees it.

    `requests`: variants that a query needs loaded, each with the reason in words. `lost`: variants of replicas that
    ended unasked since the last turn. `pins`: how many replicas of which variants are always to be there.
    """

    fleet: Fleet
    traffic: Traffic
    requests: Mapping[str, str]
    lost: Sequence[str]
    pins: Mapping[str, int]
    now: float

    def idle_s(self, variant: str) -> float:
        """Seconds since a query last wanted the variant or was served by it, or since its last replica became ready."""
        newest = max((x.since for x in self.fleet.of(variant, State.READY)), default=self.now)
        seen = self.traffic.last_seen(variant)
        return self.now - (newest if seen is None else max(newest, seen))


class Strategy(Protocol):
    """A scaling algorithm; it may remember things between turns."""

    def decide(self, situation: Situation, orders: "Orders") -> None:
        """Give orders for this moment."""
        ...


class Orders:
    """Gives orders: places and books them, and collects the actions."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self.actions: list[Action] = []
        self._fleet = fleet
        self._now = now

    def start(self, variant: str, because: str) -> str | None:
        """Start a replica of a variant of the catalogue; returns why there is no room, None where it was placed."""
        fleet = self._fleet
        siblings = Counter(x.worker for x in fleet.of(variant, State.STARTING, State.READY))
        rooms = [x.room() for x in fleet.workers.values()]
        placement = place(fleet.needs(variant), rooms, Crowd(siblings=siblings))
        if placement.worker is None:
            return placement.reason
        replica = fleet.request_start(variant, placement.worker, self._now)
        self.actions.append(StartReplica(replica=replica, variant=variant, worker=placement.worker, because=because))
        return None

    def drain(self, replica: str, because: str) -> None:
        """Drain a ready replica; one in another state is left alone."""
        if self._fleet.request_drain(replica, self._now):
            self.actions.append(DrainReplica(replica=replica, because=because))

    def stop(self, replica: str, because: str) -> None:
        """Stop a replica that has drained or not started; one in another state is left alone."""
        if self._fleet.request_stop(replica, self._now):
            self.actions.append(StopReplica(replica=replica, because=because))


def pinned(keep_warm: Mapping[str, int], fleet: Fleet) -> dict[str, int]:
    """How many replicas of which variants are always to be there.

    A use case or an architecture means its cheapest variant that can start at all. Targets that are not registered
    (yet) count for nothing.
    """
    pins: dict[str, int] = {}
    offers = fleet.catalog.offers
    for target, count in keep_warm.items():
        able = [offers[x] for x in fleet.targets.get(target, ()) if not fleet.blocks.permanent(x)]
        if able:
            cheapest = min(able, key=attrgetter("usd_per_1k", "name")).name
            pins[cheapest] = max(pins.get(cheapest, 0), count)
    return pins
