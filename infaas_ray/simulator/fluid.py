"""The fluid bound: what serving everything would cost at least, if queries flowed evenly through each window.

Machines are paid by windows of a minute, as providers bill at least so long. Who may pay for less, on machines that
boot in seconds, can get below; nobody gets below `usd_divisible`.

Rule: per window, the cheapest whole machines whose processors and devices suffice for all that arrives in it, each
query on a variant that meets its SLO, in the largest batches whose profiled median keeps the latency bound. Nothing
waits, nothing varies, nothing boots or loads, and memory is free. An integer program per window, of which the proven
bound counts. With machines that can be divided it is a linear program (`usd_divisible`): the price of the bare work,
below which nobody gets, however arrivals cluster within windows. What no variant can serve on an idle replica is left
out and counted.

`usd_tight` takes three more things into account that nobody escapes:
- A model must be in memory before it answers. A query whose bound is shorter than the load of any variant that may
  answer it needs one that was held before it came (`simulator/resident`); it holds memory, and its share of a device.
- Rows wait for their batch: where they come evenly, b rows are together after (b - 1) / rate seconds, even if one
  replica gets all of them, and the batch must end within the bound of the first.
- What is late even alone on its machine, by the variant's own jitter, is at most `LATE_SHARE` of each kind.
Queues, head room and changes of demand within a window are still left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

import msgspec
import numpy as np

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.latency import LatencyCurve
from infaas_ray.policy.placement import RESOURCE_OF, runs_on
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.simulator.fluid_program import Floats, Option, Place, Program
from infaas_ray.simulator.jitter import ProfiledTimes
from infaas_ray.simulator.resident import Residence, gathered
from infaas_ray.simulator.workload import Chunk, QueryKind, Workload

WINDOW_S = 60.0


class FluidBound(msgspec.Struct, frozen=True, kw_only=True):
    """The least that serving all costs, in all and by window; `unserved` are queries that no variant could serve."""

    usd: float
    usd_divisible: float
    usd_tight: float
    queries: int
    unserved: int
    window_s: float
    usd_per_hour: list[float]

    @property
    def usd_per_1k(self) -> float | None:
        """Per 1,000 queries; None where there were none."""
        served = self.queries - self.unserved
        return 1e3 * self.usd / served if served else None


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
    program = Program(types, places, _least(options, places), served)
    rates = [program.least_usd_per_hour(x) for x in demands]
    divisible = [program.least_usd_per_hour(x, whole=False) for x in demands]
    tight = [
        Program(types, places, _evenly(options, workload.kinds, places, x), served, tight=True).least_usd_per_hour(
            x[served], y
        )
        for x, y in zip(rows / lengths[:, None], kept, strict=True)
    ]
    left_out = [x for x in range(len(workload.kinds)) if x not in served]
    sizes = np.array([x.rows for x in workload.kinds])
    return FluidBound(
        usd=float(np.dot(rates, lengths)) / 3600.0,
        usd_divisible=float(np.dot(divisible, lengths)) / 3600.0,
        usd_tight=float(np.dot(np.maximum(rates, tight), lengths)) / 3600.0,
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


def _places(catalog: Catalog) -> list[Place]:
    """Every variant on every worker type that can run it."""
    return [
        Place(offer, at, RESOURCE_OF[offer.variant.hardware], _holds(offer, worker_type))
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


def _options(catalog: Catalog, kinds: Sequence[QueryKind], places: Sequence[Place]) -> list[Option]:
    """What may answer each kind within its SLO."""
    targets = catalog.targets()
    by_name: dict[str, list[int]] = {}
    for at, place in enumerate(places):
        by_name.setdefault(place.offer.name, []).append(at)
    curves = {name: _Curve(catalog.offers[name]) for name in by_name}
    found = []
    for number, kind in enumerate(kinds):
        for name in targets.get(kind.target, ()):
            sizes = curves[name].sizes(kind) if name in curves else ()
            if sizes:
                row_s = min(taken_s / rows for rows, taken_s in sizes)
                units = row_s * _units(catalog.offers[name])
                late = curves[name].late(kind)
                found += [Option(number, at, row_s, units, late, sizes) for at in by_name[name]]
    return found


class _Curve:
    """How long batches of a variant take."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._median_s = LatencyCurve.median(offer.profile, offer.variant.batch_limit)
        self._times = ProfiledTimes(offer, iter(()))

    def sizes(self, kind: QueryKind) -> tuple[tuple[int, float], ...]:
        """Rows and seconds of the batches with a query of this kind that meet its SLO."""
        slo, limit = kind.slo, self._offer.variant.batch_limit
        too_dear = slo.max_usd_per_1k is not None and self._offer.usd_per_1k > slo.max_usd_per_1k
        if too_dear or self._offer.accuracy < (slo.min_accuracy or 0.0):
            return ()
        bound_s = inf if slo.latency_s is None else slo.latency_s
        every = ((x, self._median_s(x)) for x in range(kind.rows, max(kind.rows, limit) + 1))
        return tuple((rows, taken_s) for rows, taken_s in every if taken_s <= bound_s)

    def late(self, kind: QueryKind) -> float:
        """The probability that a query of this kind is late although it is alone."""
        bound_s = kind.slo.latency_s
        if bound_s is None or kind.rows > self._offer.variant.batch_limit:
            return 0.0
        return self._times.exceeds(kind.rows, bound_s)


def _evenly(
    options: Sequence[Option], kinds: Sequence[QueryKind], places: Sequence[Place], rates_qps: Floats
) -> list[Option]:
    """The options where so many rows a second of each kind come evenly: batches are no larger than that fills."""
    together: dict[str, float] = {}
    for number, name in {(x.kind, places[x.place].offer.name) for x in options}:
        together[name] = together.get(name, 0.0) + float(rates_qps[number])
    found = []
    for option in options:
        kind, rate = kinds[option.kind], together[places[option.place].offer.name]
        bound_s = inf if kind.slo.latency_s is None else kind.slo.latency_s
        able = [
            taken_s / rows
            for rows, taken_s in option.sizes
            if rows == kind.rows or bound_s == inf or rows <= kind.rows + rate * (bound_s - taken_s)
        ]
        row_s = min(able)
        found.append(replace(option, row_s=row_s, units=option.units * row_s / option.row_s))
    return found


def _least(options: Sequence[Option], places: Sequence[Place]) -> list[Option]:
    """For each kind, worker type and resource, the option that needs the least of it; others only cost more."""
    best: dict[tuple[int, int, str], Option] = {}
    for option in options:
        place = places[option.place]
        key = (option.kind, place.worker_type, place.resource)
        if key not in best or option.units < best[key].units:
            best[key] = option
    return list(best.values())


def _held_s(kinds: Sequence[QueryKind], places: Sequence[Place], options: Sequence[Option]) -> Floats:
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
