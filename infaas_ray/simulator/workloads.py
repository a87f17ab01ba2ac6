"""What users ask for: kinds of query, how popular each is, and streams of arrivals of them, alone or together.

Popularity follows Zipf's law: the r-th most popular has a share in proportion to r to the power of minus the exponent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infaas_ray.domain import SLO, HardwareKind
from infaas_ray.errors import InvalidInput
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.simulator.arrivals import CHUNK, Poisson, Process, arrival_times
from infaas_ray.simulator.rates import Floats, Rates, positive
from infaas_ray.simulator.workload import Chunk, QueryKind, Workload


def zipf(count: int, exponent: float = 1.0) -> tuple[float, ...]:
    """The shares of `count` things by falling popularity; they add up to 1. With exponent 0 all are alike."""
    if count < 1 or not 0 <= exponent < inf:
        raise InvalidInput("popularity needs at least one thing and an exponent of 0 or more")
    weights = np.arange(1, count + 1, dtype=float) ** -exponent
    return tuple((weights / weights.sum()).tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Popular:
    """Kinds of query with the share of the arrivals that each has; shares need not add up to 1."""

    kinds: tuple[QueryKind, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.kinds or len(self.kinds) != len(self.shares):
            raise InvalidInput(f"{len(self.kinds)} kinds of query need as many shares, not {len(self.shares)}")
        if not all(0 <= x < inf for x in self.shares) or not 0 < sum(self.shares) < inf:
            raise InvalidInput("shares of kinds must be 0 or more, and one above 0")

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Indices of `count` kinds, drawn by share."""
        bounds = np.cumsum(self.shares)
        found: NDArray[np.int64] = np.searchsorted(bounds, rng.random(count) * bounds[-1], side="right")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Arrivals that follow `rates`, drawn by `process`, of kinds drawn by share."""

    popular: Popular
    rates: Rates
    process: Process = field(default_factory=Poisson)

    @property
    def kinds(self) -> tuple[QueryKind, ...]:
        """See Workload."""
        return self.popular.kinds

    def chunks(self, rng: np.random.Generator) -> Iterator[Chunk]:
        """See Workload."""
        times_rng, kinds_rng = rng.spawn(2)
        for times in arrival_times(self.rates, self.process, times_rng):
            yield Chunk(times, self.popular.draw(kinds_rng, len(times)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Several workloads at once, each with a generator of its own."""

    workloads: tuple[Workload, ...]

    @property
    def kinds(self) -> tuple[QueryKind, ...]:
        """See Workload."""
        return tuple(kind for workload in self.workloads for kind in workload.kinds)

    def chunks(self, rng: np.random.Generator) -> Iterator[Chunk]:
        """See Workload."""
        firsts = np.cumsum([0, *(len(x.kinds) for x in self.workloads)])
        sources = [
            _Source(workload.chunks(own), int(first))
            for workload, own, first in zip(self.workloads, rng.spawn(len(self.workloads)), firsts, strict=False)
        ]
        while sources := [x for x in sources if x.fill()]:
            # Up to the least of the last times, no source can bring anything earlier.
            until = min(x.last for x in sources)
            parts = [x.take(until) for x in sources]
            times = np.concatenate([x.times for x in parts])
            order = np.argsort(times, kind="stable")
            yield Chunk(times[order], np.concatenate([x.kinds for x in parts])[order])


