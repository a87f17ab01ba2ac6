"""What demand is expected."""

from collections.abc import Callable

import numpy as np
import pytest

from infaas_ray.policy.forecast import Forecast


def run(rate: Callable[[float], float], seconds: int, *, quantile: float = 0.95, seed: int = 0) -> Forecast:
    """A forecast that has seen Poisson arrivals at `rate` for so long."""
    forecast = Forecast(quantile, 0.0)
    rng = np.random.default_rng(seed)
    for second in range(seconds):
        forecast.add(float(rng.poisson(rate(second))), second + 0.5)
    forecast.advance(float(seconds))
    return forecast


def test_flat_demand_is_expected_to_stay() -> None:
    forecast = run(lambda _: 100.0, 600)
    assert forecast.expect(600.0, 30.0) == pytest.approx(110, rel=0.15)


def test_rising_demand_is_expected_to_rise() -> None:
    forecast = run(lambda t: 2.0 * t, 300)
    assert 640 < forecast.expect(300.0, 30.0) < 800


def test_falling_demand_is_not_expected_below_what_is_now() -> None:
    forecast = run(lambda t: max(0.0, 300.0 - t), 200)
    assert forecast.expect(200.0, 60.0) >= 95


def test_silence_forgets() -> None:
    forecast = run(lambda _: 100.0, 60)
    forecast.advance(200.0)
    assert forecast.rate_qps < 0.05
    assert forecast.expect(200.0, 10.0) < 1.0
    assert forecast.last_seen == 59.5


def test_a_long_silence_is_no_work() -> None:
    forecast = run(lambda _: 100.0, 60)
    forecast.advance(1e9)
    assert forecast.rate_qps == pytest.approx(0.0, abs=1e-6)


def test_chance_in_rare_queries_is_not_taken_for_demand() -> None:
    rates = [run(lambda _: 0.4, 600, seed=seed).rate_qps for seed in range(20)]
    assert max(rates) < 2 * 0.4
    assert np.std(rates) < 0.12


@pytest.mark.parametrize("before", [0.4, 100.0])
def test_a_burst_is_seen_within_seconds(before: float) -> None:
    forecast = run(lambda t: before if t < 300 else 10 * before + 5, 306)
    assert forecast.rate_qps > 0.6 * (10 * before + 5)


def test_what_surged_twice_is_expected_again() -> None:
    def on_off(t: float) -> float:
        return 200.0 if t % 180 >= 120 else 5.0

    assert run(on_off, 240).expect(240.0, 30.0) < 60  # once was not enough
    assert run(on_off, 480).expect(480.0, 30.0) > 150
    forgotten = run(lambda t: on_off(t) if t < 480 else 5.0, 480 + 16 * 60)
    assert forgotten.expect(480 + 16 * 60.0, 30.0) < 15


def test_queries_of_many_rows_vary_more_and_that_is_learned() -> None:
    alone = run(lambda _: 50.0, 900)
    forecast, rng = Forecast(0.95, 0.0), np.random.default_rng(2)
    for second in range(900):
        forecast.add(32.0 * rng.poisson(3.0), second + 0.5)
    forecast.advance(900.0)
    assert alone.dispersion < 1.3
    assert forecast.dispersion == pytest.approx(32, rel=0.4)
    assert forecast.rate_qps == pytest.approx(96, rel=0.35)
