import dataclasses

import numpy as np
import pytest

from infaas_ray.domain import BatchLatency
from infaas_ray.policy.routing import Offer
from infaas_ray.simulator.jitter import ProfiledTimes, exponentials, normals
from tests.unit.policy.builders import offer


def with_latencies(*latencies: BatchLatency) -> Offer:
    made = offer(batch_limit=8)
    return dataclasses.replace(made, profile=dataclasses.replace(made.profile, latencies=latencies))


POINT = BatchLatency(batch=1, p50_s=0.010, p95_s=0.012, p99_s=0.020, p999_s=0.050, runs=1000)


def draws(times: ProfiledTimes, rows: int, count: int = 40_000) -> np.ndarray:
    return np.array([times.draw(rows) for _ in range(count)])


def test_drawn_times_have_the_quantiles_of_the_profile() -> None:
    found = draws(ProfiledTimes(with_latencies(POINT), normals(np.random.default_rng(1))), 1)
    for share, expected in ((0.5, 0.010), (0.95, 0.012), (0.99, 0.020)):
        assert np.quantile(found, share) == pytest.approx(expected, rel=0.02)
    assert np.quantile(found, 0.999) == pytest.approx(0.050, rel=0.2)


def test_a_profile_without_spread_gives_its_median_always() -> None:
    flat = with_latencies(BatchLatency(batch=1, p50_s=0.01, p95_s=0.01, p99_s=0.01))
    assert set(draws(ProfiledTimes(flat, normals(np.random.default_rng(1))), 1, 100)) == {0.01}


def test_between_measured_sizes_the_spread_is_between_theirs() -> None:
    wide = BatchLatency(batch=8, p50_s=0.040, p95_s=0.160, p99_s=0.160)
    narrow = BatchLatency(batch=1, p50_s=0.010, p95_s=0.010, p99_s=0.010)
    found = draws(ProfiledTimes(with_latencies(narrow, wide), normals(np.random.default_rng(2))), 2, 20_000)
    median_s = 0.010 + (0.040 - 0.010) / 7
    assert np.median(found) == pytest.approx(median_s, rel=0.01)
    assert np.quantile(found, 0.95) / median_s == pytest.approx(4 ** (1 / 7), rel=0.02)


def test_more_rows_than_the_limit_run_as_several_batches() -> None:
    flat = with_latencies(*(BatchLatency(batch=b, p50_s=ms, p95_s=ms, p99_s=ms) for b, ms in ((1, 0.01), (8, 0.04))))
    assert ProfiledTimes(flat, normals(np.random.default_rng(1))).draw(17) == pytest.approx(0.04 + 0.04 + 0.01)


def test_exponential_draws_have_mean_one() -> None:
    found = exponentials(np.random.default_rng(3))
    assert np.mean([next(found) for _ in range(20_000)]) == pytest.approx(1.0, rel=0.03)
