"""How many queries a second there are to be, over time: the shape of a workload, before chance draws the arrivals.

A shape is a sequence of rates, each of which holds for one step of `step_s` seconds, made a block at a time, so that a
month takes no more memory than a minute. What a shape leaves to chance comes from the generator that it is given.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, pi
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from infaas_ray.errors import InvalidInput

Floats = NDArray[np.float64]
BLOCK = 4096  # steps made at once
MOST_STEPS = 100_000_000  # of a shape or a trace: three years of seconds


class Rates(Protocol):
    """Rates in queries per second; each holds for a step."""

    @property
    def step_s(self) -> float:
        """How long a rate holds, in seconds."""
        ...

    @property
    def duration_s(self) -> float:
        """How long the whole takes, in seconds."""
        ...

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """The rates of all steps from the beginning, some at a time. A last step that is not whole counts as whole."""
        ...


def positive(**numbers: float) -> None:
    """Raise InvalidInput unless all are above 0 and finite."""
    for name, number in numbers.items():
        if not 0 < number < inf:
            raise InvalidInput(f"{name} must be above 0, not {number!r}")


def not_negative(**numbers: float) -> None:
    """Raise InvalidInput unless all are 0 or more, and finite."""
    for name, number in numbers.items():
        if not 0 <= number < inf:
            raise InvalidInput(f"{name} must be 0 or more, not {number!r}")


def _between(low_qps: float, high_qps: float) -> None:
    not_negative(low_qps=low_qps)
    if low_qps > high_qps:
        raise InvalidInput(f"low_qps must be at most high_qps, {high_qps:g}, not {low_qps!r}")


def step_middles(step_s: float, duration_s: float) -> Iterator[Floats]:
    """The middles of all steps in seconds, a block at a time."""
    steps = int(np.ceil(duration_s / step_s - 1e-9))
    for first in range(0, steps, BLOCK):
        yield np.arange(first + 0.5, min(steps, first + BLOCK), dtype=np.float64) * step_s


def _blocks(rates: Rates, curve: Callable[[Floats], Floats]) -> Iterator[Floats]:
    for middles in step_middles(rates.step_s, rates.duration_s):
        yield curve(middles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """The same rate all the time."""

    rate_qps: float
    duration_s: float
    step_s: float = 1.0

    def __post_init__(self) -> None:
        positive(rate_qps=self.rate_qps, duration_s=self.duration_s, step_s=self.step_s)

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        return _blocks(self, lambda times: np.full(len(times), self.rate_qps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """A rate somewhere between `low_qps` and `high_qps`, drawn anew each `hold_s` seconds."""

    low_qps: float
    high_qps: float
    duration_s: float
    hold_s: float = 60.0

    def __post_init__(self) -> None:
        positive(high_qps=self.high_qps, duration_s=self.duration_s, hold_s=self.hold_s)
        _between(self.low_qps, self.high_qps)

    @property
    def step_s(self) -> float:
        """See Rates."""
        return self.hold_s

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        return _blocks(self, lambda times: rng.uniform(self.low_qps, self.high_qps, len(times)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fluctuating:
    """A rate that swings between `low_qps` and `high_qps` once in each `period_s`, from the low up and back."""

    low_qps: float
    high_qps: float
    period_s: float
    duration_s: float
    step_s: float = 1.0

    def __post_init__(self) -> None:
        positive(high_qps=self.high_qps, period_s=self.period_s, duration_s=self.duration_s, step_s=self.step_s)
        _between(self.low_qps, self.high_qps)

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        half = (self.high_qps - self.low_qps) / 2
        return _blocks(self, lambda times: self.low_qps + half * (1 - np.cos(2 * pi * times / self.period_s)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOff:
    """A rate that is on for a while and off for a while; how long is exponential with these means, or exactly they.

    Switches happen between steps.
    """

    on_qps: float
    off_qps: float
    on_s: float
    off_s: float
    duration_s: float
    random: bool = True
    step_s: float = 1.0

    def __post_init__(self) -> None:
        positive(on_qps=self.on_qps, on_s=self.on_s, off_s=self.off_s, duration_s=self.duration_s, step_s=self.step_s)
        not_negative(off_qps=self.off_qps)
        if min(self.on_s, self.off_s) < self.step_s / 1000:
            raise InvalidInput("on_s and off_s must be at least a thousandth of step_s")

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        on, until = True, self._stay(True, rng)
        for times in step_middles(self.step_s, self.duration_s):
            rates = np.empty(len(times))
            for i, now in enumerate(times):
                while now >= until:
                    on = not on
                    until += self._stay(on, rng)
                rates[i] = self.on_qps if on else self.off_qps
            yield rates

    def _stay(self, on: bool, rng: np.random.Generator) -> float:
        mean_s = self.on_s if on else self.off_s
        return float(rng.exponential(mean_s)) if self.random else mean_s


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashCrowd:
    """A base rate; at `at_s` it rises within `rise_s` to a peak, holds, and falls back as `exp(-t / decay_s)`."""

    base_qps: float
    peak_qps: float
    at_s: float
    rise_s: float
    hold_s: float
    decay_s: float
    duration_s: float
    step_s: float = 1.0

    def __post_init__(self) -> None:
        positive(peak_qps=self.peak_qps, duration_s=self.duration_s, decay_s=self.decay_s, step_s=self.step_s)
        not_negative(base_qps=self.base_qps, at_s=self.at_s, rise_s=self.rise_s, hold_s=self.hold_s)

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        return _blocks(self, self._curve)

    def _curve(self, times: Floats) -> Floats:
        risen = self.at_s + self.rise_s
        up = np.clip((times - self.at_s) / max(self.rise_s, 1e-9), 0.0, 1.0)
        down = np.exp(-np.maximum(0.0, times - risen - self.hold_s) / self.decay_s)
        return self.base_qps + (self.peak_qps - self.base_qps) * up * down


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A rate that rises from `from_qps` to `to_qps`, by equal amounts or, if `geometric`, by equal factors.

    It rises in `levels` stairs of equal length, so that each level can be judged by itself.
    """

    from_qps: float
    to_qps: float
    duration_s: float
    levels: int = 20
    geometric: bool = False

    def __post_init__(self) -> None:
        positive(from_qps=self.from_qps, to_qps=self.to_qps, duration_s=self.duration_s, levels=self.levels)

    @property
    def step_s(self) -> float:
        """See Rates."""
        return self.duration_s / self.levels

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        make = np.geomspace if self.geometric else np.linspace
        yield make(self.from_qps, self.to_qps, self.levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkovModulated:
    """Rates that a hidden state multiplies (a Markov-modulated Poisson process, where arrivals are Poisson).

    State i multiplies by `factors[i]` and stays for an exponential time with the mean `stays_s[i]`; then any other
    state is as likely. Factors are scaled so that the mean rate stays that of `rates`. Within a step the factor is the
    mean over it; steps are at most a tenth of the shortest stay.
    """

    rates: Rates
    factors: tuple[float, ...]
    stays_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.factors) != len(self.stays_s) or len(self.factors) < 2:
            raise InvalidInput("a hidden state needs two or more factors, and as many stays")
        positive(**{f"stays_s[{i}]": x for i, x in enumerate(self.stays_s)}, factors=sum(self.factors))
        not_negative(**{f"factors[{i}]": x for i, x in enumerate(self.factors)})

    @property
    def _split(self) -> int:
        return max(1, int(np.ceil(10 * self.rates.step_s / min(self.stays_s))))

    @property
    def step_s(self) -> float:
        """See Rates."""
        return self.rates.step_s / self._split

    @property
    def duration_s(self) -> float:
        """See Rates."""
        return self.rates.duration_s

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        rates_rng, states_rng = rng.spawn(2)
        state = _HiddenState(self.factors, self.stays_s, states_rng)
        for block in self.rates.blocks(rates_rng):
            for first in range(0, len(block), max(1, BLOCK // self._split)):
                part = np.repeat(block[first : first + max(1, BLOCK // self._split)], self._split)
                yield part * state.means(len(part), self.step_s)


class _HiddenState:
    """A Markov chain in continuous time, and the mean of its factor over each of successive steps."""

    def __init__(self, factors: tuple[float, ...], stays_s: tuple[float, ...], rng: np.random.Generator) -> None:
        mean = float(np.dot(factors, stays_s) / np.sum(stays_s))
        self._factors = [x / mean for x in factors]
        self._stays_s = stays_s
        self._rng = rng
        self._state = int(rng.choice(len(factors), p=np.asarray(stays_s) / np.sum(stays_s)))
        self._left_s = float(rng.exponential(stays_s[self._state]))

    def means(self, steps: int, step_s: float) -> Floats:
        """The mean factor of each step."""
        return np.asarray([self._mean(step_s) for _ in range(steps)])

    def _mean(self, step_s: float) -> float:
        total, to_go = 0.0, step_s
        while self._left_s < to_go:
            total += self._factors[self._state] * self._left_s
            to_go -= self._left_s
            other = int(self._rng.integers(len(self._factors) - 1))
            self._state = other + (other >= self._state)
            self._left_s = float(self._rng.exponential(self._stays_s[self._state]))
        self._left_s -= to_go
        return (total + self._factors[self._state] * to_go) / step_s


def mean_qps(rates: Rates, rng: np.random.Generator) -> float:
    """The mean rate of one drawing."""
    total, steps = 0.0, 0
    for block in rates.blocks(rng):
        total += float(block.sum())
        steps += len(block)
    return total / steps if steps else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """Other rates, multiplied by `factor`; a day told in an hour where `speed` is 24."""

    rates: Rates
    factor: float = 1.0
    speed: float = 1.0

    def __post_init__(self) -> None:
        positive(factor=self.factor, speed=self.speed)

    @property
    def step_s(self) -> float:
        """See Rates."""
        return self.rates.step_s / self.speed

    @property
    def duration_s(self) -> float:
        """See Rates."""
        return self.rates.duration_s / self.speed

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        for block in self.rates.blocks(rng):
            yield block * self.factor
