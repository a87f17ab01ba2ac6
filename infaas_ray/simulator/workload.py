"""What arrives when: the queries of a simulation, streamed in chunks.

A workload has a few kinds of query; each arrival is a time and the index of its kind. Times never fall, within a
chunk and from one chunk to the next, and count from the beginning of the simulation in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from infaas_ray.domain import SLO
from infaas_ray.errors import InvalidInput

_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class QueryKind:
    """What many arrivals have in common: `target` and `slo` as a query names them, `rows` in its batch."""

    target: str
    slo: SLO
    rows: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InvalidInput(f"a query has at least one row, not {self.rows}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Arrivals in time order: `times` in seconds (float64), `kinds` as indices into the workload's kinds (integers)."""

    times: NDArray[np.float64]
    kinds: NDArray[np.integer[Any]]


class Workload(Protocol):
    """A source of arrivals. The same generator state gives the same arrivals."""

    @property
    def kinds(self) -> tuple[QueryKind, ...]:
        """The kinds of query that arrive."""
        ...

    def chunks(self, rng: np.random.Generator) -> Iterator[Chunk]:
        """All arrivals from the beginning, in time order, a bounded number at a time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson:
    """Independent arrivals at a constant rate of `rate_qps` queries a second for `duration_s`; `shares` by kind."""

    kinds: tuple[QueryKind, ...]
    rate_qps: float
    duration_s: float
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.rate_qps <= 0 or self.duration_s <= 0:
            raise InvalidInput("a rate and a duration are positive")
        if self.shares is not None and len(self.shares) != len(self.kinds):
            raise InvalidInput(f"{len(self.kinds)} kinds of query need as many shares, not {len(self.shares)}")

    def chunks(self, rng: np.random.Generator) -> Iterator[Chunk]:
        """Exponential gaps, kinds drawn by share (equal ones by default)."""
        shares = np.ones(len(self.kinds)) if self.shares is None else np.asarray(self.shares, dtype=float)
        shares = shares / shares.sum()
        now = 0.0
        while now < self.duration_s:
            times = now + np.cumsum(rng.exponential(1.0 / self.rate_qps, _CHUNK))
            now = float(times[-1])
            times = times[times < self.duration_s]
            yield Chunk(times, rng.choice(len(self.kinds), size=len(times), p=shares))
