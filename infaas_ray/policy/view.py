"""What one router sees and reports: the table it was told, its own loads at the replicas, what it was asked for.

The live router and the simulated one decide and count by this. A query is counted as wanted with its first decision, as
served wherever it is sent, as missed where it left without an answer that kept its SLO; a report takes the counts since
the last one. Replicas found lost are left out until they are found again or leave the table.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from infaas_ray.domain import SLO
from infaas_ray.policy.candidates import Condition
from infaas_ray.policy.demand import Asked, class_counts
from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.routing import ReadyReplica, RoutingTable
from infaas_ray.policy.selection import Dispatch, Load, Reject, ReplicaLoad, SelectionIndex, Verdict, explain, select
from infaas_ray.policy.underway import Way, forget, ongoing, slowdowns

_SHORTEST_S = 1e-3  # a window of no length would have endless rates

_Key = TypeVar("_Key", bound=Hashable)


class View(Generic[_Key]):
    """The view of the router of that name. Queries are counted by a key, of which `asked_of` tells what it asks for.

    `now` is in seconds of any one clock. `loads` are by replica, and by variant for the rows that wait for its loading.
    """

    def __init__(self, router: str, now: float, asked_of: Callable[[_Key], Asked]) -> None:
        self.router = router
        self.table = RoutingTable()
        self.index = SelectionIndex(self.table)
        self.loads: dict[str, ReplicaLoad] = {}
        self.way = Way()
        self._asked_of = asked_of
        self._lost: set[str] = set()
        self._told_at = now
        self._start_window(now)

    def _start_window(self, now: float) -> None:
        self._window_started = now
        self._wanted: dict[str, int] = {}
        self._served: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._asked: dict[_Key, int] = {}
        self._missed: dict[_Key, int] = {}

    # ---- replicas

    @property
    def replicas(self) -> tuple[ReadyReplica, ...]:
        """Those of the table that are not lost."""
        return self.index.table.replicas

    def update(self, table: RoutingTable, now: float) -> None:
        """Take over a new routing table."""
        self.table, self._told_at = table, now
        self._lost &= {x.id for x in table.replicas}
        self._prepare()

    def lose(self, replica: str) -> bool:
        """Leave a replica out; whether that is news."""
        if replica in self._lost:
            return False
        self._lost.add(replica)
        self._prepare()
        return True

    def lost(self) -> list[ReadyReplica]:
        """The replicas of the table that are left out."""
        return [x for x in self.table.replicas if x.id in self._lost]

    def find(self, replica: str) -> bool:
        """A replica that was lost is there again; whether that is news."""
        if replica not in self._lost:
            return False
        self._lost.remove(replica)
        self._prepare()
        return True

    def _prepare(self) -> None:
        table = self.table
        if self._lost:
            table = dataclasses.replace(table, replicas=tuple(x for x in table.replicas if x.id not in self._lost))
        self.index = SelectionIndex(table, previous=self.index)
        for replica in table.replicas:
            if replica.id not in self.loads:
                self.loads[replica.id] = ReplicaLoad()

    def conditions(self) -> dict[str, str]:
        """The replicas that are overloaded or interfered."""
        states = {x.id: self.index.condition(x, self.loads[x.id]) for x in self.replicas}
        return {name: str(state) for name, state in states.items() if state is not Condition.STEADY}

    # ---- decisions

    def decide(
        self, key: _Key, target: str, rows: int, slo: SLO, now: float, waited_s: float, *, first: bool
    ) -> Dispatch | Load | Reject:
        """Select for a query that has waited so long; `first` counts it. Raises UnknownTarget."""
        decision = select(
            target,
            rows,
            slo,
            self.index,
            self.loads,
            waited_s,
            table_age_s=now - self._told_at,
            overhead_s=self.way.high_s,
        )
        if first:
            self._count(key, rows, decision)
        return decision

    def _count(self, key: _Key, rows: int, decision: Dispatch | Load | Reject) -> None:
        if isinstance(decision, Reject) and decision.permanent:
            return  # no demand: nothing that could be started would answer it
        self._asked[key] = self._asked.get(key, 0) + 1
        wanted = decision.wanted
        if wanted is not None:
            self._wanted[wanted] = self._wanted.get(wanted, 0) + rows
            if isinstance(decision, Reject):
                self._refused[wanted] = self._refused.get(wanted, 0) + rows

    def takes(self, target: str, rows: int, slo: SLO) -> bool:
        """Whether a replica would take such a query now."""
        decision = select(target, rows, slo, self.index, self.loads, overhead_s=self.way.high_s)
        return isinstance(decision, Dispatch)

    def explain(self, target: str, rows: int, slo: SLO, now: float) -> tuple[Verdict, ...]:
        """Every candidate for such a query now, and why it would win or lose."""
        age_s = now - self._told_at
        return explain(target, rows, slo, self.index, self.loads, table_age_s=age_s, overhead_s=self.way.high_s)

    def serve(self, variant: str, rows: int) -> None:
        """Count rows that are sent to a replica of that variant."""
        self._served[variant] = self._served.get(variant, 0) + rows

    def miss(self, key: _Key) -> None:
        """Count a query that left without an answer, or with one that missed its SLO."""
        self._missed[key] = self._missed.get(key, 0) + 1

    # ---- reports

    def report(self, now: float, applications: Mapping[str, Mapping[str, int]]) -> TrafficReported:
        """What happened since the last report; forgets a little of what was learned, and the replicas that have gone.

        `applications` is passed on.
        """
        found = TrafficReported(
            router=self.router,
            window_s=max(_SHORTEST_S, now - self._window_started),
            wanted=self._wanted,
            served=self._served,
            refused=self._refused,
            classes=class_counts(self._by_ask(self._asked), self._by_ask(self._missed)),
            ongoing=ongoing(self.loads),
            slowdowns=slowdowns(self.loads),
            applications=applications,
        )
        if not self._served:
            self.way.forget()
        for load in self.loads.values():
            forget(load)
        self._retire()
        self._start_window(now)
        return found

    def _by_ask(self, queries: Mapping[_Key, int]) -> Counter[Asked]:
        found: Counter[Asked] = Counter()
        for key, count in queries.items():
            found[self._asked_of(key)] += count
        return found

    def _retire(self) -> None:
        """Forget the loads of replicas that left the table, once their last answers are in."""
        here = {x.id for x in self.table.replicas}
        gone = [name for name, x in self.loads.items() if name not in here and not (x.rows_in_flight or x.rows_offline)]
        for name in gone:
            del self.loads[name]
