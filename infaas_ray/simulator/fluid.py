"""The fluid bound: what serving everything would cost at least, if queries flowed evenly through each window.

Rule: per window, the cheapest whole machines whose processors and devices suffice for all that arrives in it, each
query on a variant that meets its SLO, in the largest batches whose profiled median keeps the latency bound. Nothing
waits, nothing varies, nothing boots or loads, and memory is free. An integer program per window, of which the proven
bound counts. With machines that can be divided it is a linear program (`usd_divisible`): the price of the bare work,
below which nobody gets, however arrivals cluster within windows. What no variant can serve on an idle replica is left
out and counted.

`usd_resident` is the tighter bound: models must be in memory before they answer, too. A query whose bound is shorter
than the load of any variant that may answer it needs one that was loaded before it came, and was held at least since;
so for the share of a window that these times cover, some replica that may answer the kind holds its memory and its
share of an accelerator (`simulator/resident`). Queues, chance and head room are still left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array, csr_array

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.latency import LatencyCurve
from infaas_ray.policy.placement import RESOURCE_OF, runs_on
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.simulator.resident import Residence, gathered
from infaas_ray.simulator.workload import Chunk, QueryKind, Workload

WINDOW_S = 60.0
_TIME_LIMIT_S = 1.0  # for a window; what is proven by then counts
_GAP = 1e-3
Floats = NDArray[np.float64]


class FluidBound(msgspec.Struct, frozen=True, kw_only=True):
    """The least that serving all costs, in all and by window; `unserved` are queries that no variant could serve."""

    usd: float
    usd_divisible: float
    usd_resident: float
    queries: int
    unserved: int
    window_s: float
    usd_per_hour: list[float]

    @property
    def usd_per_1k(self) -> float | None:
        """Per 1,000 queries; None where there were none."""
        served = self.queries - self.unserved
        return 1e3 * self.usd / served if served else None


@dataclass(frozen=True, slots=True)
class _Place:
    """A variant on a worker type (its index): what a replica holds there, as shares of what a worker has."""

    offer: Offer
    worker_type: int
    resource: str
    holds: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class _Option:
    """One row of a kind takes `row_s` of a replica at a place and keeps `units` seconds of its resource busy."""

    kind: int
    place: int
    row_s: float
    units: float


def fluid_bound(
    catalog: Catalog,
    workload: Workload,
    rng: np.random.Generator,
    *,
    until_s: float,
    from_s: float = 0.0,
    window_s: float = WINDOW_S,
) -> FluidBound:
    """The bound for what arrives from `from_s` to `until_s`; with a run's generator, for what arrived in that run."""
    places = _places(catalog)
    options = _options(catalog, workload.kinds, places)
    held_s = _held_s(workload.kinds, places, options)
    windows = int(np.ceil((until_s - from_s) / window_s - 1e-9))
    residence = Residence(held_s, from_s, window_s, windows)
    rows = _arriving(workload, gathered(workload.chunks(rng), residence, until_s), from_s, window_s, windows)
    lengths = np.minimum(window_s, until_s - from_s - window_s * np.arange(windows))
    served = sorted({x.kind for x in options})
    demands = rows[:, served] / lengths[:, None]
    kept = residence.shares(lengths)[:, served]
    types = list(catalog.worker_types.values())
    program = _Program(types, places, _least(options, places), served)
    resident = _Program(types, places, options, served, resident=True)
    rates = [program.least_usd_per_hour(x) for x in demands]
    divisible = [program.least_usd_per_hour(x, whole=False) for x in demands]
    tighter = [resident.least_usd_per_hour(x, y) for x, y in zip(demands, kept, strict=True)]
    left_out = [x for x in range(len(workload.kinds)) if x not in served]
    sizes = np.array([x.rows for x in workload.kinds])
    return FluidBound(
        usd=float(np.dot(rates, lengths)) / 3600.0,
        usd_divisible=float(np.dot(divisible, lengths)) / 3600.0,
        usd_resident=float(np.dot(np.maximum(rates, tighter), lengths)) / 3600.0,
        queries=int((rows / sizes).sum()),
        unserved=int((rows / sizes)[:, left_out].sum()),
        window_s=window_s,
        usd_per_hour=[float(x) for x in rates],
    )


