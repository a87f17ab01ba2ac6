"""How many rows a second one replica carries so that queries of a class meet their latency bound.

Rule: a replica that runs batches of b rows, each taking L(b), carries b / L(b). Of that, head room is left for chance.
A query that finds a batch running waits for a time, then runs with its own; the bound D leaves room to wait for
k = (D - L99(b)) / L50(b) batches. Over k batches, demand of rate r brings k r L50 rows, give or take the square root;
capacity must exceed the mean by z of those: the share (1 + z / sqrt(k r L50)) of the demand (square-root staffing, as
in Halfin and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", 1981). The batch size that
carries most is planned with. Tight bounds thus get idle replicas, loose ones full batches. Batches are of whole
queries: where each has several rows, none is smaller than one query.

Head room is idle time in which neighbours on the same cores or device compute, but a neighbour at work is in the way
like a batch of one's own. So where replicas share hardware, a row counts for more than its work: as on a machine that
is full of such rows, on `servers` batches at a time, where all of them are k b servers, and the share above is left;
less where there is no room to wait for one batch, as any neighbour at work then makes a row late.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

from infaas_ray.policy.latency import LatencyCurve
from infaas_ray.policy.routing import Offer

_LEAST_SHARE = 0.02  # of a replica's throughput that it carries at least, if it can meet the bound at all
_WAITS = 8.0  # more room to wait than for so many batches earns nothing


@dataclass(frozen=True, slots=True)
class _Point:
    rows: int
    median_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class Carried:
    """Rows a second that a replica carries, and for how long each keeps it busy, with its share of head room."""

    rate_qps: float
    busy_s: float


class Capacity:
    """The capacity of a variant's replicas for queries of `rows_each` rows, by latency bound and demand."""

    __slots__ = ("_points",)

    def __init__(self, offer: Offer, rows_each: int = 1) -> None:
        limit = offer.variant.batch_limit
        median, high = LatencyCurve.median(offer.profile, limit), LatencyCurve(offer.profile, limit)
        most = max(1, limit // rows_each)  # queries in a batch; one with more rows than the limit is computed in parts
        counts = [1 << n for n in range(most.bit_length())]
        sizes = [x * rows_each for x in dict.fromkeys((*counts, most))]
        self._points = [_Point(b, median(b), high(b)) for b in sizes]

    @property
    def least_s(self) -> float:
        """What a query takes at least, at the quantile of the bound: below that, or at it, no bound can be met."""
        return min(x.high_s for x in self._points)

    def carried(self, bound_s: float, demand_qps: float, z: float, servers: float = inf) -> Carried | None:
        """What one replica carries of a demand within the bound (inf: none); None where it never meets it.

        `servers`: how many such replicas can compute at a time where they share a machine's cores or device; infinite
        where they do not share.
        """
        best: Carried | None = None
        for point in self._points:
            waits = min(_WAITS, (bound_s - point.high_s) / point.median_s)
            if waits <= 0:
                continue
            rate = point.rows / point.median_s * _share(z, demand_qps * point.median_s * waits)
            if best is None or rate > best.rate_qps:
                shared = _share(z, waits * point.rows * servers) * min(1.0, waits)
                best = Carried(rate, min(1.0 / rate, point.median_s / point.rows / shared))
        return best


def _share(z: float, rows: float) -> float:
    """Of a throughput, what is left beside head room where so many rows come while one may wait."""
    return max(_LEAST_SHARE, 1.0 / (1.0 + z / sqrt(max(1e-9, rows))))


def undominated(offers: Sequence[Offer]) -> list[Offer]:
    """The offers without those that another beats or equals in all that a plan looks at, on the same hardware."""
    sizes = (1, 4, 16, 64)
    kept: list[tuple[tuple[object, ...], tuple[float, ...], Offer]] = []
    ordered = sorted(offers, key=lambda x: (-x.profile.saturation_qps, x.profile.latency_s(1), x.name))
    for offer in ordered:
        kind, marks = _marks(offer, sizes)
        if not any(kind == other and all(a <= b for a, b in zip(seen, marks, strict=True)) for other, seen, _ in kept):
            kept.append((kind, marks, offer))
    return [offer for _, _, offer in kept]


def _marks(offer: Offer, sizes: Sequence[int]) -> tuple[tuple[object, ...], tuple[float, ...]]:
    """What must be equal, and numbers of which less is better."""
    variant, profile = offer.variant, offer.profile
    limit = variant.batch_limit
    high = LatencyCurve(profile, limit)
    curve = [high(b) if b <= limit else inf for b in sizes]
    marks = (
        -offer.accuracy,
        -profile.saturation_qps,
        float(variant.threads),
        float(profile.peak_memory_bytes),
        float(profile.peak_device_memory_bytes),
        profile.load_s,
        offer.usd_per_1k,
        *curve,
    )
    return (variant.hardware, offer.worker_types), marks
