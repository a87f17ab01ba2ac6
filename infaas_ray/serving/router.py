"""A router: chooses a replica for each query, sends it there, and accounts for it.

What it knows and what it counts is its `policy.view`. A query that enters leaves exactly once, as answered, rejected,
expired, failed or cancelled (its client went away), and is counted so. A replica that is lost takes no query with it:
its queries are selected anew while their bound allows. Free of Ray: the controller and the actors behind the fallback
are reached through the functions given to the constructor.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, assert_never

from infaas_ray.domain import SLO, Answer, Query
from infaas_ray.errors import DeadlineExceeded, InfaasError, ReplicaLost, Unavailable, Unsatisfiable
from infaas_ray.policy import demand
from infaas_ray.policy.applications import Applications
from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.routing import ReadyReplica, RoutingTable
from infaas_ray.policy.selection import Dispatch, Load, Reject, ReplicaLoad, Verdict
from infaas_ray.policy.underway import MAX_WAIT_S, hold, learn, patience_s, remaining_s
from infaas_ray.policy.view import View
from infaas_ray.serving.channel import Connection, Reply
from infaas_ray.serving.connections import Connections
from infaas_ray.serving.journey import Asked, Done, Trip
from infaas_ray.serving.targets import Targets

OUTCOMES = ("answered", "rejected", "expired", "failed", "cancelled")
_HANG_S = 10.0  # after the bound, a replica that says nothing is taken for hung

RequestLoad = Callable[[str, float | None], None]
Fallback = Callable[[ReadyReplica, Query, float | None], Awaitable[Reply]]


def _kind_of(outcome: Answer | Exception) -> str:
    match outcome:
        case Answer():
            return "answered"
        case Unsatisfiable() | Unavailable():
            return "rejected"
        case DeadlineExceeded():
            return "expired"
        case _:
            return "failed"


class Router:
    """Selects, dispatches and counts. All methods run on one event loop."""

    def __init__(self, name: str, secret: bytes, request_load: RequestLoad, fallback: Fallback) -> None:
        self._request_load = request_load
        self._fallback = fallback
        self._probes: set[asyncio.Task[None]] = set()
        self._connections = Connections(secret)
        self._changed = asyncio.Event()
        self.applications = Applications()
        self.counts: Counter[str] = Counter()
        self.by_variant: Counter[str] = Counter()
        self.on_outcome: Callable[[str, Query, Answer | None], None] = lambda outcome, query, answer: None
        self._view: View[demand.Asked] = View(name, time.monotonic(), asked_of=lambda asked: asked)
        self.targets = Targets(self.table.catalog)
        self._look_again()

    @property
    def table(self) -> RoutingTable:
        """The routing table that was last taken over."""
        return self._view.table

    # -- what the controller tells

    def update(self, table: RoutingTable) -> None:
        """Take over a new routing table and let waiting queries look again."""
        self._view.update(table, time.monotonic())
        if table.catalog is not self.targets.catalog:
            self.targets = Targets(table.catalog)
        self._look_again()

    def _look_again(self) -> None:
        self._replicas = {x.id: x for x in self._view.replicas}
        self._changed.set()
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Close the connections to the replicas."""
        await self._connections.close()

    def traffic(self) -> TrafficReported:
        """The traffic since the last call, and start a new window; also the time to look after what is silent."""
        now = time.monotonic()
        report = self._view.report(now, self.applications.take(now))
        for replica in self._connections.names() - self._view.loads.keys():
            self._connections.drop(replica)
        self._connections.drop_silent()
        self._probe_lost()
        return report

    # -- replicas that were lost

    def _probe_lost(self) -> None:
        """Try to connect to those that the controller still knows: a connection can be lost where no replica is."""
        if not self._probes:
            for entry in self._view.lost():
                probe = asyncio.get_running_loop().create_task(self._probe(entry))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)

    async def _probe(self, entry: ReadyReplica) -> None:
        with contextlib.suppress(ReplicaLost):
            await self._connections.open(entry)
            if self._view.find(entry.id):
                self._look_again()

    # -- what users ask

    async def query(self, query: Query) -> Answer:
        """Answer one query.

        Raises UnknownTarget or InvalidInput before it is admitted; Unsatisfiable, Unavailable, DeadlineExceeded or
        VariantFailed afterwards, each counted.
        """
        future: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()

        def done(outcome: Answer | Exception) -> None:
            if not future.done():
                future.set_result(outcome)

        asked = self.submit(query, done)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self.cancel(asked)
            raise
        if isinstance(outcome, Answer):
            return outcome
        raise outcome

    def submit(self, query: Query, done: Done) -> Asked:
        """Admit a query; `done` is called once, now or later, with what `query` returns or raises.

        Raises UnknownTarget or InvalidInput instead of admitting it. Returns what `cancel` takes.
        """
        self.targets.check(query)
        self.counts["accepted"] += query.bundle
        asked = Asked(query, time.monotonic(), done)
        self._select(asked)
        return asked

    def cancel(self, asked: Asked) -> None:
        """Whoever asked has gone; nothing happens where the query has left already."""
        if asked.left:
            return
        asked.left = True
        trip = asked.trip
        if asked.task is not None:
            asked.task.cancel()
        if trip is not None:
            self._return(asked, trip)
            if trip.connection is not None:
                trip.connection.take_back(trip.call)
        self._count_out("cancelled", asked.query, None)

    def _leave(self, asked: Asked, outcome: Answer | Exception) -> None:
        """The query leaves with that outcome, unless it has left."""
        if asked.left:
            return
        asked.left = True
        missed = isinstance(outcome, Unavailable | DeadlineExceeded)
        if missed or (isinstance(outcome, Answer) and not outcome.slo_met):
            self._view.miss((asked.query.target, asked.query.slo, asked.query.rows))
        self._count_out(_kind_of(outcome), asked.query, outcome if isinstance(outcome, Answer) else None)
        asked.done(outcome)

    def _count_out(self, kind: str, query: Query, answer: Answer | None) -> None:
        self.counts[kind] += query.bundle
        self.on_outcome(kind, query, answer)

    def takes(self, target: str, rows: int, slo: SLO) -> bool:
        """Whether a replica would take such a query now."""
        return self._view.takes(target, rows, slo)

    def explain(self, target: str, rows: int, slo: SLO) -> tuple[Verdict, ...]:
        """Every candidate for such a query now, and why it would win or lose."""
        return self._view.explain(target, rows, slo, time.monotonic())

    # -- one query

    def _select(self, asked: Asked) -> None:
        """Decide about a query and set out on what was decided."""
        try:
            decision = self._decide(asked)
            match decision:
                case Dispatch():
                    self._dispatch(decision, asked)
                case Load():
                    self._begin(asked, self._wait_for_load(decision, asked))
                case Reject():
                    self._leave(asked, self._rejection(decision))
                case _:
                    assert_never(decision)
        except Exception as error:
            self._leave(asked, error)

    def _decide(self, asked: Asked) -> Dispatch | Load | Reject:
        query, now = asked.query, time.monotonic()
        waited_s = now - asked.arrived
        if waited_s > patience_s(query.slo):
            raise DeadlineExceeded(f"the latency bound passed after {waited_s * 1e3:.0f} ms without a replica")
        target, rows, slo, first = query.target, query.rows, query.slo, not asked.counted
        asked.counted = True
        return self._view.decide((target, slo, rows), target, rows, slo, now, waited_s, first=first)

    def _begin(self, asked: Asked, job: Coroutine[Any, Any, None]) -> None:
        """Let a query wait for something other than an answer."""
        asked.task = asyncio.get_running_loop().create_task(job)

    def _rejection(self, reject: Reject) -> InfaasError:
        told = reject.tell()
        if reject.permanent:
            return Unsatisfiable(told.message, told.reasons, told.nearest)
        if reject.load is not None:
            self._request_load(reject.load, None)
        return Unavailable(told.message, reject.retry_after_s, told.reasons)

    async def _wait_for_load(self, load: Load, asked: Asked) -> None:
        query = asked.query
        left_s = max(0.0, patience_s(query.slo) - (time.monotonic() - asked.arrived))
        changed = self._changed
        waiting = self._view.loads.setdefault(load.variant, ReplicaLoad())
        hold(waiting, query.slo, query.rows)
        try:
            self._request_load(load.variant, left_s)
            await asyncio.wait_for(changed.wait(), left_s)
        except TimeoutError:
            if query.slo.latency_s is None:
                words = f"{load.variant} did not load within {MAX_WAIT_S:.0f} s"
                self._leave(asked, Unavailable(words, load.expected_s))
        except Exception as error:
            self._leave(asked, error)
        finally:
            hold(waiting, query.slo, -query.rows)
        asked.task = None
        if not asked.left:
            self._select(asked)

    def _dispatch(self, to: Dispatch, asked: Asked) -> None:
        query, view = asked.query, self._view
        load = view.loads[to.replica]
        hold(load, query.slo, query.rows)
        trip = asked.trip = Trip(to, load, view.index, time.monotonic())  # the table may change meanwhile
        view.serve(to.variant, query.rows)
        if query.application:
            self.applications.of(query.application).window[to.variant] += query.rows
        connection = self._connections.ready(to.replica)
        if connection is None:
            self._begin(asked, self._reach(asked, trip, self._replicas[to.replica]))
        else:
            self._send(asked, trip, connection)

    async def _reach(self, asked: Asked, trip: Trip, entry: ReadyReplica) -> None:
        """Dispatch to a replica to which no connection is open, or whose connection is full."""
        try:
            connection = await self._connections.to(entry)
            if connection is not None:
                self._send(asked, trip, connection)
                return
            left_s = remaining_s(asked.query.slo, time.monotonic() - asked.arrived)
            self._arrived(asked, trip, await self._fallback(entry, asked.query, left_s))
        except Exception as error:
            self._arrived(asked, trip, error)

    def _send(self, asked: Asked, trip: Trip, connection: Connection) -> None:
        query, asked.task = asked.query, None
        fields = {
            "rows": query.rows,
            "remaining_s": remaining_s(query.slo, time.monotonic() - asked.arrived),
            "offline": query.slo.offline,
        }
        try:
            trip.call = connection.ask(
                "infer", fields, query.inputs, partial(self._arrived, asked, trip), patience_s(query.slo) + _HANG_S
            )
            trip.connection = connection
        except InfaasError as error:
            self._arrived(asked, trip, error)

    def _return(self, asked: Asked, trip: Trip) -> None:
        """The trip is over."""
        asked.trip = asked.task = None
        hold(trip.load, asked.query.slo, -asked.query.rows)

    def _arrived(self, asked: Asked, trip: Trip, reply: Reply | Exception) -> None:
        """A trip ended with a reply, or an error; a lost replica makes the query be selected anew."""
        if asked.trip is not trip:
            return
        self._return(asked, trip)
        if isinstance(reply, Reply):
            try:
                self._leave(asked, self._answer(trip, asked, reply))
            except Exception as error:  # a reply that cannot be read takes no other query with it
                self._leave(asked, error)
        elif isinstance(reply, ReplicaLost):
            self._mark_lost(trip.to.replica)
            self._select(asked)
        else:
            self._leave(asked, reply)

    def _mark_lost(self, replica: str) -> None:
        if self._view.lose(replica):
            self._look_again()

    def _answer(self, trip: Trip, asked: Asked, reply: Reply) -> Answer:
        to, query, index, numbers = trip.to, asked.query, trip.index, reply.fields
        offer = index.offer(to.variant)
        compute_s: float = numbers["compute_s"]
        now = time.monotonic()
        latency_s = now - asked.arrived
        self._view.way.learn(now - trip.sent - numbers["queue_s"] - compute_s)
        profiled_s = index.latency_s(to.variant, numbers["batch_rows"])
        learn(trip.load, numbers["queued_rows"], compute_s, profiled_s)
        bound_s = query.slo.latency_s
        self.by_variant[to.variant] += 1
        return Answer(
            query_id=query.id,
            outputs=reply.arrays,
            variant=to.variant,
            replica=to.replica,
            accuracy=offer.accuracy,
            usd_per_1k=offer.usd_per_1k,
            queue_s=numbers["queue_s"],
            compute_s=compute_s,
            latency_s=latency_s,
            batch_rows=numbers["batch_rows"],
            slo_met=not to.degraded and (bound_s is None or latency_s <= bound_s),
        )

    def conditions(self) -> dict[str, str]:
        """The replicas that are overloaded or interfered, as this router sees them."""
        return self._view.conditions()

    def status(self) -> Mapping[str, int]:
        """How many queries were accepted, and what became of them."""
        return {name: self.counts[name] for name in ("accepted", *OUTCOMES)}