def _arriving(workload: Workload, chunks: Iterable[Chunk], from_s: float, window_s: float, windows: int) -> Floats:
    """Rows by window and kind."""
    kinds = len(workload.kinds)
    found = np.zeros(windows * kinds)
    for chunk in chunks:
        inside = chunk.times >= from_s
        at = ((chunk.times[inside] - from_s) / window_s).astype(np.int64) * kinds + chunk.kinds[inside]
        found += np.bincount(at, minlength=len(found))
    by_kind: Floats = found.reshape(windows, kinds) * np.array([x.rows for x in workload.kinds])
    return by_kind


# ---- what a row costs ----------------------------------------------------------------------------------------------


def _places(catalog: Catalog) -> list[_Place]:
    """Every variant on every worker type that can run it."""
    return [
        _Place(offer, at, RESOURCE_OF[offer.variant.hardware], _holds(offer, worker_type))
        for offer in catalog.offers.values()
        for at, worker_type in enumerate(catalog.worker_types.values())
        if runs_on(offer, worker_type.name, worker_type.resources)
    ]


def _holds(offer: Offer, worker_type: WorkerType) -> tuple[tuple[str, float], ...]:
    """Of memory, and of accelerators: a Neuron core is one model's, a GPU is shared as far as its memory goes."""
    shares = [("memory", offer.profile.peak_memory_bytes / worker_type.memory_bytes)]
    if offer.variant.hardware is HardwareKind.NEURON:
        shares.append(("neuron_cores", offer.variant.threads / worker_type.resources["neuron_cores"]))
    elif offer.variant.hardware is HardwareKind.GPU and worker_type.device_memory_bytes > 0:
        every = worker_type.device_memory_bytes * worker_type.resources["GPU"]
        shares.append(("device_memory", offer.profile.peak_device_memory_bytes / every))
    return tuple(shares)


def _options(catalog: Catalog, kinds: Sequence[QueryKind], places: Sequence[_Place]) -> list[_Option]:
    """What may answer each kind within its SLO."""
    targets = catalog.targets()
    curves = {x.name: LatencyCurve.median(x.profile, x.variant.batch_limit) for x in catalog.offers.values()}
    by_name: dict[str, list[int]] = {}
    for at, place in enumerate(places):
        by_name.setdefault(place.offer.name, []).append(at)
    found = []
    for number, kind in enumerate(kinds):
        for name in targets.get(kind.target, ()):
            row_s = _row_s(catalog.offers[name], kind, curves[name])
            if row_s < inf:
                units = row_s * _units(catalog.offers[name])
                found += [_Option(number, at, row_s, units) for at in by_name.get(name, ())]
    return found


def _least(options: Sequence[_Option], places: Sequence[_Place]) -> list[_Option]:
    """For each kind, worker type and resource, the option that needs the least of it; others only cost more."""
    best: dict[tuple[int, int, str], _Option] = {}
    for option in options:
        place = places[option.place]
        key = (option.kind, place.worker_type, place.resource)
        if key not in best or option.units < best[key].units:
            best[key] = option
    return list(best.values())


def _held_s(kinds: Sequence[QueryKind], places: Sequence[_Place], options: Sequence[_Option]) -> Floats:
    """By kind, for how long before a query a replica was held at least."""
    found = np.full(len(kinds), inf)
    for option in options:
        bound_s, profile = kinds[option.kind].slo.latency_s, places[option.place].offer.profile
        needed_s = -inf if bound_s is None else profile.load_s + profile.latency_s(1) - bound_s
        found[option.kind] = min(found[option.kind], needed_s)
    held: Floats = np.where(np.isfinite(found), np.maximum(found, 0.0), 0.0)
    return held


def _units(offer: Offer) -> float:
    """How much of its resource a batch keeps busy."""
    return 1.0 if offer.variant.hardware is HardwareKind.GPU else float(offer.variant.threads)


def _row_s(offer: Offer, kind: QueryKind, median_s: LatencyCurve) -> float:
    """The least seconds that a row takes in a batch that meets the SLO; infinite where none does."""
    slo = kind.slo
    too_dear = slo.max_usd_per_1k is not None and offer.usd_per_1k > slo.max_usd_per_1k
    if too_dear or offer.accuracy < (slo.min_accuracy or 0.0):
        return inf
    bound_s = inf if slo.latency_s is None else slo.latency_s
    sizes = range(kind.rows, max(kind.rows, offer.variant.batch_limit) + 1)
    return min((median_s(x) / x for x in sizes if median_s(x) <= bound_s), default=inf)


