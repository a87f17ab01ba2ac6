"""A planning problem as the arrays of a linear program, built without a loop over coefficients.

Columns, in this order: workers m by type; replicas n by place (a variant on a worker type); busy replicas g by place
of the variants that have several; rows a second f by option (a variant that may answer a class); refused u by class;
started by place; booted by type; missing by variant that must have replicas, so that there is always a plan.
Rows, all but the first of the form "at most":

    served      sum f + u = demand                              by class
    room        sum f / rate <= sum n                           by variant
    busy        sum f * busy_s <= sum g, g <= n                 by variant and place, where it has several
    held        sum n * holds <= resources * m                  by type and resource
    whole       sum n * f(holds / resources) <= m               the same, as replicas are not divisible
    worked      sum g * works <= utilization * resources * m    by type and resource
    counts      least <= sum n + missing, sum n <= most         by variant that has a limit
    changes     n - started <= now, m - booted <= now           by place and type with a price of change

Where a variant has one place, its g is sum f * busy_s. A variant that all its classes together fill less than one
replica of needs a whole one nevertheless: its row of room has that share instead of 1 before n, and `Model.cuts` says
the same of each class by itself (f <= demand * sum n). Such rows cut off fractions of replicas and no plan; there are
many, so `relaxed` adds only those that are needed.

The objective is US dollars per hour. A replica costs `TIE_USD_PER_HOUR` more, so that of plans that cost the same the
one with fewer replicas wins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack

from infaas_ray.policy.planner.problem import NO_LIMIT, PlanPlace, PlanProblem

TIE_USD_PER_HOUR = 2e-6
_MISSING_USD_PER_HOUR = 1e4  # a replica that must be there and cannot
USD_PER_1K_IN_HOUR = 3.6  # dollars per 1,000 rows, times rows per second, in dollars per hour

_PARTS = (1, 2, 3)  # in which workers are divided to see what does not fit together

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
_Entries = tuple[Ints, Ints, Floats]  # rows, columns, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where the columns of each kind are."""

    workers: slice
    replicas: slice
    busy: slice
    flows: slice
    refused: slice
    started: slice
    booted: slice
    missing: slice

    @property
    def count(self) -> int:
        """How many there are in all."""
        return int(self.missing.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The arrays of a problem, without the variants that were left out.

    `place_variant`, `place_type` and `now` go by place, `option_*` by option; `cuts` are rows of "at most 0".
    No best plan has more replicas than `tie_usd_per_hour` pays for.
    """

    columns: Columns
    place_variant: Ints
    place_type: Ints
    option_class: Ints
    option_variant: Ints
    cost: Floats
    lower: Floats
    upper: Floats
    equal: csr_array
    demand: Floats
    at_most: csr_array
    limit: Floats
    cuts: csr_array
    tie_usd_per_hour: float

    @property
    def counted(self) -> slice:
        """The columns that are whole numbers in a plan."""
        return slice(0, self.columns.replicas.stop)


def build(problem: PlanProblem, kept: NDArray[np.bool_]) -> Model:
    """The model of a problem with the variants that `kept` says, by their index."""
    kept_list = kept.tolist()
    places = [(v, x) for v, variant in enumerate(problem.variants) if kept_list[v] for x in variant.places]
    options = [(c, x) for c, asked in enumerate(problem.classes) for x in asked.options if kept_list[x.variant]]
    place_variant = np.array([v for v, _ in places], dtype=np.intp)
    several = np.flatnonzero(np.bincount(place_variant, minlength=len(problem.variants))[place_variant] > 1)
    musts = sum(x.least > 0 for x in problem.variants)
    columns = _columns(len(problem.types), len(places), len(several), len(options), len(problem.classes), musts)
    made = _Rows(
        problem=problem,
        columns=columns,
        places=[x for _, x in places],
        place_variant=place_variant,
        several=several,
        option_class=np.array([c for c, _ in options], dtype=np.intp),
        option_variant=np.array([x.variant for _, x in options], dtype=np.intp),
        rate=np.array([x.rate_qps for _, x in options], dtype=float),
        busy=np.array([x.busy_s for _, x in options], dtype=float),
        demand=np.array([x.demand_qps for x in problem.classes], dtype=float),
    )
    penalty = np.array([x.penalty_usd_per_1k for _, x in options], dtype=float) * USD_PER_1K_IN_HOUR
    at_most, limit = made.at_most()
    return Model(
        columns=columns,
        place_variant=made.place_variant,
        place_type=np.array([x.worker_type for x in made.places], dtype=np.intp),
        option_class=made.option_class,
        option_variant=made.option_variant,
        cost=_cost(problem, columns, made.places, penalty),
        lower=_workers(columns, [x.least for x in problem.types], 0.0),
        upper=_upper(problem, columns, made.places),
        equal=made.served(),
        demand=made.demand,
        at_most=at_most,
        limit=limit,
        cuts=made.cuts(),
        tie_usd_per_hour=made.most_replicas() * TIE_USD_PER_HOUR,
    )


def _columns(types: int, places: int, busy: int, options: int, classes: int, musts: int) -> Columns:
    ends = np.cumsum([types, places, busy, options, classes, places, types, musts]).tolist()
    starts = [0, *ends[:-1]]
    parts = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    return Columns(
        workers=parts[0],
        replicas=parts[1],
        busy=parts[2],
        flows=parts[3],
        refused=parts[4],
        started=parts[5],
        booted=parts[6],
        missing=parts[7],
    )


def _cost(problem: PlanProblem, columns: Columns, places: Sequence[PlanPlace], penalty: Floats) -> Floats:
    cost = np.zeros(columns.count)
    cost[columns.workers] = [x.usd_per_hour + x.risk_usd_per_hour for x in problem.types]
    cost[columns.replicas] = TIE_USD_PER_HOUR
    cost[columns.flows] = penalty
    cost[columns.refused] = [x.refusal_usd_per_1k * USD_PER_1K_IN_HOUR for x in problem.classes]
    cost[columns.started] = [x.start_usd_per_hour for x in places]
    cost[columns.booted] = [x.boot_usd_per_hour for x in problem.types]
    cost[columns.missing] = _MISSING_USD_PER_HOUR
    return cost


def _workers(columns: Columns, limits: Sequence[int], others: float) -> Floats:
    """A limit by column: of workers these."""
    found = np.full(columns.count, others)
    found[columns.workers] = limits
    return found


def _upper(problem: PlanProblem, columns: Columns, places: Sequence[PlanPlace]) -> Floats:
    """A replica that no empty worker has room for can be nowhere, however many workers there are."""
    upper = _workers(columns, [x.most for x in problem.types], np.inf)
    for number, at in enumerate(places):
        have = problem.types[at.worker_type].resources
        if any(amount > have.get(name, 0.0) * (1 + 1e-9) for name, amount in at.holds.items()):
            upper[columns.replicas.start + number] = 0.0
    return upper


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Makes the rows of a model."""

    problem: PlanProblem
    columns: Columns
    places: Sequence[PlanPlace]
    place_variant: Ints
    several: Ints
    option_class: Ints
    option_variant: Ints
    rate: Floats
    busy: Floats
    demand: Floats

    def _range(self, part: slice) -> Ints:
        return np.arange(part.start, part.stop, dtype=np.intp)

    def _matrix(self, count: int, *entries: _Entries) -> csr_array:
        rows, columns, values = (np.concatenate(x) for x in zip(*entries, strict=True))
        return coo_array((values, (rows, columns)), shape=(count, self.columns.count)).tocsr()

    def served(self) -> csr_array:
        flows, refused = self._range(self.columns.flows), self._range(self.columns.refused)
        classes = np.arange(len(refused), dtype=np.intp)
        return self._matrix(
            len(refused),
            (self.option_class, flows, np.ones(len(flows))),
            (classes, refused, np.ones(len(refused))),
        )

    def at_most(self) -> tuple[csr_array, Floats]:
        parts = [self._room(), self._busy(), *self._machines(), *self._counts(), *self._changes()]
        return vstack([x for x, _ in parts], format="csr"), np.concatenate([x for _, x in parts])

    def _room(self) -> tuple[csr_array, Floats]:
        count = len(self.problem.variants)
        flows, replicas = self._range(self.columns.flows), self._range(self.columns.replicas)
        share = self._largest_share()[self.place_variant]
        entries = (self.option_variant, flows, 1.0 / self.rate), (self.place_variant, replicas, -share)
        return self._matrix(count, *entries), np.zeros(count)

    def _largest_share(self) -> Floats:
        """By variant, the share of a replica that all its classes together fill; 1 where that is more than one."""
        filled = np.bincount(
            self.option_variant, self.demand[self.option_class] / self.rate, minlength=len(self.problem.variants)
        )
        return np.minimum(1.0, filled)

    def cuts(self) -> csr_array:
        """For each option of a class that fills less than the row of room allows."""
        share = self.demand[self.option_class] / self.rate
        chosen = np.flatnonzero((share < 0.999 * self._largest_share()[self.option_variant]) & (share > 0))
        of_variant = _by_group(self.place_variant, len(self.problem.variants))
        rows, replicas = _expand(self.option_variant[chosen], of_variant)
        return self._matrix(
            len(chosen),
            (
                np.arange(len(chosen), dtype=np.intp),
                self._range(self.columns.flows)[chosen],
                1.0 / self.demand[self.option_class[chosen]],
            ),
            (rows, replicas + self.columns.replicas.start, -np.ones(len(rows))),
        )

    def _busy(self) -> tuple[csr_array, Floats]:
        variants = self.place_variant[self.several]
        known = np.unique(variants)
        flows = np.flatnonzero(np.isin(self.option_variant, known))
        count, busy = len(known), self._range(self.columns.busy)
        rows = np.arange(count, count + len(busy), dtype=np.intp)
        matrix = self._matrix(
            count + len(busy),
            (np.searchsorted(known, self.option_variant[flows]), self.columns.flows.start + flows, self.busy[flows]),
            (np.searchsorted(known, variants), busy, -np.ones(len(busy))),
            (rows, busy, np.ones(len(busy))),
            (rows, self.columns.replicas.start + self.several, -np.ones(len(busy))),
        )
        return matrix, np.zeros(count + len(busy))

    def _machines(self) -> list[tuple[csr_array, Floats]]:
        """What is held and what is worked, as shares of what one worker of the type has."""
        holds = self._uses([x.holds for x in self.places]).tocoo()
        rows, replicas = holds.row, self.columns.replicas.start + holds.col
        held = [self._matrix(holds.shape[0], (rows, replicas, holds.data), self._have(1.0))]
        held += [
            self._matrix(holds.shape[0], (rows, replicas, _whole(holds.data, parts)), self._have(1.0))
            for parts in _PARTS
        ]
        works = self._uses([x.works for x in self.places])
        several = works[:, self.several].tocoo()
        alone = (works @ self._busy_at_only_place()).tocoo()
        worked = self._matrix(
            works.shape[0],
            (several.row, self.columns.busy.start + several.col, several.data),
            (alone.row, self.columns.flows.start + alone.col, alone.data),
            self._have(self.problem.utilization),
        )
        return [(x, np.zeros(x.shape[0])) for x in (*held, worked)]

    def _busy_at_only_place(self) -> csr_array:
        """Seconds that a row of each option keeps a replica busy, by place, for variants that have one place only."""
        place = np.full(len(self.problem.variants), -1, dtype=np.intp)
        alone = np.setdiff1d(np.arange(len(self.places), dtype=np.intp), self.several)
        place[self.place_variant[alone]] = alone
        at = place[self.option_variant]
        options = np.flatnonzero(at >= 0)
        shape = (len(self.places), len(self.option_variant))
        return coo_array((self.busy[options], (at[options], options)), shape=shape).tocsr()

    def _uses(self, uses: Sequence[Mapping[str, float]]) -> csr_array:
        """The shares of a worker that a replica takes, by type and resource, and by place."""
        names = self._resources
        rows, columns, values = [], [], []
        for place, (used, at) in enumerate(zip(uses, self.places, strict=True)):
            have = self.problem.types[at.worker_type].resources
            for name, amount in used.items():
                if amount > 0:
                    rows.append(at.worker_type * len(names) + names[name])
                    columns.append(place)
                    values.append(amount / have[name] if have.get(name, 0.0) > 0 else 1.0)
        shape = (len(self.problem.types) * len(names), len(self.places))
        return coo_array((np.array(values, dtype=float), (rows, columns)), shape=shape).tocsr()

    def _have(self, share: float) -> _Entries:
        names = self._resources
        found = [
            (number * len(names) + names[name], number)
            for number, plan_type in enumerate(self.problem.types)
            for name, have in plan_type.resources.items()
            if have > 0
        ]
        rows, columns = np.array(found, dtype=np.intp).reshape(-1, 2).T
        return rows, columns, np.full(len(found), -share)

    @property
    def _resources(self) -> Mapping[str, int]:
        """The resources that there are or that are used, numbered."""
        kinds = [x.resources for x in self.problem.types] + [x.holds for x in self.places]
        kinds += [x.works for x in self.places]
        return {name: number for number, name in enumerate(sorted({name for kind in kinds for name in kind}))}

    def _counts(self) -> Iterable[tuple[csr_array, Floats]]:
        """Least and most replicas by variant, where there is such a limit."""
        least = np.array([x.least for x in self.problem.variants], dtype=float)
        most = np.array([x.most for x in self.problem.variants], dtype=float)
        for limit, sign, chosen in ((-least, -1.0, least > 0), (most, 1.0, most < NO_LIMIT)):
            here = np.flatnonzero(chosen[self.place_variant])
            rows = (np.cumsum(chosen) - 1)[self.place_variant[here]]
            entries = [(rows, self.columns.replicas.start + here, np.full(len(here), sign))]
            if sign < 0:
                missing = self._range(self.columns.missing)
                entries.append((np.arange(len(missing), dtype=np.intp), missing, np.full(len(missing), sign)))
            yield self._matrix(int(chosen.sum()), *entries), limit[chosen]

    def most_replicas(self) -> float:
        """More than a plan needs: one at each place, what must be there, and all rows at the slowest option."""
        per_row = np.zeros(len(self.demand))
        np.maximum.at(per_row, self.option_class, 1.0 / self.rate)
        return len(self.places) + sum(x.least for x in self.problem.variants) + float(per_row @ self.demand)

    def _changes(self) -> Iterable[tuple[csr_array, Floats]]:
        """What is new, where that has a price; other columns of change stay at nothing."""
        places, types = self.places, self.problem.types
        parts = (
            (self.columns.replicas, self.columns.started, [(x.start_usd_per_hour, x.now) for x in places]),
            (self.columns.workers, self.columns.booted, [(x.boot_usd_per_hour, x.now) for x in types]),
        )
        for counted, changed, facts in parts:
            price, now = np.array(facts, dtype=float).reshape(-1, 2).T
            chosen = np.flatnonzero(price > 0)
            rows = np.arange(len(chosen), dtype=np.intp)
            ones = np.ones(len(chosen))
            entries = (rows, counted.start + chosen, ones), (rows, changed.start + chosen, -ones)
            yield self._matrix(len(chosen), *entries), now[chosen]


def _whole(shares: Floats, parts: int) -> Floats:
    """What shares of a worker take at least of it, seen in so many parts, because replicas are not divisible.

    Of any shares that fit into one worker, these add up to 1 at most (a dual feasible function; Fekete and Schepers,
    "New classes of fast lower bounds for bin packing problems", 2001): with one part, more than a half takes all.
    """
    scaled = (parts + 1) * shares
    exact = np.abs(scaled - np.rint(scaled)) < 1e-9
    return np.where(exact, shares, np.floor(scaled) / parts)


def _by_group(groups: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """Members in order of their group, where each group begins, and how many it has."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=count)
    return order, np.cumsum(sizes) - sizes, sizes


def _expand(asked: Ints, members: tuple[Ints, Ints, Ints]) -> tuple[Ints, Ints]:
    """For each asked group all its members: the number of the asking one, and the member."""
    order, begins, sizes = members
    counts = sizes[asked]
    rows = np.repeat(np.arange(len(asked), dtype=np.intp), counts)
    within = np.arange(len(rows), dtype=np.intp) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, order[np.repeat(begins[asked], counts) + within]
