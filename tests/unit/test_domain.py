import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.domain import (
    SLO,
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
    WorkerType,
)
from infaas_ray.errors import InvalidInput


def profile(*latencies: tuple[int, float], qps: float = 100.0, memory: int = 2**30) -> Profile:
    return Profile(
        variant="a@fake-fp32-cpu-t1-b16",
        hardware=Hardware(kind=HardwareKind.CPU, model="test", cores=2, memory_bytes=2**33),
        load_s=1.0,
        latencies=tuple(BatchLatency(batch=b, p50_s=s, p95_s=s, p99_s=s) for b, s in latencies),
        saturation_qps=qps,
        peak_memory_bytes=memory,
        accuracy=Accuracy(value=0.9, metric="top1_accuracy", rows=100, standard_error=0.03),
    )


@pytest.mark.parametrize(
    "changes", [{"resources": {"CPU": -1.0}}, {"resources": {"CPU": math.nan}}, {"memory_bytes": -1}]
)
def test_a_machine_that_has_less_than_nothing_is_refused(changes: dict[str, Any]) -> None:
    known = {"name": "m", "resources": {"CPU": 4.0}, "memory_bytes": 2**34, "usd_per_hour": 0.36}
    with pytest.raises(InvalidInput, match=f"{next(iter(changes))}.* must be a number at least 0"):
        WorkerType(**known | changes)


def variant(**given: object) -> Variant:
    facts: dict[str, object] = {"architecture": "a", "runtime": "fake", "precision": "fp32", "artifact": "0" * 64}
    return Variant(**{**facts, **given})  # type: ignore[arg-type]


class TestNames:
    def test_use_case_and_variant_have_readable_names(self) -> None:
        assert UseCase(task="classify", dataset="digits").name == "classify:digits"
        assert variant(threads=2).name == "a@fake-fp32-cpu-t2-b16"

    @pytest.mark.parametrize("name", ["", "A", "a b", "../x", "-a", "a:b", "a@b", "x" * 101])
    def test_others_are_refused(self, name: str) -> None:
        with pytest.raises(InvalidInput, match="not a valid name"):
            UseCase(task=name, dataset="digits")

    def test_an_artifact_is_a_hash(self) -> None:
        with pytest.raises(InvalidInput, match="SHA-256"):
            variant(artifact="../../etc/passwd")


class TestSlo:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("latency_s", 0),
            ("latency_s", -1.0),
            ("latency_s", math.nan),
            ("latency_s", math.inf),
            ("latency_s", "fast"),
            ("latency_s", True),
            ("min_accuracy", 1.5),
            ("min_accuracy", -0.1),
            ("max_usd_per_1k", 0),
            ("max_usd_per_1k", -3),
        ],
    )
    def test_wrong_values_are_refused_by_name(self, field: str, value: object) -> None:
        with pytest.raises(InvalidInput, match=field.partition("_")[0]):
            SLO(**{field: value})  # type: ignore[arg-type]

    def test_anything_goes_by_default(self) -> None:
        assert SLO() == SLO(latency_s=None, min_accuracy=None, max_usd_per_1k=None)


class TestTensorSpec:
    spec = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 8, 8))

    def test_takes_any_batch(self) -> None:
        for rows in (1, 7):
            self.spec.check(np.zeros((rows, 1, 8, 8), np.float32))

    @pytest.mark.parametrize(
        ("array", "says"),
        [
            (np.zeros((1, 1, 8, 8), np.float64), "FP64, expected FP32"),
            (np.zeros((1, 8, 8), np.float32), r"expected \[-1, 1, 8, 8\]"),
            (np.zeros((1, 1, 8, 9), np.float32), r"expected \[-1, 1, 8, 8\]"),
            (np.zeros((0, 1, 8, 8), np.float32), "any length from 1"),
        ],
    )
    def test_says_what_would_be_right(self, array: np.ndarray, says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            self.spec.check(array)

    def test_the_batch_must_be_free(self) -> None:
        with pytest.raises(InvalidInput, match="batch"):
            TensorSpec(name="x", datatype="FP32", shape=(1, 4))

    def test_an_architecture_has_inputs_and_outputs(self) -> None:
        with pytest.raises(InvalidInput, match="at least one input"):
            Architecture(name="a", use_case=UseCase(task="t", dataset="d"), inputs=(), outputs=())


class TestProfile:
    def test_latency_is_linear_between_and_beyond_measured_batches(self) -> None:
        p = profile((1, 0.010), (4, 0.016), (8, 0.020))
        assert p.latency_s(1) == 0.010
        assert p.latency_s(4) == 0.016
        assert p.latency_s(6) == pytest.approx(0.018)
        assert p.latency_s(12) == pytest.approx(0.024)

    @given(st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=6), st.integers(1, 200))
    def test_latency_never_falls_with_the_batch_where_measurements_do_not(self, steps: list[float], batch: int) -> None:
        total, points = 0.0, []
        for index, step in enumerate(steps):
            total += step
            points.append((2**index, total))
        p = profile(*points)
        assert p.latency_s(batch + 1) >= p.latency_s(batch) > 0

    def test_batches_ascend_from_one(self) -> None:
        with pytest.raises(InvalidInput, match="from batch 1"):
            profile((2, 0.1))
        with pytest.raises(InvalidInput, match="must not decrease"):
            BatchLatency(batch=1, p50_s=0.2, p95_s=0.1, p99_s=0.3)


class TestPrice:
    worker = WorkerType(name="m", resources={"CPU": 4.0}, memory_bytes=2**34, usd_per_hour=0.36)

    def test_a_replica_pays_for_its_cores_while_saturated(self) -> None:
        # one of four cores at 0.36 USD/h is 0.09 USD/h = 2.5e-5 USD/s; at 100 rows/s 1,000 rows take 10 s
        assert self.worker.usd_per_1k(variant(), profile((1, 0.01))) == pytest.approx(2.5e-4)
        assert self.worker.usd_per_1k(variant(threads=2), profile((1, 0.01))) == pytest.approx(5e-4)

    def test_or_for_its_memory_where_that_is_more(self) -> None:
        assert self.worker.usd_per_1k(variant(), profile((1, 0.01), memory=2**33)) == pytest.approx(5e-4)

    def test_hardware_that_is_not_there_has_no_price(self) -> None:
        assert self.worker.usd_per_1k(variant(hardware=HardwareKind.GPU), profile((1, 0.01))) == math.inf
