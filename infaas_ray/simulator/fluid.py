"""The fluid bound: what serving everything would cost at least, if queries flowed evenly through each window.

Rule: per window, the cheapest whole machines whose processors and devices suffice for all that arrives in it, each
query on a variant that meets its SLO, in the largest batches whose profiled median keeps the latency bound. Nothing
waits, nothing varies, nothing boots or loads, and memory is free. An integer program per window, of which the proven
bound counts. With machines that can be divided it is a linear program (`usd_divisible`): the price of the bare work,
below which nobody gets, however arrivals cluster within windows. What no variant can serve on an idle replica is left
out and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.latency import LatencyCurve
from infaas_ray.policy.placement import RESOURCE_OF, runs_on
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.simulator.workload import QueryKind, Workload

WINDOW_S = 60.0
_TIME_LIMIT_S = 1.0  # for a window; what is proven by then counts
_GAP = 1e-3
Floats = NDArray[np.float64]


class FluidBound(msgspec.Struct, frozen=True, kw_only=True):
    """The least that serving all costs, in all and by window; `unserved` are queries that no variant could serve."""

    usd: float
    usd_divisible: float
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
class _Option:
    """One row a second of a kind on a worker type keeps `units` of one of its resources busy."""

    kind: int
    worker_type: int
    resource: str
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
    rows = _arriving(workload, rng, from_s, until_s, window_s)
    options = _options(catalog, workload.kinds)
    served = sorted({x.kind for x in options})
    lengths = np.minimum(window_s, until_s - from_s - window_s * np.arange(len(rows)))
    sizes = np.array([x.rows for x in workload.kinds])
    prices = [x.usd_per_hour for x in catalog.worker_types.values()]
    program = _Program(options, served, list(catalog.worker_types.values()), np.array(prices))
    demands = [found[served] / length for found, length in zip(rows, lengths, strict=True)]
    rates = [program.least_usd_per_hour(x, whole=True) for x in demands]
    divisible = [program.least_usd_per_hour(x, whole=False) for x in demands]
    left_out = [x for x in range(len(workload.kinds)) if x not in served]
    return FluidBound(
        usd=float(np.dot(rates, lengths)) / 3600.0,
        usd_divisible=float(np.dot(divisible, lengths)) / 3600.0,
        queries=int((rows / sizes).sum()),
        unserved=int((rows / sizes)[:, left_out].sum()),
        window_s=window_s,
        usd_per_hour=[float(x) for x in rates],
    )


def _arriving(workload: Workload, rng: np.random.Generator, from_s: float, until_s: float, window_s: float) -> Floats:
    """Rows by window and kind."""
    windows = int(np.ceil((until_s - from_s) / window_s - 1e-9))
    kinds = len(workload.kinds)
    found = np.zeros(windows * kinds)
    for chunk in workload.chunks(rng):
        inside = (chunk.times >= from_s) & (chunk.times < until_s)
        at = ((chunk.times[inside] - from_s) / window_s).astype(np.int64) * kinds + chunk.kinds[inside]
        found += np.bincount(at, minlength=len(found))
        if len(chunk.times) and chunk.times[-1] >= until_s:
            break
    by_kind: Floats = found.reshape(windows, kinds) * np.array([x.rows for x in workload.kinds])
    return by_kind


# ---- what a row costs ----------------------------------------------------------------------------------------------


def _options(catalog: Catalog, kinds: Sequence[QueryKind]) -> list[_Option]:
    """For each kind, worker type and resource, the variant that needs the least of it; others only cost more."""
    targets = catalog.targets()
    curves = {x.name: LatencyCurve.median(x.profile, x.variant.batch_limit) for x in catalog.offers.values()}
    best: dict[tuple[int, int, str], float] = {}
    for number, kind in enumerate(kinds):
        for name in targets.get(kind.target, ()):
            offer = catalog.offers[name]
            row_s = _row_s(offer, kind, curves[name])
            if row_s == inf:
                continue
            resource = RESOURCE_OF[offer.variant.hardware]
            for at, worker_type in enumerate(catalog.worker_types.values()):
                if runs_on(offer, worker_type.name, worker_type.resources):
                    key = (number, at, resource)
                    best[key] = min(best.get(key, inf), row_s * _units(offer))
    return [_Option(kind, at, resource, units) for (kind, at, resource), units in best.items()]


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
    """Columns: machines by type, then rows a second by option. Only the demand differs from window to window."""

    def __init__(
        self, options: Sequence[_Option], kinds: Sequence[int], types: Sequence[WorkerType], prices: Floats
    ) -> None:
        self._costs = np.concatenate((prices, np.zeros(len(options))))
        self._whole = np.concatenate((np.ones(len(types)), np.zeros(len(options))))
        self._kinds = len(kinds)
        columns = len(types) + len(options)
        place = {x: row for row, x in enumerate(kinds)}
        self._flows = coo_array(
            (
                np.ones(len(options)),
                ([place[x.kind] for x in options], [len(types) + x for x in range(len(options))]),
            ),
            shape=(len(kinds), columns),
        ).tocsr()
        pairs = sorted({(x.worker_type, x.resource) for x in options})
        row_of = {pair: row for row, pair in enumerate(pairs)}
        values = [-types[at].resources[resource] for at, resource in pairs] + [x.units for x in options]
        rows = [*range(len(pairs)), *(row_of[x.worker_type, x.resource] for x in options)]
        at = [*(worker_type for worker_type, _ in pairs), *(len(types) + x for x in range(len(options)))]
        self._rooms = coo_array((values, (rows, at)), shape=(len(pairs), columns)).tocsr()

    def least_usd_per_hour(self, demand_qps: Floats, *, whole: bool) -> float:
        """For so many rows a second of each kind, on whole machines or on any part of one."""
        if not self._kinds or not demand_qps.any():
            return 0.0
        found = milp(
            self._costs,
            integrality=self._whole if whole else None,
            constraints=[
                LinearConstraint(self._rooms, ub=0.0),
                LinearConstraint(self._flows, lb=demand_qps, ub=demand_qps),
            ],
            options={"time_limit": _TIME_LIMIT_S, "mip_rel_gap": _GAP},
        )
        bound = found.mip_dual_bound if whole else found.fun
        if bound is None:
            raise AssertionError(f"the fluid bound's program failed: {found.message}")
        return float(bound)