class _Source:
    """A workload's chunks, as far as they are not given out."""

    def __init__(self, chunks: Iterator[Chunk], first_kind: int) -> None:
        self._chunks = chunks
        self._first_kind = first_kind
        self._times: Floats = np.empty(0)
        self._kinds: NDArray[np.integer[Any]] = np.empty(0, dtype=np.int64)

    def fill(self) -> bool:
        """Whether anything is left; fetches the next chunk where nothing is at hand."""
        while not len(self._times):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._times, self._kinds = chunk.times, chunk.kinds + self._first_kind
        return True

    @property
    def last(self) -> float:
        """The time of the last arrival at hand."""
        return float(self._times[-1])

    def take(self, until: float) -> Chunk:
        """What arrives until then."""
        count = int(np.searchsorted(self._times, until, side="right"))
        taken = Chunk(self._times[:count], self._kinds[:count])
        self._times, self._kinds = self._times[count:], self._kinds[count:]
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Arrivals at given times, ascending, of kinds drawn by share."""

    popular: Popular
    times: Floats

    def __post_init__(self) -> None:
        if np.any(np.diff(self.times) < 0):
            raise InvalidInput("recorded times must not fall")

    @property
    def kinds(self) -> tuple[QueryKind, ...]:
        """See Workload."""
        return self.popular.kinds

    def chunks(self, rng: np.random.Generator) -> Iterator[Chunk]:
        """See Workload."""
        for first in range(0, len(self.times), CHUNK):
            times = self.times[first : first + CHUNK]
            yield Chunk(times, self.popular.draw(rng, len(times)))


# ---- kinds made from a catalogue ---------------------------------------------------------------------------------


def hot_and_cold(
    catalog: Catalog,
    *,
    order: Sequence[str] = (),
    hot: int = 4,
    hot_share: float = 0.8,
    hot_bound_s: float = 0.05,
    cold_factor: float = 1.5,
    exponent: float = 1.0,
) -> Popular:
    """Architectures as targets: few are hot and have a tight bound, the others ask for what a processor can give.

    The first `hot` architectures of `order` that some variant can answer within half of `hot_bound_s` take `hot_share`
    of the arrivals under that bound. Each other has a bound of `cold_factor` times the median latency of one row on its
    fastest variant for processors (of all variants where it has none). Within both groups popularity is Zipf's, by
    `order`; what it does not name follows by name. This is how the INFaaS paper describes its day of a trace.
    """
    unknown = [x for x in order if x not in catalog.architectures]
    if unknown:
        raise InvalidInput(f"the catalogue has no architecture {unknown[0]!r}")
    if hot < 0 or not 0 <= hot_share <= 1:
        raise InvalidInput("hot must be 0 or more, and hot_share in 0..1")
    positive(hot_bound_s=hot_bound_s, cold_factor=cold_factor)
    offers = _by_architecture(catalog)
    ranked = [x for x in dict.fromkeys([*order, *sorted(offers)]) if x in offers]
    able = [x for x in ranked if min(o.profile.latency_s(1) for o in offers[x]) <= hot_bound_s / 2]
    warm = able[:hot]
    rest = [x for x in ranked if x not in warm]
    if not warm or not rest:
        hot_share = 1.0 if warm else 0.0
    kinds = [QueryKind(target=x, slo=SLO(latency_s=hot_bound_s)) for x in warm]
    kinds += [QueryKind(target=x, slo=SLO(latency_s=cold_factor * _processor_s(offers[x]))) for x in rest]
    shares = [hot_share * x for x in zipf(len(warm), exponent)] if warm else []
    shares += [(1 - hot_share) * x for x in zipf(len(rest), exponent)] if rest else []
    return Popular(kinds=tuple(kinds), shares=tuple(shares))


def classes_of(target: str, classes: Sequence[tuple[SLO, float]], rows: int = 1) -> Popular:
    """One target, asked for under several SLOs, each with its share."""
    return Popular(
        kinds=tuple(QueryKind(target=target, slo=slo, rows=rows) for slo, _ in classes),
        shares=tuple(share for _, share in classes),
    )


def mixed(parts: Sequence[tuple[Popular, float]]) -> Popular:
    """Several groups of kinds as one, each with its share of the whole."""
    kinds: list[QueryKind] = []
    shares: list[float] = []
    for popular, share in parts:
        kinds += popular.kinds
        shares += [share * x / sum(popular.shares) for x in popular.shares]
    return Popular(kinds=tuple(kinds), shares=tuple(shares))


def with_rows(popular: Popular, rows: Mapping[int, float]) -> Popular:
    """The same kinds, each in several sizes: rows of a query, by share."""
    if not all(0 <= x < inf for x in rows.values()) or not sum(rows.values()) > 0:
        raise InvalidInput("shares of sizes must be 0 or more, and one above 0")
    return Popular(
        kinds=tuple(replace(kind, rows=size) for kind in popular.kinds for size in rows),
        shares=tuple(share * part / sum(rows.values()) for share in popular.shares for part in rows.values()),
    )


def _by_architecture(catalog: Catalog) -> dict[str, list[Offer]]:
    found: dict[str, list[Offer]] = {}
    for offer in catalog.offers.values():
        found.setdefault(offer.variant.architecture, []).append(offer)
    return found


def _processor_s(offers: Sequence[Offer]) -> float:
    """The median latency of one row on the fastest variant for processors, else on the fastest of all."""
    on_processors = [x for x in offers if x.variant.hardware is HardwareKind.CPU]
    return min(x.profile.latencies[0].p50_s for x in on_processors or offers)
