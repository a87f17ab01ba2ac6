"""What every strategy of scaling gets and gives.

A strategy looks at a `Situation` and gives `Orders`. An order is booked in the fleet at the moment it is given, so
that the next one in the same turn sees its effect; the actions for the controller pile up in `Orders.actions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import (
    Action,
    DrainReplica,
    PlanMade,
    ReleaseWorker,
    RequestWorkers,
    SolvePlan,
    StartReplica,
    StopReplica,
    TrafficReported,
)
from infaas_ray.policy.placement import Placement, fits
from infaas_ray.policy.planner.problem import PlanProblem
from infaas_ray.policy.traffic import Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A moment as a strategy sees it.

    `requests`: variants that a query needs loaded, each with the reason in words. `lost`: variants of replicas that
    ended unasked since the last turn. `pins`: how many replicas of which variants are always to be there. `plans`
    and `reports` (of routers): those since the last turn.
    """

    fleet: Fleet
    traffic: Traffic
    requests: Mapping[str, str]
    lost: Sequence[str]
    pins: Mapping[str, int]
    now: float
    plans: Sequence[PlanMade] = ()
    reports: Sequence[TrafficReported] = ()

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

    def start(self, variant: str, because: str, worker_type: str | None = None) -> str | None:
        """Start a replica of a variant of the catalogue, on a worker of that type where one is named.

        Returns why there is no room, None where it was placed.
        """
        return self.start_placed(self._fleet.place(variant, worker_type), variant, because)

    def start_placed(self, placement: Placement, variant: str, because: str) -> str | None:
        """Start a replica where it was placed. Returns why it was not."""
        if placement.worker is None:
            return placement.reason
        self._start_on(placement.worker, variant, because)
        return None

    def start_at(self, worker: str, variant: str, because: str) -> str | None:
        """Start a replica on that worker, and return its id; None where it leaves or has no room."""
        known = self._fleet.workers[worker]
        needs = self._fleet.needs_in(variant, known.room())
        if known.leaving or needs is None or not fits(needs, known.room()):
            return None
        return self._start_on(worker, variant, because)

    def _start_on(self, worker: str, variant: str, because: str) -> str:
        replica = self._fleet.request_start(variant, worker, self._now)
        needs = self._fleet.replicas[replica].needs
        amount = needs.amount if needs is not None else 0.0
        self.actions.append(
            StartReplica(replica=replica, variant=variant, worker=worker, amount=amount, because=because)
        )
        return replica

    def drain(self, replica: str, because: str) -> None:
        """Drain a ready replica; one in another state is left alone."""
        if self._fleet.request_drain(replica, self._now):
            self.actions.append(DrainReplica(replica=replica, because=because))

    def stop(self, replica: str, because: str) -> None:
        """Stop a replica that has drained or not started; one in another state is left alone."""
        if self._fleet.request_stop(replica, self._now):
            self.actions.append(StopReplica(replica=replica, because=because))

    def workers(self, counts: Mapping[str, int], because: str) -> None:
        """Let so many workers of each type be there or on their way; types that are not named stay as they are.

        More are asked for; of too many, those not yet there are taken back. Which of those that are there go, `leave`
        says. A count is kept within the type's limits, and a blocked type gets no more.
        """
        fleet = self._fleet
        wanted = fleet.counts()
        for name, count in counts.items():
            known = fleet.catalog.worker_types.get(name)
            if known is not None:
                blocked = fleet.machines.blocks.reason(name, self._now) is not None
                wanted[name] = min(count, wanted[name] if blocked else known.max_workers)
        if fleet.request_workers(wanted, self._now):
            self._request(because)

    def withdraw(self, because: str) -> None:
        """Tell of workers that are no longer to come."""
        self._request(because)

    def _request(self, because: str) -> None:
        """Tell of all that is booked, once a turn for the same."""
        counts = self._fleet.counts()
        if not any(isinstance(x, RequestWorkers) and x.counts == counts for x in self.actions[-1:]):
            self.actions.append(RequestWorkers(counts=counts, because=because))

    def leave(self, worker: str, because: str) -> None:
        """Let a worker be given back as soon as its replicas have moved off."""
        if self._fleet.request_leave(worker):
            self._request(because)

    def release(self, worker: str, because: str) -> None:
        """Give back a worker that leaves and is empty; another is left alone."""
        if self._fleet.request_release(worker):
            self.actions.append(ReleaseWorker(worker=worker, because=because))

    def plan(self, number: int, problem: PlanProblem, because: str) -> None:
        """Have a plan made beside the control loop; it comes back in `Situation.plans`."""
        self.actions.append(SolvePlan(number=number, problem=problem, because=because))


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
