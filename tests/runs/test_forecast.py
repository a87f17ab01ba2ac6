"""What demand is expected, learned over days and from thousands of moments."""

import numpy as np
import pytest

from infaas_ray.policy.forecast import SLOT_S, Forecast


def daily(t: float) -> float:
    """Nothing, and a step up at the same time of each day."""
    return 100.0 if t % 86_400 >= 10 * SLOT_S else 10.0


def test_the_time_of_day_is_remembered() -> None:
    forecast = Forecast(0.95, 0.0)
    for second in range(86_400 + int(9.5 * SLOT_S)):
        forecast.add(daily(second), second + 0.5)
    now = 86_400 + 9.5 * SLOT_S
    assert forecast.expect(now, 0.1 * SLOT_S) < 15
    assert forecast.expect(now, SLOT_S) >= 20


@pytest.mark.parametrize("quantile", [0.8, 0.95])
def test_the_margin_covers_the_share_of_moments_that_it_should(quantile: float) -> None:
    """A noisy rate with bursts: how often it exceeds what was expected for it."""
    rng = np.random.default_rng(1)
    forecast, expected, exceeded, judged = Forecast(quantile, 0.0), {}, 0, 0
    level = 300.0
    for second in range(6000):
        level = 300.0 + 0.98 * (level - 300.0) + rng.normal(0, 8)
        forecast.add(float(rng.poisson(max(0.0, level))), second + 0.5)
        forecast.advance(second + 1.0)
        expected[second + 20] = forecast.expect(second + 1.0, 20.0)
        if second >= 1000 and second in expected:
            judged += 1
            exceeded += forecast.rate_qps > expected[second]
    assert exceeded / judged == pytest.approx(1 - quantile, abs=0.05)
