"""A router: chooses a replica for each query, sends it there, and accounts for it.

It holds a snapshot of the routing table and its own view of each replica's load; nothing else. A query that enters
leaves exactly once, as answered, rejected, expired, failed or cancelled (its client went away), and is counted so.
A replica that is lost takes no query with it: its queries are selected anew while their bound allows. Free of Ray:
the controller and the actors behind the fallback are reached through the functions given to the constructor.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple, Self, assert_never

import numpy as np

from infaas_ray.domain import SLO, Answer, Architecture, Query, TensorSpec
from infaas_ray.errors import (
    DeadlineExceeded,
    InfaasError,
    InvalidInput,
    ReplicaLost,
    Unavailable,
    UnknownTarget,
    Unsatisfiable,
    one_of,
)
from infaas_ray.policy import demand
from infaas_ray.policy.applications import Applications
from infaas_ray.policy.candidates import Condition
from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.routing import Catalog, ReadyReplica, RoutingTable
from infaas_ray.policy.selection import Dispatch, Load, Reject, ReplicaLoad, SelectionIndex, Verdict, explain, select
from infaas_ray.policy.underway import (
    MAX_WAIT_S,
    Way,
    forget,
    hold,
    learn,
    ongoing,
    patience_s,
    remaining_s,
    slowdowns,
)
from infaas_ray.serving.channel import Connection, Reply
from infaas_ray.serving.connections import Connections
from infaas_ray.serving.journey import Asked, Done, Trip

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


class _Tensors(NamedTuple):
    """What a target takes: per input its name, dtype, dimensions, fixed lengths, and the specification in full."""

    inputs: tuple[tuple[str, "np.dtype[Any]", int, tuple[int, ...], TensorSpec], ...]

    @classmethod
    def of(cls, architecture: Architecture) -> Self:
        return cls(tuple((x.name, x.dtype, len(x.shape), x.shape[1:], x) for x in architecture.inputs))


class Router:
    """Selects, dispatches and counts. All methods run on one event loop."""

    def __init__(self, name: str, secret: bytes, request_load: RequestLoad, fallback: Fallback) -> None:
        self.name = name
        self._request_load = request_load
        self._fallback = fallback
        self._lost: set[str] = set()
        self._probes: set[asyncio.Task[None]] = set()
        self._connections = Connections(secret)
        self._loads: dict[str, ReplicaLoad] = {}
        self._changed = asyncio.Event()
        self._way = Way()
        self._window_started = time.monotonic()
        self._window = {"wanted": Counter[str](), "served": Counter[str](), "refused": Counter[str]()}
        self._wished: Counter[demand.Asked] = Counter()
        self._missed: Counter[demand.Asked] = Counter()
        self.applications = Applications()
        self.counts: Counter[str] = Counter()
        self.by_variant: Counter[str] = Counter()
        self.on_outcome: Callable[[str, Query, Answer | None], None] = lambda outcome, query, answer: None
        self._index = SelectionIndex(RoutingTable())
        self._catalog: Catalog | None = None
        self.targets: Mapping[str, tuple[str, ...]] = {}
        self._tensors: dict[str, _Tensors] = {}  # by target
        self._adopt(RoutingTable())

    # -- what the controller tells

    def update(self, table: RoutingTable) -> None:
        """Take over a new routing table and let waiting queries look again."""
        known = {x.id for x in table.replicas}
        self._lost &= known
        self._adopt(table)
        for replica in self._connections.names() - known:
            self._retire(replica)

    def _adopt(self, table: RoutingTable, made: float | None = None) -> None:
        self.table, catalog = table, table.catalog
        self._table_made = time.monotonic() if made is None else made
        usable = tuple(x for x in table.replicas if x.id not in self._lost)
        self._replicas = {x.id: x for x in usable}
        self._index = SelectionIndex(dataclasses.replace(table, replicas=usable), previous=self._index)
        if catalog is not self._catalog:
            self._catalog, self.targets, self._tensors = catalog, catalog.targets(), {}
        for replica in usable:
            self._loads.setdefault(replica.id, ReplicaLoad())
        self._changed.set()
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Close the connections to the replicas."""
        await self._connections.close()

    def _retire(self, replica: str) -> None:
        """Forget a replica that left the table, once its last answer is in."""
        if replica in self._replicas:
            return  # it came back
        load = self._loads.get(replica)
        if load is not None and load.rows_in_flight + load.rows_offline > 0:
            asyncio.get_running_loop().call_later(0.5, self._retire, replica)
            return
        self._loads.pop(replica, None)
        self._connections.drop(replica)

    def traffic(self) -> TrafficReported:
        """The traffic since the last call, and start a new window; also the time to look after what is silent."""
        now = time.monotonic()
        window = {name: dict(counter) for name, counter in self._window.items()}
        report = TrafficReported(
            router=self.name,
            window_s=max(1e-3, now - self._window_started),
            wanted=window["wanted"],
            served=window["served"],
            refused=window["refused"],
            classes=demand.class_counts(self._wished, self._missed),
            ongoing=ongoing(self._loads),
            slowdowns=slowdowns(self._loads),
            applications=self.applications.take(now),
        )
        self._wished.clear()
        self._missed.clear()
        self._window_started = now
        if not self._window["served"]:
            self._way.forget()
        self._connections.drop_silent()
        self._probe_lost()
        for load in self._loads.values():
            forget(load)
        for counter in self._window.values():
            counter.clear()
        return report

    # -- replicas that were lost

    def _probe_lost(self) -> None:
        """Try to connect to those that the controller still knows: a connection can be lost where no replica is."""
        if not self._probes:
            for entry in [x for x in self.table.replicas if x.id in self._lost]:
                probe = asyncio.get_running_loop().create_task(self._probe(entry))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)

    async def _probe(self, entry: ReadyReplica) -> None:
        with contextlib.suppress(ReplicaLost):
            await self._connections.open(entry)
            if entry.id in self._lost:
                self._lost.discard(entry.id)
                self._adopt(self.table, self._table_made)

    # -- what users ask

    def architecture_of(self, target: str) -> Architecture:
        """An architecture behind `target`; all of one use case have the same tensors. Raises UnknownTarget."""
        variants = self.targets.get(target)
        if not variants:
            raise UnknownTarget(one_of("target", target, [x for x in self.targets if "@" not in x]))
        catalog = self.table.catalog
        return catalog.architectures[catalog.offers[variants[0]].variant.architecture]

    def check(self, query: Query) -> None:
        """Raise UnknownTarget or InvalidInput unless the target exists and takes these inputs."""
        known = self._tensors.get(query.target)
        if known is None:
            known = self._tensors[query.target] = _Tensors.of(self.architecture_of(query.target))
        inputs = query.inputs
        for name, dtype, dimensions, lengths, spec in known.inputs:
            array = inputs.get(name)
            if array is None or len(inputs) != len(known.inputs):
                names = sorted(x[0] for x in known.inputs)
                raise InvalidInput(f"{query.target!r} takes the inputs {names}, not {sorted(inputs)}")
            if array.dtype != dtype or array.ndim != dimensions or array.shape[1:] != lengths or 0 in array.shape:
                spec.check(array)  # says what is wrong, or that a free length is fine
            if array.shape[0] != query.rows:
                raise InvalidInput("all inputs of a query must have the same first dimension (the batch)")

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
        self.check(query)
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
            self._missed[asked.query.target, asked.query.slo, asked.query.rows] += 1
        self._count_out(_kind_of(outcome), asked.query, outcome if isinstance(outcome, Answer) else None)
        asked.done(outcome)

    def _count_out(self, kind: str, query: Query, answer: Answer | None) -> None:
        self.counts[kind] += query.bundle
        self.on_outcome(kind, query, answer)

    def takes(self, target: str, rows: int, slo: SLO) -> bool:
        """Whether a replica would take such a query now."""
        decision = select(target, rows, slo, self._index, self._loads, overhead_s=self._way.high_s)
        return isinstance(decision, Dispatch)

    def explain(self, target: str, rows: int, slo: SLO) -> tuple[Verdict, ...]:
        """Every candidate for such a query now, and why it would win or lose."""
        age_s = time.monotonic() - self._table_made
        return explain(target, rows, slo, self._index, self._loads, table_age_s=age_s, overhead_s=self._way.high_s)

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
        decision = select(
            query.target,
            query.rows,
            query.slo,
            self._index,
            self._loads,
            waited_s,
            table_age_s=now - self._table_made,
            overhead_s=self._way.high_s,
        )
        if not asked.counted:
            asked.counted = True
            self._count_wanted(decision, query)
        return decision

    def _begin(self, asked: Asked, job: Coroutine[Any, Any, None]) -> None:
        """Let a query wait for something other than an answer."""
        asked.task = asyncio.get_running_loop().create_task(job)

    def _count_wanted(self, decision: Dispatch | Load | Reject, query: Query) -> None:
        if isinstance(decision, Reject) and decision.permanent:
            return  # no demand: nothing that could be started would answer it
        rows = query.rows
        self._wished[query.target, query.slo, rows] += 1
        if decision.wanted is not None:
            self._window["wanted"][decision.wanted] += rows
            if isinstance(decision, Reject):
                self._window["refused"][decision.wanted] += rows

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
        waiting = self._loads.setdefault(load.variant, ReplicaLoad())
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
        query, load = asked.query, self._loads[to.replica]  # the table may change meanwhile
        hold(load, query.slo, query.rows)
        trip = asked.trip = Trip(to, load, self._index, time.monotonic())
        self._window["served"][to.variant] += query.rows
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
        if replica not in self._lost:
            self._lost.add(replica)
            self._adopt(self.table, self._table_made)

    def _answer(self, trip: Trip, asked: Asked, reply: Reply) -> Answer:
        to, query, index, numbers = trip.to, asked.query, trip.index, reply.fields
        offer = index.offer(to.variant)
        compute_s: float = numbers["compute_s"]
        now = time.monotonic()
        latency_s = now - asked.arrived
        self._way.learn(now - trip.sent - numbers["queue_s"] - compute_s)
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
        found: dict[str, str] = {}
        for replica in self._replicas.values():
            state = self._index.condition(replica, self._loads[replica.id])
            if state is not Condition.STEADY:
                found[replica.id] = str(state)
        return found

    def status(self) -> Mapping[str, int]:
        """How many queries were accepted, and what became of them."""
        return {name: self.counts[name] for name in ("accepted", *OUTCOMES)}
