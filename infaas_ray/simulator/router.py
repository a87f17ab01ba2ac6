"""A simulated router: the live selection, the live accounting of demand, the live learning from answers.

Mirrors `serving/router`. A query that arrives leaves exactly once, as answered, rejected or expired. One whose replica
is lost is selected anew while its bound allows; one that waits for a load looks again with every new table.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from infaas_ray.policy.demand import Asked, class_counts
from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.rhythm import SAME_LOAD_S
from infaas_ray.policy.routing import RoutingTable
from infaas_ray.policy.selection import Dispatch, Load, Reject, ReplicaLoad, SelectionIndex, select
from infaas_ray.policy.underway import Way, forget, hold, learn, ongoing, slowdowns
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
        kinds: list[Kind],
        account: Account,
        send: Callable[[Flight], None],
        request_load: Callable[[str, float | None], None],
    ) -> None:
        self.name = name
        self._engine = engine
        self._kinds = kinds
        self._account = account
        self._send = send
        self._tell_controller = request_load
        self._lost: set[str] = set()
        self._loads: dict[str, ReplicaLoad] = {}
        self._waiting: list[Flight] = []
        self._asked_load: dict[str, float] = {}
        self._way = Way()
        self._window_started = 0.0
        self._wanted: dict[str, int] = {}
        self._served: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._asked = [0] * len(kinds)
        self._missed = [0] * len(kinds)
        self._accuracy: dict[str, float] = {}
        self._index = SelectionIndex(RoutingTable())
        self._adopt(RoutingTable())

    # ---- what the controller tells

    def update(self, table: RoutingTable) -> None:
        """Take over a new routing table and let waiting queries look again."""
        self._lost &= {x.id for x in table.replicas}
        self._adopt(table)

    def _adopt(self, table: RoutingTable) -> None:
        if table.catalog is not self._index.table.catalog:
            self._accuracy = {name: x.accuracy for name, x in table.catalog.offers.items()}
        self._table = table
        self._table_at = self._engine.now
        usable = table.replicas
        if self._lost:
            usable = tuple(x for x in usable if x.id not in self._lost)
            table = dataclasses.replace(table, replicas=usable)
        self._index = SelectionIndex(table, previous=self._index)
        for replica in usable:
            if replica.id not in self._loads:
                self._loads[replica.id] = ReplicaLoad()
        if self._waiting:
            self._engine.after(0.0, self._look_again, self._waiting)
            self._waiting = []

    def report(self) -> TrafficReported:
        """The traffic since the last call, and start a new window."""
        now = self._engine.now
        found = TrafficReported(
            router=self.name,
            window_s=max(1e-3, now - self._window_started),
            wanted=self._wanted,
            served=self._served,
            refused=self._refused,
            classes=class_counts(self._by_ask(self._asked), self._by_ask(self._missed)),
            ongoing=ongoing(self._loads),
            slowdowns=slowdowns(self._loads),
        )
        if not self._served:
            self._way.forget()
        self._window_started = now
        self._wanted, self._served, self._refused = {}, {}, {}
        self._asked = [0] * len(self._kinds)
        self._missed = [0] * len(self._kinds)
        for load in self._loads.values():
            forget(load)
        self._retire()
        return found

    def _by_ask(self, queries: list[int]) -> Counter[Asked]:
        found: Counter[Asked] = Counter()
        for kind, count in zip(self._kinds, queries, strict=True):
            if count:
                found[kind.target, kind.slo, kind.rows] += count
        return found

    def _retire(self) -> None:
        """Forget the replicas that left the table, once their last answers are in."""
        here = {x.id for x in self._table.replicas}
        gone = [
            name
            for name, load in self._loads.items()
            if name not in here and load.rows_in_flight + load.rows_offline == 0
        ]
        for name in gone:
            del self._loads[name]

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
        decision = select(
            kind.target,
            kind.rows,
            kind.slo,
            self._index,
            self._loads,
            waited_s,
            table_age_s=now - self._table_at,
            overhead_s=self._way.high_s,
        )
        if not flight.counted:
            flight.counted = True
            self._count_wanted(decision, kind)
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

    def _count_wanted(self, decision: Dispatch | Load | Reject, kind: Kind) -> None:
        if isinstance(decision, Reject) and decision.permanent:
            return
        self._asked[kind.number] += 1
        wanted = decision.wanted
        if wanted is not None:
            self._wanted[wanted] = self._wanted.get(wanted, 0) + kind.rows
            if isinstance(decision, Reject):
                self._refused[wanted] = self._refused.get(wanted, 0) + kind.rows

    def _dispatch(self, flight: Flight, to: Dispatch, now: float) -> None:
        flight.replica, flight.variant, flight.degraded = to.replica, to.variant, to.degraded
        flight.sent_s = now
        load = flight.load = self._loads[to.replica]
        rows = flight.kind.rows
        hold(load, flight.kind.slo, rows)
        self._served[to.variant] = self._served.get(to.variant, 0) + rows
        self._send(flight)

    def _leave(self, flight: Flight, count: Callable[[Flight], None]) -> None:
        """It leaves without an answer."""
        self._missed[flight.kind.number] += 1
        count(flight)

    # ---- waiting for a load

    def _wait(self, flight: Flight, load: Load, waited_s: float) -> None:
        waiting = self._loads.setdefault(load.variant, ReplicaLoad())
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
        profiled_s = self._index.latency_s(batch.variant, batch.rows)
        accuracy = self._accuracy[batch.variant]
        for flight in batch.flights:
            kind = flight.kind
            load = flight.load
            assert load is not None
            hold(load, kind.slo, -kind.rows)
            queue_s = started_s - flight.reached_s
            self._way.learn(now - flight.sent_s - queue_s - compute_s)
            learn(load, queued_rows, compute_s, profiled_s)
            if not self._account.answered(flight, now - flight.arrived_s, queue_s, compute_s, accuracy):
                self._missed[kind.number] += 1

    def expired(self, flight: Flight) -> None:
        """It expired in the queue of its replica."""
        self._let_go(flight)
        self._leave(flight, self._account.expired)

    def lost(self, flight: Flight) -> None:
        """Its replica is gone, or takes no more: choose anew, without that replica."""
        self._let_go(flight)
        if flight.replica not in self._lost:
            self._lost.add(flight.replica)
            self._adopt(self._table)
        self._route(flight)

    def _let_go(self, flight: Flight) -> None:
        assert flight.load is not None
        hold(flight.load, flight.kind.slo, -flight.kind.rows)
        flight.load = None