# ---- the program --------------------------------------------------------------------------------------------


class _Program:
    """Columns: machines by type, rows a second by option, and where `resident`, replicas held by place.

    Only the demand, and the share of time in which a kind must be kept, differ from window to window.
    """

    def __init__(
        self,
        types: Sequence[WorkerType],
        places: Sequence[_Place],
        options: Sequence[_Option],
        kinds: Sequence[int],
        *,
        resident: bool = False,
    ) -> None:
        used = sorted({x.place for x in options}) if resident else []
        self._types, self._first_held = len(types), len(types) + len(options)
        self._columns = self._first_held + len(used)
        self._kinds = len(kinds)
        self._costs = np.zeros(self._columns)
        self._costs[: len(types)] = [x.usd_per_hour for x in types]
        self._whole = np.zeros(self._columns)
        self._whole[: len(types)] = 1.0
        row_of = {x: row for row, x in enumerate(kinds)}
        self._flows = self._matrix(
            [(row_of[x.kind], self._types + at, 1.0) for at, x in enumerate(options)], len(kinds)
        )
        rows = _Rows()
        for at, option in enumerate(options):
            place = places[option.place]
            key = (place.worker_type, place.resource)
            rows.add(("computed", *key), self._types + at, option.units)
            rows.once(("computed", *key), place.worker_type, -types[place.worker_type].resources[place.resource])
        column_of = {x: self._first_held + at for at, x in enumerate(used)}
        for at, option in enumerate(options if resident else ()):
            rows.add(("busy", option.place, ""), self._types + at, option.row_s)
            rows.once(("busy", option.place, ""), column_of[option.place], -1.0)
        for number, column in column_of.items():
            place = places[number]
            for name, share in place.holds:
                rows.add(("held", place.worker_type, name), column, share)
                rows.once(("held", place.worker_type, name), place.worker_type, -1.0)
        self._rooms = self._matrix(rows.entries, rows.count)
        self._kept = self._matrix(
            [(row_of[x.kind], column_of[x.place], 1.0) for x in options] if resident else [], len(kinds)
        )

    def _matrix(self, entries: Sequence[tuple[int, int, float]], rows: int) -> csr_array:
        at, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        return coo_array((values, (at, columns)), shape=(rows, self._columns), dtype=float).tocsr()

    def least_usd_per_hour(self, demand_qps: Floats, kept: Floats | None = None, *, whole: bool = True) -> float:
        """For so many rows a second of each kind, on whole machines or on any part of one.

        `kept`: the share of time in which something that may answer a kind is held.
        """
        if not self._kinds or not demand_qps.any():
            return 0.0
        limits = [
            LinearConstraint(self._rooms, ub=0.0),
            LinearConstraint(self._flows, lb=demand_qps, ub=demand_qps),
        ]
        if kept is not None:
            limits.append(LinearConstraint(self._kept, lb=kept))
        found = milp(
            self._costs,
            integrality=self._whole if whole else None,
            constraints=limits,
            options={"time_limit": _TIME_LIMIT_S, "mip_rel_gap": _GAP},
        )
        bound = found.mip_dual_bound if whole else found.fun
        if bound is None:
            raise AssertionError(f"the fluid bound's program failed: {found.message}")
        return float(bound)


class _Rows:
    """Rows of a matrix by name, made as they are needed."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, float]] = []
        self._numbers: dict[tuple[str, int, str], int] = {}
        self._done: set[tuple[tuple[str, int, str], int]] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._numbers)

    def add(self, name: tuple[str, int, str], column: int, value: float) -> None:
        """An entry of the row of that name."""
        self.entries.append((self._numbers.setdefault(name, len(self._numbers)), column, value))

    def once(self, name: tuple[str, int, str], column: int, value: float) -> None:
        """The same, if the row has none in that column yet."""
        if (name, column) not in self._done:
            self._done.add((name, column))
            self.add(name, column, value)
