"""Days with bursts: what a public stream of messages looks like, as rates over time (see `rates`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, pi
from typing import Protocol

import numpy as np

from infaas_ray.simulator.rates import Floats, not_negative, positive, step_middles


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
        not_negative(
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
