"""What selection looks at: per target, its variants as candidates, cheapest first, with plain numbers.

A `SelectionIndex` is built once per routing table; a shortlist is made when its target is first asked for, so a
table of ten thousand variants costs only what is used. The estimate of when a replica would finish lives here too,
because selection and its explanation must agree on it.
"""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf

import msgspec

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.errors import UnknownTarget, one_of
from infaas_ray.policy.latency import LatencyCurve
from infaas_ray.policy.routing import Offer, ReadyReplica, RoutingTable

MAX_QUEUE_S = 30.0  # a replica with more work ahead is refused, even to queries without a latency bound


@dataclass(slots=True)
class ReplicaLoad:
    """What a router knows of one replica; the router changes it.

    `rows_in_flight`: online rows that this router sent there and that are not answered; `rows_offline`: the same of
    offline rows, which online ones overtake; `rows_elsewhere`: what other routers have there, as far as reported.
    `slowdown`: measured over profiled latency, smoothed. An entry under the name of a *variant* counts the rows that
    wait until it is loaded.
    """

    rows_in_flight: int = 0
    slowdown: float = 1.0
    rows_elsewhere: int = 0
    rows_offline: int = 0

    def ahead(self, offline: bool) -> int:
        """Rows that stand before a new query."""
        online = self.rows_in_flight + self.rows_elsewhere
        return online + self.rows_offline if offline else online


IDLE = ReplicaLoad()

_OVERLOADED_S = 0.8  # of work ahead; INFaaS's prototype calls a worker overloaded from here
_INTERFERED = 1.5  # times slower than profiled; its prototype has 2.5 on CPU and 1.5 on GPU, for means


class Condition(StrEnum):
    """How a ready replica fares."""

    STEADY = "steady"
    OVERLOADED = "overloaded"  # more work ahead than it gets done soon
    INTERFERED = "interfered"  # slower than profiled without being overloaded: neighbours, caches, a throttled machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One variant as selection sees it.

    `rate_qps`: rows a second from a full queue if every batch took its p99 (or as measured, if less). How long batches
    really take is told against their p99 (`ReplicaLoad.slowdown`, below 1 as a rule); a rate of medians beside it would
    promise more than a busy replica does, and a queue that is filled up to a bound would miss it as a whole.
    `start_s`: seconds until a first replica, from the making of the table. No batch takes less than `least_s`.
    """

    name: str
    accuracy: float
    usd_per_1k: float
    batch_limit: int
    rate_qps: float
    latency_s: LatencyCurve
    least_s: float
    order: tuple[float, float, str]  # price, latency, name: the cheapest variant comes first
    replicas: tuple[str, ...]
    start_s: float
    loading: bool
    blocked: str | None
    broken: bool


class Ask(msgspec.Struct, frozen=True):
    """A query as selection sees it, absent bounds filled in.

    `bound_s` is for queue and compute alone: the SLO's bound without `overhead_s`, the time that the way to the replica
    and back takes. `left_s` is what remains of it.
    """

    target: str
    rows: int
    bound_s: float
    left_s: float
    min_accuracy: float
    max_usd: float
    on_miss: OnMiss
    table_age_s: float
    offline: bool
    overhead_s: float


def ask_of(target: str, rows: int, slo: SLO, waited_s: float, table_age_s: float, overhead_s: float = 0.0) -> Ask:
    """The ask of a query that arrived `waited_s` ago; what the way takes is taken from its bound."""
    bound = inf if slo.latency_s is None else slo.latency_s - overhead_s
    least = 0.0 if slo.min_accuracy is None else slo.min_accuracy
    most = inf if slo.max_usd_per_1k is None else slo.max_usd_per_1k
    return Ask(target, rows, bound, bound - waited_s, least, most, slo.on_miss, table_age_s, slo.offline, overhead_s)


def _by_level(levels: Sequence[float], candidates: Sequence[Candidate]) -> tuple[tuple[Candidate, ...], ...]:
    """For each of the ascending levels of accuracy the candidates that reach it, in order; at last none.

    A decision thus begins among candidates that are accurate enough, however many are not. Levels that the same ones
    reach share their list.
    """
    made: list[tuple[Candidate, ...]] = []
    for level in levels:
        able = tuple(x for x in candidates if x.accuracy >= level)
        made.append(made[-1] if made and len(made[-1]) == len(able) else able)
    return (*made, ())


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The candidates of one target, by price: all; those with replicas; those without; ready ones by accuracy.

    `front` are those that no cheaper one beats in every respect, for queries of at most `front_rows` rows: where one
    of all meets an SLO, one of these does, and the cheapest that does is among them. `startable` are neither ready nor
    blocked, the most accurate first. The `..._from` are the same by price, by the level of accuracy that `level` finds.
    `least_start_s` is the least start of what could be loaded; `loading` is what is on its way; `blocked` tells whether
    anything is.
    """

    every: tuple[Candidate, ...]
    ready: tuple[Candidate, ...]
    unready: tuple[Candidate, ...]
    most_accurate: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    front_rows: int
    least_start_s: float
    loading: tuple[Candidate, ...]
    startable: tuple[Candidate, ...]
    blocked: bool
    levels: Sequence[float]
    ready_from: tuple[tuple[Candidate, ...], ...]
    front_from: tuple[tuple[Candidate, ...], ...]
    startable_from: tuple[tuple[Candidate, ...], ...]

    def level(self, accuracy: float) -> int:
        """Where in each of the `..._from` those stand that are accurate enough."""
        return bisect_left(self.levels, accuracy)

    def worth_asking(self, rows: int) -> tuple[Candidate, ...]:
        """The candidates that suffice to find the cheapest one that meets an SLO on an idle replica."""
        return self.front if rows <= self.front_rows else self.every


