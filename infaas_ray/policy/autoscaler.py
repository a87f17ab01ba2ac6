"""The autoscaler: facts in, orders out.

Rule: `step` takes the events since the last turn into the books, in order, then lets the strategy give orders, each
booked before it is returned. The same settings, events and times give the same actions, always: a turn without
events counts too (time passes), so a log of decisions must hold every turn.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import floor, inf
from typing import assert_never

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.messages import Action, Event, LoadRequested, PlanMade, TrafficReported
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.problem import ENOUGH_USD, PlanProblem
from infaas_ray.policy.planner.quotes import looser
from infaas_ray.policy.routing import RoutingTable
from infaas_ray.policy.scaling.individual import Individual
from infaas_ray.policy.scaling.infaas import Infaas
from infaas_ray.policy.scaling.model_switching import ModelSwitching
from infaas_ray.policy.scaling.planned import Planned
from infaas_ray.policy.scaling.proteus import Proteus
from infaas_ray.policy.scaling.queue_length import QueueLength
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.static import Static
from infaas_ray.policy.scaling.strategy import Orders, Situation, Strategy, pinned
from infaas_ray.policy.traffic import Traffic

__all__ = ["Autoscaler", "ScalingSettings"]

_LAST_MOMENT_S = 10.0  # before a worker is taken away, what is on it drains whether it has a successor or not


class Autoscaler:
    """Decides which replicas run where.

    `fleet` and `traffic` are for reading only. `refused` tells why facts of the last turn were not believed.
    `first_version`: routing tables are numbered from the next on, so that a new controller can continue.
    """

    def __init__(self, settings: ScalingSettings, first_version: int = 0) -> None:
        self.settings = settings
        self.fleet = Fleet(settings.oversubscription, settings.start_overhead_s)
        self.traffic = Traffic(settings.traffic_window_s)
        self.refused: tuple[str, ...] = ()
        self._strategy = _strategy(settings)
        self._version = first_version
        self._published: object = None

    def step(self, events: Sequence[Event], now: float) -> list[Action]:
        """Take in what happened, and return what to do, in order."""
        requests: dict[str, str] = {}
        self.refused = tuple(reason for event in events if (reason := self._take(event, now, requests)))
        self.traffic.forget_silent(now)
        orders = Orders(self.fleet, now)
        self._tidy(orders, now)
        situation = Situation(
            fleet=self.fleet,
            traffic=self.traffic,
            requests=requests,
            lost=self.fleet.take_lost(),
            pins=pinned(self.settings.keep_warm, self.fleet),
            now=now,
            plans=tuple(x for x in events if isinstance(x, PlanMade)),
            reports=tuple(x for x in events if isinstance(x, TrafficReported)),
        )
        self._strategy.decide(situation, orders)
        return orders.actions

    def routing_table(self, now: float) -> RoutingTable:
        """What routers should know now. Its version rises only when they should know something else than before.

        The seconds of `loading` count from `now`; their passing alone is nothing new, a delay is.
        """
        table = self.fleet.routing_table(self._version, now)
        due = tuple((name, floor(now + eta + 1e-6)) for name, eta in table.loading.items())
        changes = (self.fleet.catalog_changes, table.start_overhead_s)
        content = (changes, table.replicas, due, tuple(table.blocked.items()), table.broken)
        if content != self._published:
            self._published = content
            self._version += 1
            table = replace(table, version=self._version)
        return table

    @property
    def followed(self) -> int | None:
        """The number of the plan that is followed, 0 before there is one; None where the strategy makes no plans."""
        return self._strategy.followed if isinstance(self._strategy, Planned) else None

    def problems(self, now: float, most_others: int) -> dict[str, PlanProblem]:
        """What a plan would be asked for now, under the name "": and with one bound of the SLOs looser, by that."""
        if not isinstance(self._strategy, Planned):
            return {}
        wanted = list(self._strategy.wanted)
        known = Known(self.fleet.catalog, self.fleet.targets)
        pins = pinned(self.settings.keep_warm, self.fleet)

        def build(asked: Sequence[Wanted], saved_usd: float = ENOUGH_USD) -> PlanProblem:
            return Builder(self.fleet, known, self.settings.planner, pins, now).build(asked, saved_usd)

        others = {name: build(x) for name, x in looser(wanted, most_others).items()}
        return {"": build(wanted, self._strategy.saved_usd), **others}

    def _take(self, event: Event, now: float, requests: dict[str, str]) -> str | None:
        match event:
            case TrafficReported():
                self.traffic.report(event, now)
                return None
            case LoadRequested():
                if event.variant not in self.fleet.catalog.offers:
                    return f"load of unknown variant {event.variant!r}"
                within = "" if event.within_s is None else f" within {event.within_s:.3g} s"
                requests.setdefault(event.variant, f"a query needs it{within}")
                return None
            case _:
                return self.fleet.apply(event, now)

    def _tidy(self, orders: Orders, now: float) -> None:
        """What needs no strategy: end what has drained or left the catalogue; empty and give back leaving workers."""
        offers = self.fleet.catalog.offers
        for replica in self.fleet.unsettled():
            if replica.drained:
                orders.stop(replica.id, "it has answered its last query")
            elif replica.variant not in offers:
                _retire(replica, orders, "its variant left the catalogue")
            elif self.fleet.workers[replica.worker].leaving:
                self._move_off(replica, orders, now)
        for worker in self.fleet.leaving():
            if not worker.replicas:
                orders.release(worker.name, "it is empty and leaves")
        self.fleet.machines.give_up_overdue(self.fleet.catalog.worker_types, now)
        for name, reason in self.fleet.machines.take_failed().items():
            orders.withdraw(f"{name}: {reason}")

    def _move_off(self, replica: Replica, orders: Orders, now: float) -> None:
        """New before old: a replica on a worker that leaves stays while its successor comes, and time allows.

        A successor may wait for a worker that boots. What a provider takes away serves to the last where it has none.
        """
        worker = self.fleet.workers[replica.worker]
        first_seen = replica.leaving_since is None
        if first_seen:
            replica.leaving_since = now
        if replica.state is State.STARTING or now >= worker.leave_by - _LAST_MOMENT_S:
            _retire(replica, orders, "its worker is taken away")
            return
        comes = bool(self.fleet.staying(replica.variant, State.STARTING)) or any(
            self.fleet.machines.booting(x) for x in self.fleet.catalog.worker_types
        )
        alone = worker.leave_by < inf and not self.fleet.staying(replica.variant, State.READY)
        if not (first_seen or comes or alone):
            _retire(replica, orders, "its worker leaves")


def _retire(replica: Replica, orders: Orders, because: str) -> None:
    if replica.state is State.STARTING:
        orders.stop(replica.id, because)
    else:
        orders.drain(replica.id, because)


def _strategy(settings: ScalingSettings) -> Strategy:
    match settings.strategy:
        case "planner":
            return Planned(settings)
        case "individual":
            return Individual(settings)
        case "static":
            return Static(settings)
        case "infaas":
            return Infaas(settings)
        case "queue_length":
            return QueueLength(settings)
        case "proteus":
            return Proteus(settings)
        case "model_switching":
            return ModelSwitching(settings)
        case _:
            assert_never(settings.strategy)
