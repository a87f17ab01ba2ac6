"""The latency fit: exact on a line, honest about its error elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.domain import Accuracy, BatchLatency, Hardware, HardwareKind, LatencyFit, Profile
from infaas_ray.variants.latency_fit import fit_latency


def points(medians: dict[int, float]) -> list[BatchLatency]:
    return [BatchLatency(batch=b, p50_s=s, p95_s=s, p99_s=s) for b, s in medians.items()]


def profile(medians: dict[int, float], fit: LatencyFit | None) -> Profile:
    return Profile(
        variant="a@torch-fp32-cpu-t1-b16",
        hardware=Hardware(kind=HardwareKind.CPU, model="m", cores=1, memory_bytes=1),
        load_s=1.0,
        latencies=tuple(points(medians)),
        saturation_qps=1.0,
        peak_memory_bytes=1,
        accuracy=Accuracy(value=1.0, metric="top1_accuracy", rows=1, standard_error=0.0),
        fit=fit,
    )


@given(fixed=st.floats(1e-5, 1), per_row=st.floats(1e-6, 1))
def test_a_line_is_found_and_predicts_sizes_it_has_not_seen(fixed: float, per_row: float) -> None:
    medians = {b: fixed + per_row * b for b in (1, 2, 4, 8, 16)}
    fit = fit_latency(points(medians))
    assert fit is not None
    assert fit.p95_error < 1e-4
    made = profile(medians, fit)
    for batch in (3, 6, 11, 40):
        assert made.median_s(batch) == pytest.approx(fixed + per_row * batch, rel=1e-4)


def test_the_stated_error_is_that_of_leaving_a_size_out() -> None:
    fit = fit_latency(points({1: 1.0, 2: 2.0, 4: 8.0, 8: 8.0}))
    assert fit is not None
    # 2 lies on 1 to 4 at 10/3; 4 between 2 and 8 at 4; 8 on the line of the others.
    assert fit.p95_error >= 0.5
    assert fit.median_error == pytest.approx(0.5, abs=0.2)


def test_two_sizes_are_too_few() -> None:
    assert fit_latency(points({1: 1.0, 2: 2.0})) is None
    assert profile({1: 1.0, 2: 2.0}, None).median_s(4) == 4.0


@given(st.lists(st.floats(1e-6, 10), min_size=3, max_size=8))
def test_predictions_are_positive_and_never_below_the_last_measured_beyond_it(values: list[float]) -> None:
    medians = {1 << i: x for i, x in enumerate(values)}
    made = profile(medians, fit_latency(points(medians)))
    largest = 1 << (len(values) - 1)
    assert all(made.median_s(b) > 0 for b in range(1, 2 * largest))
    assert made.median_s(4 * largest) >= values[-1]