class SelectionIndex:
    """A routing table, prepared for decisions.

    `previous`, the index it replaces, lends what depends on the catalogue alone where both have the same catalogue
    object.
    """

    def __init__(self, table: RoutingTable, previous: "SelectionIndex | None" = None) -> None:
        self.table = table
        self._targets: Mapping[str, tuple[str, ...]]
        self._curves: dict[str, LatencyCurve]
        self._fronts: dict[str, frozenset[str]]  # by target, of the catalogue alone
        if previous is not None and previous.table.catalog is table.catalog:
            self._targets, self._curves, self._fronts = previous._targets, previous._curves, previous._fronts
        else:
            self._targets, self._curves, self._fronts = table.catalog.targets(), {}, {}
        self._replicas: dict[str, list[str]] = {}
        for replica in table.replicas:
            self._replicas.setdefault(replica.variant, []).append(replica.id)
        self._candidates: dict[str, Candidate] = {}
        self._shortlists: dict[str, Shortlist] = {}

    def shortlist(self, target: str) -> Shortlist:
        """The candidates of `target`. Raises UnknownTarget."""
        known = self._shortlists.get(target)
        return self._shorten(target) if known is None else known

    def offer(self, variant: str) -> Offer:
        """The offer of a variant of this table's catalogue."""
        return self.table.catalog.offers[variant]

    def latency_s(self, variant: str, rows: int) -> float:
        """The profiled p99 of a batch of a variant of this table's catalogue."""
        return self._candidate(variant).latency_s(rows)

    def condition(self, replica: ReadyReplica, load: "ReplicaLoad") -> Condition:
        """How a replica of this table fares with that load."""
        return condition(self._candidate(replica.variant), load)

    def _shorten(self, target: str) -> Shortlist:
        names = self._targets.get(target)
        if names is None:
            raise UnknownTarget(one_of("target", target, tuple(self._targets)))
        every = tuple(sorted((self._candidate(name) for name in names), key=lambda x: x.order))
        ready = tuple(x for x in every if x.replicas)
        unready = tuple(x for x in every if not x.replicas)
        startable = [x for x in unready if x.blocked is None]
        levels = array("d", sorted({x.accuracy for x in every}))  # numbers side by side, where a list has pointers
        ready_from = _by_level(levels, ready)
        names_in_front = self._front(target, every)
        front = tuple(x for x in every if x.name in names_in_front)
        made = Shortlist(
            every=every,
            ready=ready,
            unready=unready,
            most_accurate=tuple(sorted(ready, key=lambda x: -x.accuracy)),
            front=front,
            front_rows=min((x.batch_limit for x in every), default=0),
            least_start_s=min((x.start_s for x in startable), default=inf),
            loading=tuple(x for x in startable if x.loading),
            startable=tuple(sorted(startable, key=lambda x: -x.accuracy)),
            blocked=any(x.blocked is not None for x in every),
            levels=levels,
            ready_from=ready_from,
            front_from=ready_from if front == ready else _by_level(levels, front),
            startable_from=_by_level(levels, startable),
        )
        self._shortlists[target] = made
        return made

    def _front(self, target: str, every: tuple[Candidate, ...]) -> frozenset[str]:
        known = self._fronts.get(target)
        if known is None:
            known = self._fronts[target] = frozenset(x.name for x in _undominated(every))
        return known

    def _candidate(self, name: str) -> Candidate:
        known = self._candidates.get(name)
        if known is None:
            known = self._candidates[name] = self._prepare(name, self.offer(name))
        return known

    def _prepare(self, name: str, offer: Offer) -> Candidate:
        curve = self._curves.get(name)
        if curve is None:
            curve = self._curves[name] = LatencyCurve(offer.profile, offer.variant.batch_limit)
        limit = offer.variant.batch_limit
        sizes = {limit, *(x.batch for x in offer.profile.latencies if x.batch <= limit)}
        eta = self.table.loading.get(name)
        return Candidate(
            name=name,
            accuracy=offer.accuracy,
            usd_per_1k=offer.usd_per_1k,
            batch_limit=limit,
            rate_qps=min(offer.profile.saturation_qps, max(x / curve(x) for x in sizes)),
            latency_s=curve,
            least_s=min(x.p99_s for x in offer.profile.latencies),
            order=(offer.usd_per_1k, curve(1), name),
            replicas=tuple(self._replicas.get(name, ())),
            start_s=offer.profile.load_s + self.table.start_overhead_s if eta is None else eta,
            loading=eta is not None,
            blocked=self.table.blocked.get(name),
            broken=name in self.table.broken and not self._replicas.get(name),
        )


