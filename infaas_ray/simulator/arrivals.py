"""When queries arrive, given how many there are to be: chance on top of a shape.

Rule: the gaps between arrivals are drawn for a rate of one a unit of time, and time is then stretched so that the
expected number of arrivals follows the shape (the inverse of its integral). So any process of gaps works with any
shape, exactly, and with the same generator the same arrivals come, however they are chunked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from infaas_ray.errors import InvalidInput
from infaas_ray.simulator.rates import Floats, Rates

_MOST_VARIATION = 100.0
CHUNK = 8192  # arrivals drawn at once


class Process(Protocol):
    """Gaps between arrivals with a mean of 1."""

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """`count` gaps."""
        ...


@dataclass(frozen=True, slots=True)
class Poisson:
    """Arrivals that know nothing of each other: exponential gaps."""

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """See Process."""
        return rng.exponential(1.0, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma:
    """Gamma-distributed gaps with this coefficient of variation: below 1 more even than Poisson, above 1 burstier.

    Over long windows the variance of the count approaches `variation` squared times its mean.
    """

    variation: float

    def __post_init__(self) -> None:
        if not 0 < self.variation <= _MOST_VARIATION:
            raise InvalidInput(f"variation must be above 0 and at most {_MOST_VARIATION:g}, not {self.variation!r}")

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """See Process."""
        square = self.variation**2
        return rng.gamma(1.0 / square, square, count)


@dataclass(frozen=True, slots=True)
class Even:
    """Gaps that are all alike."""

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """See Process."""
        return np.ones(count)


def arrival_times(rates: Rates, process: Process, rng: np.random.Generator) -> Iterator[Floats]:
    """All arrivals in seconds from the beginning, ascending, at most CHUNK at a time."""
    rates_rng, gaps_rng = rng.spawn(2)
    expected, done = 0.0, 0  # arrivals expected, and steps taken, before this block
    pending = np.cumsum(process.gaps(gaps_rng, CHUNK))
    for block in rates.blocks(rates_rng):
        edges = expected + np.concatenate(([0.0], np.cumsum(block * rates.step_s)))
        while pending[0] < edges[-1]:
            here = pending[: np.searchsorted(pending, edges[-1])]
            steps = np.searchsorted(edges, here, side="right") - 1
            times = (done + steps) * rates.step_s + (here - edges[steps]) / block[steps]
            yield times[times < rates.duration_s]
            pending = pending[len(here) :]
            if not len(pending):
                pending = here[-1] + np.cumsum(process.gaps(gaps_rng, CHUNK))
        expected = float(edges[-1])
        done += len(block)
