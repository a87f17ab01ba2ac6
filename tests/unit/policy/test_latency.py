"""The curves that selection and batching share."""

import pytest

from infaas_ray.policy.latency import LatencyCurve
from tests.unit.policy.builders import profile

PROFILE = profile(p99_ms=((1, 10), (8, 24)), median=0.5)


def test_up_to_the_limit_it_is_the_p99_of_the_profile() -> None:
    curve = LatencyCurve(PROFILE, 8)
    assert [curve(rows) for rows in (1, 2, 8)] == pytest.approx([0.010, 0.012, 0.024])


def test_more_rows_run_as_full_batches() -> None:
    curve = LatencyCurve(PROFILE, 8)
    assert curve(9) == pytest.approx(2 * 0.024)
    assert curve(24) == pytest.approx(3 * 0.024)


def test_the_median_curve_is_that_of_the_p50() -> None:
    curve = LatencyCurve.median(PROFILE, 8)
    assert [curve(rows) for rows in (1, 8, 16)] == pytest.approx([0.005, 0.012, 0.024])


def test_asking_again_gives_the_same() -> None:
    curve = LatencyCurve(PROFILE, 8)
    assert curve(5) == curve(5) == PROFILE.latency_s(5)
