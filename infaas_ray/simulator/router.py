"""A simulated router: decides and counts by the same view as the live one, and learns from answers as it does.

Mirrors `serving/router`. A query that arrives leaves exactly once, as answered, rejected or expired. One whose replica
is lost is selected anew while its bound allows; one that waits for a load looks again with every new table.
"""

from collections.abc import Callable
from typing import Protocol

from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.rhythm import SAME_LOAD_S
from infaas_ray.policy.routing import RoutingTable
from infaas_ray.policy.selection import Dispatch, Load, ReplicaLoad
from infaas_ray.policy.underway import hold, learn
from infaas_ray.policy.view import View
from infaas_ray.simulator.engine import Engine
from infaas_ray.simulator.flights import Batch, Flight, Kind


class Account(Protocol):
    """Who counts what becomes of queries."""

    def answered(self, flight: Flight, latency_s: float, queue_s: float, compute_s: float, accuracy: float) -> bool:
        """Count an answer; whether its SLO was met."""
        ...

    def refused(self, flight: Flight) -> None:
        """Count a refusal."""
        ...

    def expired(self, flight: Flight) -> None:
        """Count a query whose bound passed before it ran."""
        ...


class Router:
    """Selects, sends and counts. `send` takes a query to its replica; `request_load` tells the controller."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        account: Account,
        send: Callable[[Flight], None],
        request_load: Callable[[str, float | None], None],
    ) -> None:
        self._engine = engine
        self._account = account
        self._send = send
        self._tell_controller = request_load
        self._waiting: list[Flight] = []
        self._asked_load: dict[str, float] = {}
        self._accuracy: dict[str, float] = {}
        self.view: View[Kind] = View(name, engine.now, asked_of=lambda kind: (kind.target, kind.slo, kind.rows))

    # ---- what the controller tells

    def update(self, table: RoutingTable) -> None:
        """Take over a new routing table and let waiting queries look again."""
        if table.catalog is not self.view.table.catalog:
            self._accuracy = {name: x.accuracy for name, x in table.catalog.offers.items()}
        self.view.update(table, self._engine.now)
        self._let_look_again()

    def _let_look_again(self) -> None:
        if self._waiting:
            self._engine.after(0.0, self._look_again, self._waiting)
            self._waiting = []

    def report(self) -> TrafficReported:
        """The traffic since the last call, and start a new window."""
        return self.view.report(self._engine.now, applications={})

    # ---- one query

    def arrive(self, kind: Kind) -> None:
        """A query comes in."""
        self._route(Flight(kind, self, self._engine.now))

    def _route(self, flight: Flight) -> None:
        now = self._engine.now
        kind = flight.kind
        waited_s = now - flight.arrived_s
        if waited_s > kind.patience_s:
            self._leave(flight, self._account.expired)
            return
        first, flight.counted = not flight.counted, True
        decision = self.view.decide(kind, kind.target, kind.rows, kind.slo, now, waited_s, first=first)
        if isinstance(decision, Dispatch):
            self._dispatch(flight, decision, now)
        elif isinstance(decision, Load):
            self._wait(flight, decision, waited_s)
        else:
            if decision.permanent:
                self._account.refused(flight)
                return
            if decision.load is not None:
                self._request_load(decision.load, None)
            self._leave(flight, self._account.refused)

    def _dispatch(self, flight: Flight, to: Dispatch, now: float) -> None:
        flight.replica, flight.variant, flight.degraded = to.replica, to.variant, to.degraded
        flight.sent_s = now
        load = flight.load = self.view.loads[to.replica]
        rows = flight.kind.rows
        hold(load, flight.kind.slo, rows)
        self.view.serve(to.variant, rows)
        self._send(flight)

    def _leave(self, flight: Flight, count: Callable[[Flight], None]) -> None:
        """It leaves without an answer."""
        self.view.miss(flight.kind)
        count(flight)

    # ---- waiting for a load

    def _wait(self, flight: Flight, load: Load, waited_s: float) -> None:
        waiting = self.view.loads.setdefault(load.variant, ReplicaLoad())
        hold(waiting, flight.kind.slo, flight.kind.rows)
        flight.waits_for = waiting
        self._waiting.append(flight)
        left_s = max(0.0, flight.kind.patience_s - waited_s)
        self._request_load(load.variant, left_s)
        if not flight.limited:
            flight.limited = True
            self._engine.after(left_s, self._give_up, flight)

    def _stop_waiting(self, flight: Flight) -> bool:
        if flight.waits_for is None:
            return False
        hold(flight.waits_for, flight.kind.slo, -flight.kind.rows)
        flight.waits_for = None
        return True

    def _look_again(self, flights: list[Flight]) -> None:
        for flight in flights:
            if self._stop_waiting(flight):
                self._route(flight)

    def _give_up(self, flight: Flight) -> None:
        if self._stop_waiting(flight):
            without_bound = flight.kind.slo.latency_s is None
            self._leave(flight, self._account.refused if without_bound else self._account.expired)

    def _request_load(self, variant: str, within_s: float | None) -> None:
        now = self._engine.now
        if now - self._asked_load.get(variant, -SAME_LOAD_S) >= SAME_LOAD_S:
            self._asked_load[variant] = now
            self._tell_controller(variant, within_s)

    # ---- what comes back

    def answered(self, batch: Batch) -> None:
        """The answers to queries of this router that were computed together."""
        now = self._engine.now
        compute_s, started_s, queued_rows = batch.compute_s, batch.started_s, batch.queued_rows
        profiled_s = self.view.index.latency_s(batch.variant, batch.rows)
        accuracy = self._accuracy[batch.variant]
        for flight in batch.flights:
            kind = flight.kind
            load = flight.load
            assert load is not None
            hold(load, kind.slo, -kind.rows)
            queue_s = started_s - flight.reached_s
            self.view.way.learn(now - flight.sent_s - queue_s - compute_s)
            learn(load, queued_rows, compute_s, profiled_s)
            if not self._account.answered(flight, now - flight.arrived_s, queue_s, compute_s, accuracy):
                self.view.miss(kind)

    def expired(self, flight: Flight) -> None:
        """It expired in the queue of its replica."""
        self._let_go(flight)
        self._leave(flight, self._account.expired)

    def lost(self, flight: Flight) -> None:
        """Its replica is gone, or takes no more: choose anew, without that replica."""
        self._let_go(flight)
        if self.view.lose(flight.replica):
            self._let_look_again()
        self._route(flight)

    def _let_go(self, flight: Flight) -> None:
        assert flight.load is not None
        hold(flight.load, flight.kind.slo, -flight.kind.rows)
        flight.load = None