def _undominated(every: tuple[Candidate, ...]) -> list[Candidate]:
    """Those of `every`, which is sorted by price, that no earlier one equals or beats in accuracy and latency."""
    sizes = [1 << n for n in range(min((x.batch_limit for x in every), default=1).bit_length())]
    kept: list[tuple[Candidate, list[float]]] = []
    for candidate in every:
        # Curves are linear between measured batches, which are powers of two where our profiler measured them.
        curve = [candidate.latency_s(rows) for rows in sizes]
        if not any(
            x.accuracy >= candidate.accuracy and all(a <= b for a, b in zip(other, curve, strict=True))
            for x, other in kept
        ):
            kept.append((candidate, curve))
    return [x for x, _ in kept]


# ---- estimates -------------------------------------------------------------------------------------------------


def ahead_s(candidate: Candidate, load: ReplicaLoad, offline: bool) -> float:
    """Seconds of work before a new query at a replica with that load."""
    return load.ahead(offline) / candidate.rate_qps * load.slowdown


def finish_s(candidate: Candidate, rows: int, load: ReplicaLoad, offline: bool = False) -> float:
    """Expected seconds until `rows` rows are answered at a replica with that load; infinite where its queue is full.

    Work ahead at the saturation rate, then the batch that the query will share with what is queued.
    """
    queued = load.rows_in_flight + load.rows_elsewhere
    if offline:
        queued += load.rows_offline
    ahead = queued / candidate.rate_qps * load.slowdown
    if ahead > MAX_QUEUE_S:
        return inf
    batch, limit = queued + rows, candidate.batch_limit
    if batch > limit:
        batch = max(limit, rows)
    return ahead + candidate.latency_s(batch) * load.slowdown


def condition(candidate: Candidate, load: ReplicaLoad) -> Condition:
    """Which of the original's states a replica is in, from what was measured of it.

    Selection needs no name for it: a slow replica's expected finish is long, so it is avoided, and its slowdown is
    forgotten while it idles, so it is tried again. The name is for people.
    """
    if ahead_s(candidate, load, offline=True) > _OVERLOADED_S:
        return Condition.OVERLOADED
    return Condition.INTERFERED if load.slowdown > _INTERFERED else Condition.STEADY


def quickest(
    candidate: Candidate, rows: int, loads: Mapping[str, ReplicaLoad], offline: bool = False
) -> tuple[float, str]:
    """The least `finish_s` among the ready replicas and whose it is; (inf, "") where all queues are full.

    Most of a decision's time is spent here, so the estimate is written out, and a replica that cannot beat another one,
    however little its own batch takes, is passed over.
    """
    best, who = inf, ""
    rate, limit, latency_s, least_s = candidate.rate_qps, candidate.batch_limit, candidate.latency_s, candidate.least_s
    known, alone = latency_s.known, latency_s(rows)
    for replica in candidate.replicas:
        load = loads.get(replica, IDLE)
        queued = load.rows_in_flight + load.rows_elsewhere
        if offline:
            queued += load.rows_offline
        if queued:
            ahead = queued / rate * load.slowdown
            if ahead + least_s * load.slowdown >= best or ahead > MAX_QUEUE_S:
                continue
            batch = queued + rows
            if batch > limit:
                batch = max(limit, rows)
            expected = ahead + (known.get(batch) or latency_s(batch)) * load.slowdown
        else:
            expected = alone * load.slowdown
        if expected < best:
            best, who = expected, replica
    return best, who


def loaded_s(candidate: Candidate, ask: Ask, loads: Mapping[str, ReplicaLoad]) -> float:
    """Expected seconds until the answer if the query waits for the variant to be loaded, behind those that do."""
    return eta_s(candidate, ask) + finish_s(candidate, ask.rows, loads.get(candidate.name, IDLE), ask.offline)


def eta_s(candidate: Candidate, ask: Ask) -> float:
    """Seconds until a first replica of an unloaded variant; a load under way has had the table's age already."""
    return max(0.0, candidate.start_s - ask.table_age_s) if candidate.loading else candidate.start_s
