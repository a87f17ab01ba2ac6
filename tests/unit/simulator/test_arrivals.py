"""Shapes keep their rates, processes their dispersion, and seeds their arrivals."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.errors import InvalidInput
from infaas_ray.simulator.arrivals import CHUNK, Even, Gamma, Poisson, Process, arrival_times
from infaas_ray.simulator.diurnal import Diurnal
from infaas_ray.simulator.rates import (
    FlashCrowd,
    Flat,
    Floats,
    Fluctuating,
    MarkovModulated,
    OnOff,
    Ramp,
    Rates,
    Scaled,
    Steady,
    mean_qps,
)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def arrivals(rates: Rates, process: Process | None = None, seed: int = 1) -> Floats:
    return np.concatenate([np.empty(0), *arrival_times(rates, process or Poisson(), rng(seed))])


def steps(rates: Rates, seed: int = 1) -> Floats:
    return np.concatenate(list(rates.blocks(rng(seed))))


def dispersion(times: Floats, window_s: float, duration_s: float) -> float:
    """Variance over mean of the counts in windows; 1 for a Poisson process."""
    counts = np.histogram(times, bins=round(duration_s / window_s), range=(0, duration_s))[0]
    return float(counts.var() / counts.mean())


@pytest.mark.parametrize(
    ("process", "expected", "tolerance"),
    [(Poisson(), 1.0, 0.1), (Gamma(variation=2.0), 4.0, 0.5), (Gamma(variation=0.5), 0.25, 0.05), (Even(), 0.0, 0.01)],
)
def test_processes_have_the_rate_and_the_dispersion_they_promise(
    process: Process, expected: float, tolerance: float
) -> None:
    times = arrivals(Flat(rate_qps=50, duration_s=4000), process)
    assert len(times) == pytest.approx(50 * 4000, rel=0.015)
    assert dispersion(times, 4.0, 4000) == pytest.approx(expected, abs=tolerance)
    gaps = np.diff(times)
    assert gaps.min() >= 0
    variation = {Poisson: 1.0, Even: 0.0}.get(type(process), getattr(process, "variation", 0.0))
    assert gaps.std() / gaps.mean() == pytest.approx(variation, abs=0.03)


def test_a_hidden_state_keeps_the_mean_and_makes_counts_vary_more() -> None:
    base = Flat(rate_qps=40, duration_s=8000)
    modulated = MarkovModulated(rates=base, factors=(0.2, 1.0, 4.0), stays_s=(20.0, 20.0, 5.0))
    assert modulated.step_s <= 0.5
    assert mean_qps(modulated, rng()) == pytest.approx(40, rel=0.1)
    assert dispersion(arrivals(modulated), 5.0, 8000) > 20
    assert set(np.round(steps(modulated) / steps(modulated).min(), 6)) >= {1.0, 5.0, 20.0}


def test_shapes_are_what_they_say() -> None:
    steady = steps(Steady(low_qps=650, high_qps=700, duration_s=36_000))
    assert 650 <= steady.min() < 652
    assert 698 < steady.max() <= 700
    wave = steps(Fluctuating(low_qps=4, high_qps=80, period_s=600, duration_s=1200))
    assert (wave.min(), wave.max()) == (pytest.approx(4, abs=0.01), pytest.approx(80, abs=0.01))
    assert wave[:600] == pytest.approx(wave[600:])
    crowd = steps(FlashCrowd(base_qps=5, peak_qps=50, at_s=100, rise_s=10, hold_s=60, decay_s=30, duration_s=400))
    assert crowd[99] == 5
    assert crowd[110:170] == pytest.approx(50)
    assert crowd[200] == pytest.approx(5 + 45 * np.exp(-30.5 / 30))
    assert steps(Ramp(from_qps=10, to_qps=100, duration_s=100, levels=10)) == pytest.approx(np.arange(10, 101, 10))
    stairs = steps(Ramp(from_qps=1, to_qps=64, duration_s=70, levels=7, geometric=True))
    assert stairs == pytest.approx(2.0 ** np.arange(7))
    faster = Scaled(rates=Flat(rate_qps=3, duration_s=240), factor=2, speed=24)
    assert (faster.duration_s, mean_qps(faster, rng())) == (10, 6)


def test_on_and_off_last_as_long_as_they_should() -> None:
    exact = steps(OnOff(on_qps=9, off_qps=1, on_s=10, off_s=30, duration_s=80, random=False))
    assert exact.tolist() == ([9.0] * 10 + [1.0] * 30) * 2
    chance = steps(OnOff(on_qps=9, off_qps=1, on_s=10, off_s=30, duration_s=100_000))
    assert (chance == 9).mean() == pytest.approx(0.25, abs=0.02)


def test_days_have_a_wave_bursts_spikes_and_the_mean_that_was_asked_for() -> None:
    days = Diurnal(mean_qps=60, duration_s=10 * 86_400, step_s=10)
    rates = steps(days)
    assert rates.mean() == pytest.approx(60, rel=0.1)
    hours = rates.reshape(10, 24, 360).mean(axis=(0, 2))
    assert hours[[11, 12]].mean() / hours[[0, 23]].mean() == pytest.approx(1.3 / 0.7, rel=0.2)
    assert rates.max() > 3 * rates.mean()
    quiet = Diurnal(mean_qps=60, duration_s=86_400, noise=0, bursts_per_day=0, spikes_per_day=0)
    assert steps(quiet).max() == pytest.approx(60 * 1.3, rel=1e-3)


SHAPES: dict[str, Callable[[float], Rates]] = {
    "flat": lambda d: Flat(rate_qps=20, duration_s=d),
    "steady": lambda d: Steady(low_qps=10, high_qps=30, duration_s=d, hold_s=7),
    "wave": lambda d: Fluctuating(low_qps=0, high_qps=40, period_s=13, duration_s=d),
    "on-off": lambda d: OnOff(on_qps=40, off_qps=0, on_s=3, off_s=3, duration_s=d),
    "day": lambda d: Diurnal(mean_qps=20, duration_s=d, day_s=100),
    "hidden": lambda d: MarkovModulated(rates=Flat(rate_qps=20, duration_s=d), factors=(1.0, 5.0), stays_s=(4.0, 1.0)),
}


@given(
    shape=st.sampled_from(sorted(SHAPES)),
    duration_s=st.floats(0.3, 60),
    seed=st.integers(0, 2**32),
    process=st.sampled_from([Poisson(), Gamma(variation=3.0), Even()]),
)
def test_arrivals_ascend_within_the_duration_and_a_seed_repeats_them(
    shape: str, duration_s: float, seed: int, process: Process
) -> None:
    rates = SHAPES[shape](duration_s)
    times = arrivals(rates, process, seed)
    assert np.all(np.diff(times) >= 0)
    assert not len(times) or (times[0] >= 0 and times[-1] < duration_s)
    assert np.array_equal(times, arrivals(rates, process, seed))


def test_arrivals_follow_the_shape_and_come_in_bounded_chunks() -> None:
    rates = OnOff(on_qps=3000, off_qps=0, on_s=10, off_s=10, duration_s=40, random=False)
    chunks = list(arrival_times(rates, Poisson(), rng()))
    times = np.concatenate(chunks)
    assert max(map(len, chunks)) <= CHUNK
    counts = np.histogram(times, bins=4, range=(0, 40))[0]
    assert counts[[0, 2]] == pytest.approx([30_000, 30_000], rel=0.03)
    assert counts[[1, 3]].tolist() == [0, 0]
    assert len(arrivals(rates, seed=2)) != len(times)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flat(rate_qps=0, duration_s=1),
        lambda: Steady(low_qps=5, high_qps=4, duration_s=1),
        lambda: Diurnal(mean_qps=1, duration_s=1, swing=1.5),
        lambda: Gamma(variation=0),
        lambda: MarkovModulated(rates=Flat(rate_qps=1, duration_s=1), factors=(1.0,), stays_s=(1.0,)),
        lambda: Scaled(rates=Flat(rate_qps=1, duration_s=1), factor=float("nan")),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        make()
