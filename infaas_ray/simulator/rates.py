"""How many queries a second there are to be, over time: the shape of a workload, before chance draws the arrivals.

A shape is a sequence of rates, each of which holds for one step of `step_s` seconds, made a block at a time, so that a
month takes no more memory than a minute. What a shape leaves to chance comes from the generator that it is given.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, inf, pi
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


def _not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number < inf:
            raise InvalidInput(f"{name} must be 0 or more, not {number!r}")


def _between(low_qps: float, high_qps: float) -> None:
    _not_negative(low_qps=low_qps)
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
        _not_negative(off_qps=self.off_qps)
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
        _not_negative(base_qps=self.base_qps, at_s=self.at_s, rise_s=self.rise_s, hold_s=self.hold_s)

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
class Diurnal:
    """Days with bursts: what a public stream of messages looks like.

    The rate is `mean_qps` times a daily wave (1 - `swing` at night, 1 + `swing` twelve hours later), times noise that
    forgets itself within `noise_memory_s` (its logarithm has the standard deviation `noise`), times bursts: minutes
    long, `bursts_per_day` of them, and spikes: seconds long, `spikes_per_day`. A burst or spike multiplies by a factor
    drawn evenly up to its greatest, comes at once, and falls back exponentially. The mean over many days is `mean_qps`.
    A day lasts `day_s`, so that one can be told in an hour; bursts, spikes and memory keep their lengths.
    """

    mean_qps: float
    duration_s: float
    day_s: float = 86_400.0
    swing: float = 0.3
    noise: float = 0.08
    noise_memory_s: float = 120.0
    bursts_per_day: float = 24.0
    burst_factor: float = 5.0
    burst_s: float = 300.0
    spikes_per_day: float = 12.0
    spike_factor: float = 4.0
    spike_s: float = 5.0
    step_s: float = 1.0

    def __post_init__(self) -> None:
        positive(
            mean_qps=self.mean_qps,
            duration_s=self.duration_s,
            day_s=self.day_s,
            noise_memory_s=self.noise_memory_s,
            burst_s=self.burst_s,
            spike_s=self.spike_s,
            step_s=self.step_s,
        )
        _not_negative(
            swing=self.swing,
            room_at_night=1 - self.swing,
            noise=self.noise,
            bursts_per_day=self.bursts_per_day,
            spikes_per_day=self.spikes_per_day,
            burst_rise=self.burst_factor - 1,
            spike_rise=self.spike_factor - 1,
        )

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        bursts = _Shots(self.bursts_per_day / self.day_s, self.burst_factor, self.burst_s, self.step_s)
        spikes = _Shots(self.spikes_per_day / self.day_s, self.spike_factor, self.spike_s, self.step_s)
        noise = _Noise(self.noise, self.noise_memory_s, self.step_s, rng)
        mean = self.mean_qps / (1 + bursts.mean + spikes.mean)
        for times in step_middles(self.step_s, self.duration_s):
            wave = 1 - self.swing * np.cos(2 * pi * times / self.day_s)
            shots = 1 + bursts.draw(len(times), rng) + spikes.draw(len(times), rng)
            yield mean * wave * shots * noise.draw(len(times), rng)


class _Shots:
    """A rise that comes at random instants and decays: `mean` over time is what it adds to a factor of 1."""

    def __init__(self, per_second: float, factor: float, decay_s: float, step_s: float) -> None:
        self._chance = per_second * step_s
        self._most = factor - 1
        self._keep = exp(-step_s / decay_s)
        self.level = 0.0
        self.mean = self._chance * self._most / 2 / (1 - self._keep)

    def draw(self, steps: int, rng: np.random.Generator) -> Floats:
        """What is added in each step."""
        counts = rng.poisson(self._chance, steps)
        heights = rng.uniform(0, self._most, steps) * counts
        return _decaying(self, heights, self._keep)


class _Noise:
    """Log-normal noise with mean 1 that forgets itself (an autoregressive process of order one)."""

    def __init__(self, deviation: float, memory_s: float, step_s: float, rng: np.random.Generator) -> None:
        self._deviation = deviation
        self._keep = exp(-step_s / memory_s)
        self.level = float(rng.normal(0, deviation))

    def draw(self, steps: int, rng: np.random.Generator) -> Floats:
        """The factor of each step."""
        pushes = rng.normal(0, self._deviation * (1 - self._keep**2) ** 0.5, steps)
        found: Floats = np.exp(_decaying(self, pushes, self._keep) - self._deviation**2 / 2)
        return found


class _Level(Protocol):
    level: float


def _decaying(holder: _Level, pushes: Floats, keep: float) -> Floats:
    """Levels of `level = keep * level + push`, carried on from block to block in `holder`."""
    levels = np.empty(len(pushes))
    level = holder.level
    for i, push in enumerate(pushes.tolist()):
        level = keep * level + push
        levels[i] = level
    holder.level = level
    return levels


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
        _not_negative(**{f"factors[{i}]": x for i, x in enumerate(self.factors)})

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
