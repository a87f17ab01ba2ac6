import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from infaas_ray.domain import (
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
)
from infaas_ray.errors import DeadlineExceeded, InfaasError, ReplicaLost, VariantFailed
from infaas_ray.serving.replica import Replica, Result

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
ARCHITECTURE = Architecture(name="a", use_case=UseCase(task="t", dataset="d"), inputs=(X,), outputs=(X,))
VARIANT = Variant(architecture="a", runtime="fake", precision="fp32", batch_limit=4, artifact="0" * 64)
PROFILE = Profile(
    variant=VARIANT.name,
    hardware=Hardware(kind=HardwareKind.CPU, model="test", cores=1, memory_bytes=1),
    load_s=0.0,
    latencies=(BatchLatency(batch=1, p50_s=0.001, p95_s=0.001, p99_s=0.001),),
    saturation_qps=1000.0,
    peak_memory_bytes=1,
    accuracy=Accuracy(value=0.5, metric="top1_accuracy", rows=1, standard_error=0.5),
)


class Model:
    """Doubles its input; fails on rows that start with a negative number; remembers the batches it saw."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.closed = False

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        self.batches.append(len(x))
        if x[0, 0] < 0:
            raise RuntimeError("negative")
        return {"x": x[:-1] * 2} if x[0, 0] == 13 else {"x": x * 2}

    def close(self) -> None:
        self.closed = True


class Bench:
    """A replica and what came out of it."""

    def __init__(self) -> None:
        self.model = Model()
        self.now = 0.0
        executor = ThreadPoolExecutor(1)
        self.replica = Replica(self.model, VARIANT, ARCHITECTURE, PROFILE, executor, clock=lambda: self.now)
        self.fates: dict[int, list[Result | InfaasError]] = {}

    def submit(self, number: int, rows: int = 1, remaining_s: float | None = None) -> None:
        x = np.full((rows, 2), number, np.float32)
        fate = self.fates.setdefault(number, [])
        self.replica.submit({"x": x}, rows, remaining_s, fate.append)

    def fate(self, number: int) -> Result | InfaasError:
        (fate,) = self.fates[number]
        return fate


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def _stand_until(happened: Callable[[], bool]) -> None:
    """Keep the event loop standing until then, ten seconds at most."""
    end = time.monotonic() + 10.0
    while not happened() and time.monotonic() < end:
        time.sleep(0.001)


async def test_queries_that_wait_together_run_together_and_get_their_own_rows(bench: Bench) -> None:
    for number in range(1, 6):
        bench.submit(number, rows=1 + number % 2)
    await bench.replica.drain()
    for number in range(1, 6):
        result = bench.fate(number)
        assert isinstance(result, Result)
        np.testing.assert_array_equal(result.outputs["x"], np.full((1 + number % 2, 2), 2 * number))
    assert len(bench.model.batches) < 5
    assert max(bench.model.batches) <= VARIANT.batch_limit
    assert bench.replica.counts["answered"] == 5


async def test_a_query_beyond_the_batch_limit_is_cut_and_joined(bench: Bench) -> None:
    bench.submit(3, rows=11)
    await bench.replica.drain()
    result = bench.fate(3)
    assert isinstance(result, Result)
    assert result.outputs["x"].shape == (11, 2)
    assert bench.model.batches == [4, 4, 3]


async def test_what_cannot_be_in_time_expires_and_costs_no_compute(bench: Bench) -> None:
    bench.submit(1)
    bench.submit(2, remaining_s=0.0005)
    await bench.replica.drain()
    assert isinstance(bench.fate(1), Result)
    assert isinstance(bench.fate(2), DeadlineExceeded)
    assert bench.model.batches == [1]
    assert bench.replica.counts == {"answered": 1, "expired": 1, "failed": 0, "batches": 1}


@pytest.mark.parametrize(("number", "says"), [(-1, "negative"), (13, "should have 2 rows")])
async def test_a_failing_model_fails_its_batch_and_the_next_is_answered(bench: Bench, number: int, says: str) -> None:
    bench.submit(number, rows=2)
    await asyncio.sleep(0)
    bench.submit(5, rows=4)
    await bench.replica.drain()
    error = bench.fate(number)
    assert isinstance(error, VariantFailed)
    assert says in error.message
    assert isinstance(bench.fate(5), Result)


async def test_a_draining_replica_finishes_and_refuses_the_rest_as_lost(bench: Bench) -> None:
    bench.submit(1)
    closing = asyncio.create_task(bench.replica.close())
    await asyncio.sleep(0)
    bench.submit(2)
    await closing
    assert isinstance(bench.fate(1), Result)
    assert isinstance(bench.fate(2), ReplicaLost)
    assert bench.model.closed


async def test_the_next_batch_does_not_wait_for_the_event_loop(bench: Bench) -> None:
    for number in range(1, 4):
        bench.submit(number, rows=4)
    await asyncio.sleep(0)  # the first batch is handed to the model's thread
    _stand_until(lambda: len(bench.model.batches) == 3)
    assert bench.model.batches == [4, 4, 4]
    assert bench.fates == {1: [], 2: [], 3: []}
    await bench.replica.drain()
    assert all(isinstance(bench.fate(x), Result) for x in range(1, 4))


async def test_every_query_leaves_once(bench: Bench) -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        bench.submit(number, int(rng.integers(1, 7)), float(rng.choice([0.0001, 0.01, 5.0])))
        bench.now += 0.0003
        if number % 7 == 0:
            await asyncio.sleep(0)
    await bench.replica.drain()
    assert all(len(fates) == 1 for fates in bench.fates.values())
    counts = bench.replica.counts
    assert counts["answered"] + counts["expired"] + counts["failed"] == 200
