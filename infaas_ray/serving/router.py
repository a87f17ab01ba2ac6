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
from collections.abc import Awaitable, Callable, Mapping
from typing import assert_never

from infaas_ray.domain import SLO, Answer, Architecture, Query
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
from infaas_ray.policy.candidates import Condition
from infaas_ray.policy.demand import Asked, class_counts
from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.routing import ReadyReplica, RoutingTable
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
from infaas_ray.serving.channel import Connection, Reply, connect

OUTCOMES = ("answered", "rejected", "expired", "failed", "cancelled")
_HANG_S = 10.0  # after the bound, a replica that says nothing is taken for hung

RequestLoad = Callable[[str, float | None], None]
Fallback = Callable[[ReadyReplica, Query, float | None], Awaitable[Reply]]


class Router:
    """Selects, dispatches and counts. All methods run on one event loop."""

    def __init__(self, name: str, secret: bytes, request_load: RequestLoad, fallback: Fallback) -> None:
        self.name = name
        self._secret = secret
        self._request_load = request_load
        self._fallback = fallback
        self._lost: set[str] = set()
        self._connections: dict[str, Connection] = {}
        self._opening: dict[str, asyncio.Task[Connection]] = {}
        self._loads: dict[str, ReplicaLoad] = {}
        self._changed = asyncio.Event()
        self._way = Way()
        self._window_started = time.monotonic()
        self._window = {"wanted": Counter[str](), "served": Counter[str](), "refused": Counter[str]()}
        self._asked: Counter[Asked] = Counter()
        self._missed: Counter[Asked] = Counter()
        self.counts: Counter[str] = Counter()
        self.by_variant: Counter[str] = Counter()
        self.on_outcome: Callable[[str, Query, Answer | None], None] = lambda outcome, query, answer: None
        self._index = SelectionIndex(RoutingTable())
        self._adopt(RoutingTable())

    # -- what the controller tells

    def update(self, table: RoutingTable) -> None:
        """Take over a new routing table and let waiting queries look again."""
        self._lost &= {x.id for x in table.replicas}
        self._adopt(table)
        gone = set(self._connections) - {x.id for x in table.replicas}
        for replica in gone:
            self._retire(replica)

    def _adopt(self, table: RoutingTable) -> None:
        self.table = table
        self._table_made = time.monotonic()
        usable = tuple(x for x in table.replicas if x.id not in self._lost)
        self._replicas = {x.id: x for x in usable}
        self._index = SelectionIndex(dataclasses.replace(table, replicas=usable), previous=self._index)
        self.targets = table.catalog.targets()
        for replica in usable:
            self._loads.setdefault(replica.id, ReplicaLoad())
        self._changed.set()
        self._changed = asyncio.Event()

    def _retire(self, replica: str) -> None:
        """Forget a replica that left the table, once its last answer is in."""
        if replica in self._replicas:
            return  # it came back
        load = self._loads.get(replica)
        if load is not None and load.rows_in_flight + load.rows_offline > 0:
            asyncio.get_running_loop().call_later(0.5, self._retire, replica)
            return
        self._loads.pop(replica, None)
        connection = self._connections.pop(replica, None)
        if connection is not None:
            connection.drop()

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
            classes=class_counts(self._asked, self._missed),
            ongoing=ongoing(self._loads),
            slowdowns=slowdowns(self._loads),
        )
        self._asked.clear()
        self._missed.clear()
        self._window_started = now
        if not self._window["served"]:
            self._way.forget()
        for connection in list(self._connections.values()):
            connection.drop_silent()
        for load in self._loads.values():
            forget(load)
        for counter in self._window.values():
            counter.clear()
        return report

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
        specs = {x.name: x for x in self.architecture_of(query.target).inputs}
        if set(query.inputs) != set(specs):
            raise InvalidInput(f"{query.target!r} takes the inputs {sorted(specs)}, not {sorted(query.inputs)}")
        for name, spec in specs.items():
            spec.check(query.inputs[name])
        if any(len(x) != query.rows for x in query.inputs.values()):
            raise InvalidInput("all inputs of a query must have the same first dimension (the batch)")

    async def query(self, query: Query) -> Answer:
        """Answer one query.

        Raises UnknownTarget or InvalidInput before it is admitted; Unsatisfiable, Unavailable, DeadlineExceeded or
        VariantFailed afterwards, each counted.
        """
        self.check(query)
        self.counts["accepted"] += query.bundle
        outcome = "failed"
        answer: Answer | None = None
        try:
            answer = await self._serve(query, time.monotonic())
            outcome = "answered"
            return answer
        except (Unsatisfiable, Unavailable):
            outcome = "rejected"
            raise
        except DeadlineExceeded:
            outcome = "expired"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            if outcome in ("rejected", "expired") or (answer is not None and not answer.slo_met):
                self._missed[query.target, query.slo] += query.rows
            self.counts[outcome] += query.bundle
            self.on_outcome(outcome, query, answer)

    def takes(self, target: str, rows: int, slo: SLO) -> bool:
        """Whether a replica would take such a query now."""
        decision = select(target, rows, slo, self._index, self._loads, overhead_s=self._way.high_s)
        return isinstance(decision, Dispatch)

    def explain(self, target: str, rows: int, slo: SLO) -> tuple[Verdict, ...]:
        """Every candidate for such a query now, and why it would win or lose."""
        age_s = time.monotonic() - self._table_made
        return explain(target, rows, slo, self._index, self._loads, table_age_s=age_s, overhead_s=self._way.high_s)

    # -- one query

    async def _serve(self, query: Query, arrived: float) -> Answer:
        counted = False
        while True:
            waited_s = time.monotonic() - arrived
            if waited_s > patience_s(query.slo):
                raise DeadlineExceeded(f"the latency bound passed after {waited_s * 1e3:.0f} ms without a replica")
            age_s = time.monotonic() - self._table_made
            decision = select(
                query.target,
                query.rows,
                query.slo,
                self._index,
                self._loads,
                waited_s,
                table_age_s=age_s,
                overhead_s=self._way.high_s,
            )
            if not counted:
                self._count_wanted(decision, query)
                counted = True
            match decision:
                case Dispatch():
                    with contextlib.suppress(ReplicaLost):
                        return await self._dispatch(decision, query, arrived)
                case Load():
                    await self._wait_for_load(decision, query, waited_s)
                case Reject():
                    raise self._rejection(decision)
                case _:
                    assert_never(decision)

    def _count_wanted(self, decision: Dispatch | Load | Reject, query: Query) -> None:
        rows = query.rows
        self._asked[query.target, query.slo] += rows
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

    async def _wait_for_load(self, load: Load, query: Query, waited_s: float) -> None:
        left_s = max(0.0, patience_s(query.slo) - waited_s)
        changed = self._changed
        waiting = self._loads.setdefault(load.variant, ReplicaLoad())
        hold(waiting, query.slo, query.rows)
        self._request_load(load.variant, left_s)
        try:
            await asyncio.wait_for(changed.wait(), left_s)
        except TimeoutError:
            if query.slo.latency_s is None:
                raise Unavailable(f"{load.variant} did not load within {MAX_WAIT_S:.0f} s", load.expected_s) from None
        finally:
            hold(waiting, query.slo, -query.rows)

    async def _dispatch(self, to: Dispatch, query: Query, arrived: float) -> Answer:
        load, index = self._loads[to.replica], self._index  # the table may change meanwhile
        hold(load, query.slo, query.rows)
        sent = time.monotonic()
        self._window["served"][to.variant] += query.rows
        try:
            reply = await self._call(to.replica, query, arrived)
        except ReplicaLost:
            self._mark_lost(to.replica)
            raise
        finally:
            hold(load, query.slo, -query.rows)
        self._way.learn(time.monotonic() - sent - reply.fields["queue_s"] - reply.fields["compute_s"])
        return self._answer(to, query, reply, arrived, index)

    async def _call(self, replica: str, query: Query, arrived: float) -> Reply:
        connection = self._connections.get(replica)
        if connection is None or connection.closed:
            entry = self._replicas[replica]
            try:
                connection = await self._open(entry)
            except ReplicaLost:
                return await self._fallback(entry, query, remaining_s(query.slo, time.monotonic() - arrived))
        fields = {
            "rows": query.rows,
            "remaining_s": remaining_s(query.slo, time.monotonic() - arrived),
            "offline": query.slo.offline,
        }
        return await connection.call("infer", fields, query.inputs, patience_s(query.slo) + _HANG_S)

    async def _open(self, entry: ReadyReplica) -> Connection:
        """Connect to a replica; queries that come meanwhile wait for the same attempt."""
        task = self._opening.get(entry.id)
        if task is None:
            task = asyncio.get_running_loop().create_task(connect(entry.address, self._secret))
            self._opening[entry.id] = task
        try:
            connection = await asyncio.shield(task)
        finally:
            if self._opening.get(entry.id) is task and task.done():
                del self._opening[entry.id]
        self._connections[entry.id] = connection
        return connection

    def _mark_lost(self, replica: str) -> None:
        if replica not in self._lost:
            self._lost.add(replica)
            self._adopt(self.table)

    def _answer(self, to: Dispatch, query: Query, reply: Reply, arrived: float, index: SelectionIndex) -> Answer:
        offer = index.offer(to.variant)
        numbers = reply.fields
        compute_s: float = numbers["compute_s"]
        latency_s = time.monotonic() - arrived
        load = self._loads.get(to.replica) or ReplicaLoad()
        learn(load, numbers["queued_rows"], compute_s, index.latency_s(to.variant, numbers["batch_rows"]))
        slo = query.slo
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
            slo_met=not to.degraded and (slo.latency_s is None or latency_s <= slo.latency_s),
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
