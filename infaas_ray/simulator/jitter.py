"""How long a batch takes alone on its machine: drawn from the profile's quantiles.

Rule: the median of the batch's size times a factor whose logarithm is a piecewise linear function of a standard normal
draw, through the profile's p50, p95, p99 and, where known, p99.9; beyond the last the line goes on. Below the median
nothing is known, so the part up to the p95 is mirrored: a lognormal body with a tail of its own. Between measured
sizes the quantiles' logarithms are interpolated.
"""

from collections.abc import Iterator
from math import exp, inf, log
from statistics import NormalDist
from typing import Protocol

import numpy as np

from infaas_ray.domain import BatchLatency
from infaas_ray.policy.latency import LatencyCurve
from infaas_ray.policy.routing import Offer

_BLOCK = 8192
_Z = tuple(NormalDist().inv_cdf(x) for x in (0.95, 0.99, 0.999))
_Shape = tuple[float, float, float]  # logarithms of p95, p99 and p99.9 over the median


class BatchTimes(Protocol):
    """The times of a variant's batches."""

    def draw(self, rows: int) -> float:
        """Seconds that a batch of so many rows computes, alone on its machine."""
        ...


def normals(rng: np.random.Generator) -> Iterator[float]:
    """Standard normal draws without end."""
    while True:
        yield from rng.standard_normal(_BLOCK).tolist()


def exponentials(rng: np.random.Generator) -> Iterator[float]:
    """Exponential draws of mean 1 without end."""
    while True:
        yield from rng.exponential(1.0, _BLOCK).tolist()


def through(p50_s: float, p95_s: float, p99_s: float, draws: Iterator[float]) -> Iterator[float]:
    """Times without end by the rule of this module, through three quantiles above 0."""
    shape = _shape(BatchLatency(batch=1, p50_s=p50_s, p95_s=p95_s, p99_s=p99_s))
    while True:
        yield p50_s * exp(_log_factor(next(draws), *shape))


class ProfiledTimes:
    """Times by the rule of this module. More rows than the batch limit run as several batches."""

    __slots__ = ("_draws", "_known", "_limit", "_median_s", "_points")

    def __init__(self, offer: Offer, draws: Iterator[float]) -> None:
        self._median_s = LatencyCurve.median(offer.profile, offer.variant.batch_limit)
        self._limit = offer.variant.batch_limit
        self._points = [(x.batch, _shape(x)) for x in offer.profile.latencies]
        self._known: dict[int, tuple[float, _Shape]] = {}
        self._draws = draws

    def draw(self, rows: int) -> float:
        """As `BatchTimes` says."""
        if rows > self._limit:
            full, rest = divmod(rows, self._limit)
            return sum(self.draw(self._limit) for _ in range(full)) + (self.draw(rest) if rest else 0.0)
        known = self._known.get(rows)
        if known is None:
            known = self._known[rows] = (self._median_s(rows), self._shape_at(rows))
        median_s, (p95, p99, p999) = known
        return median_s * exp(_log_factor(next(self._draws), p95, p99, p999))

    def exceeds(self, rows: int, bound_s: float) -> float:
        """The probability that a batch of at most the limit takes longer than `bound_s` alone on its machine."""
        ratio = log(bound_s / self._median_s(rows)) if bound_s > 0 else -inf
        p95, p99, p999 = self._shape_at(rows)
        return 1.0 - NormalDist().cdf(_normal_of(ratio, p95, p99, p999))

    def _shape_at(self, rows: int) -> _Shape:
        points = self._points
        upper = next((i for i, (batch, _) in enumerate(points) if batch >= rows), len(points) - 1)
        (low, below), (high, above) = points[max(0, upper - 1)], points[upper]
        share = 1.0 if high == low else min(1.0, (rows - low) / (high - low))
        p95, p99, p999 = (a + (b - a) * share for a, b in zip(below, above, strict=True))
        return p95, p99, p999


def _log_factor(z: float, p95: float, p99: float, p999: float) -> float:
    if z < _Z[0]:
        return z * p95 / _Z[0]
    if z < _Z[1]:
        return p95 + (z - _Z[0]) * (p99 - p95) / (_Z[1] - _Z[0])
    return p99 + (z - _Z[1]) * (p999 - p99) / (_Z[2] - _Z[1])


def _normal_of(log_factor: float, p95: float, p99: float, p999: float) -> float:
    """The inverse of `_log_factor`; without any jitter, far to one side."""
    zs, logs = (0.0, *_Z), (0.0, p95, p99, p999)
    for at in range(1, len(zs)):
        if log_factor < logs[at] or at == len(zs) - 1:
            slope = (logs[at] - logs[at - 1]) / (zs[at] - zs[at - 1])
            if slope <= 0:
                return -inf if log_factor < logs[at - 1] else inf
            return zs[at - 1] + (log_factor - logs[at - 1]) / slope
    raise AssertionError


def _shape(point: BatchLatency) -> _Shape:
    p95, p99 = log(point.p95_s / point.p50_s), log(point.p99_s / point.p50_s)
    if point.p999_s is not None:
        return p95, p99, log(point.p999_s / point.p50_s)
    return p95, p99, p99 + (p99 - p95) * (_Z[2] - _Z[1]) / (_Z[1] - _Z[0])
