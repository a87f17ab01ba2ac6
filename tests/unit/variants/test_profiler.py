"""Timing of batches, the judging of answers, and the making of a profile."""

from pathlib import Path

import numpy as np
import pytest

from infaas_ray.domain import (
    Accuracy,
    AccuracySource,
    Array,
    BatchLatency,
    Hardware,
    HardwareKind,
    Variant,
)
from infaas_ray.errors import InvalidModel, Refused
from infaas_ray.variants.machine import hardware
from infaas_ray.variants.profile_job import Measured
from infaas_ray.variants.profiler import ACTOR_BYTES, Judge, lay_out, profile_of
from infaas_ray.variants.timing import batch_sizes
from infaas_ray.variants.validation import ValidationSet

ROWS, CALIBRATION = 40, 10
LABELS = np.arange(ROWS) % 4
RIGHT = np.eye(4, dtype=np.float32)[LABELS]  # logits that are right for every row


def validation(labels: Array | None = LABELS) -> ValidationSet:
    return ValidationSet(
        inputs={"x": RIGHT}, labels=labels, calibration=np.arange(CALIBRATION), scoring=np.arange(CALIBRATION, ROWS)
    )


def judge(folder: Path, declared: float | None = None, labels: Array | None = LABELS) -> Judge:
    bench = lay_out(folder, validation(labels), batch_limit=8, limit_s=1.0)
    return Judge(bench, metric="top1_accuracy", min_fidelity=0.98, declared=declared)


def test_this_machine_is_described() -> None:
    found = hardware(HardwareKind.CPU)
    assert found.model
    assert found.cores >= 1
    assert found.memory_bytes > 1 << 28


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1]), (2, [1, 2]), (16, [1, 2, 4, 8, 16]), (12, [1, 2, 4, 8, 12]), (3, [1, 2, 3])]
)
def test_batch_sizes_double_up_to_the_limit(limit: int, sizes: list[int]) -> None:
    assert batch_sizes(limit) == sizes


def test_the_bench_lays_out_calibration_before_scoring(tmp_path: Path) -> None:
    bench = lay_out(tmp_path, validation(), batch_limit=8, limit_s=1.0)
    with np.load(bench.rows) as rows, np.load(bench.sample) as sample:
        assert np.array_equal(rows["x"], RIGHT)
        assert np.array_equal(sample["x"], RIGHT[CALIBRATION : CALIBRATION + 8])
    assert bench.calibration is not None


def test_accuracy_is_that_of_the_scoring_rows(tmp_path: Path) -> None:
    answers = RIGHT.copy()
    answers[:CALIBRATION] = RIGHT[1 : CALIBRATION + 1]  # wrong, but not scored
    answers[-3:] = RIGHT[-4:-1]
    found = judge(tmp_path).judge(answers, fp32=True)
    assert (found.value, found.rows, found.source) == (0.9, 30, AccuracySource.MEASURED)


def test_the_first_fp32_answers_are_the_reference_and_unlike_ones_are_refused(tmp_path: Path) -> None:
    court = judge(tmp_path)
    court.judge(RIGHT, fp32=True)
    near = court.judge(RIGHT + np.float32(0.01), fp32=False)
    assert near.value == 1.0
    assert near.fidelity is not None
    assert 0.99 < near.fidelity < 1
    with pytest.raises(Refused, match=r"mean cosine .* below the bound of 0\.98"):
        court.judge(RIGHT[::-1], fp32=False)


def test_nothing_is_accepted_without_a_reference_or_with_nan(tmp_path: Path) -> None:
    court = judge(tmp_path)
    with pytest.raises(InvalidModel, match="no fp32 variant"):
        court.judge(RIGHT, fp32=False)
    with pytest.raises(InvalidModel, match="finite"):
        court.judge(RIGHT * np.nan, fp32=True)
    assert court.reference is None


def test_declared_accuracy_is_marked(tmp_path: Path) -> None:
    found = judge(tmp_path, declared=0.7, labels=None).judge(RIGHT, fp32=True)
    assert (found.value, found.source, found.rows) == (0.7, AccuracySource.DECLARED, 0)


def test_a_profile_sums_load_and_first_call_and_takes_the_best_rate() -> None:
    variant = Variant(architecture="a", runtime="torch", precision="fp32", artifact="0" * 64)
    measured = Measured(
        load_s=1.0,
        first_call_s=0.5,
        warm_load_s=0.25,
        latencies=[
            BatchLatency(batch=1, p50_s=0.1, p95_s=0.1, p99_s=0.1),
            BatchLatency(batch=2, p50_s=0.1, p95_s=0.1, p99_s=0.2),
            BatchLatency(batch=4, p50_s=0.4, p95_s=0.4, p99_s=0.4),
        ],
        baseline_memory_bytes=2,
        peak_memory_bytes=5,
        peak_device_memory_bytes=7,
        outside_load=0.1,
        versions={"torch": "2"},
        hardware=Hardware(kind=HardwareKind.CPU, model="m", cores=1, memory_bytes=1),
    )
    accuracy = Accuracy(value=0.5, metric="top1_accuracy", rows=1, standard_error=0.1)
    found = profile_of(variant, measured, accuracy)
    assert (found.load_s, found.variant) == (1.5, variant.name)
    assert (found.warm_load_s, found.peak_device_memory_bytes) == (0.25, 7)
    assert (found.baseline_memory_bytes, found.peak_memory_bytes) == (ACTOR_BYTES, ACTOR_BYTES + 3)
    assert found.fit is not None
    assert found.saturation_qps == pytest.approx(20.0)
