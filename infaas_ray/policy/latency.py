"""How long a variant takes for a number of rows, remembered, because selection and batching ask all the time.

Rule: up to the batch limit the profile's quantile; more rows run as several full batches, one after another.
Where every microsecond counts, look into `known` first.
"""

from dataclasses import replace
from typing import Self

from infaas_ray.domain import Profile


class LatencyCurve:
    """Latency in seconds by rows: the p99 of the profile, or its median by `LatencyCurve.median`."""

    __slots__ = ("_limit", "_profile", "known")

    def __init__(self, profile: Profile, batch_limit: int) -> None:
        self._profile = profile
        self._limit = batch_limit
        self.known: dict[int, float] = {}

    @classmethod
    def median(cls, profile: Profile, batch_limit: int) -> Self:
        """The curve of the p50 instead of the p99."""
        points = tuple(replace(x, p95_s=x.p50_s, p99_s=x.p50_s) for x in profile.latencies)
        return cls(replace(profile, latencies=points), batch_limit)

    def __call__(self, rows: int) -> float:
        """Seconds for `rows` rows (at least 1) on an idle replica."""
        known = self.known.get(rows)
        return self._measure(rows) if known is None else known

    def _measure(self, rows: int) -> float:
        batches = -(-rows // self._limit)
        value = self._profile.latency_s(rows) if batches <= 1 else batches * self(self._limit)
        # Oversized queries come in any size, so only what fits a batch is worth remembering.
        if batches <= 1:
            self.known[rows] = value
        return value
