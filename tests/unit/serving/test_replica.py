import asyncio
import threading
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
from infaas_ray.errors import DeadlineExceeded, InfaasError, ReplicaLost, Unavailable, VariantFailed
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


class UntoldError(Exception):
    """One that cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Model:
    """Doubles its input; fails on rows that start with a negative number; remembers the batches it saw.

    `computing` is told of each batch; `third` is set when it has seen three.
    """

    def __init__(self, computing: Callable[[], None]) -> None:
        self.batches: list[int] = []
        self.third = threading.Event()
        self.computing = computing
        self.closed = False

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        self.batches.append(len(x))
        if len(self.batches) == 3:
            self.third.set()
        self.computing()
        if x[0, 0] < 0:
            raise RuntimeError("negative")
        if x[0, 0] == 14:
            raise UntoldError
        if x[0, 0] == 15:
            return {"x": [1.0] * len(x)}  # type: ignore[dict-item]
        return {"x": x[:-1] * 2} if x[0, 0] == 13 else {"x": x * 2}

    def close(self) -> None:
        self.closed = True


def assert_set(event: threading.Event) -> None:
    assert event.wait(10.0)


class Bench:
    """A replica and what came out of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes_s = 0.0
        self.model = Model(self._compute)
        executor = ThreadPoolExecutor(1)
        self.replica = Replica(self.model, VARIANT, ARCHITECTURE, PROFILE, executor, clock=lambda: self.now)
        self.fates: dict[int, list[Result | InfaasError]] = {}

    def submit(self, number: int, rows: int = 1, remaining_s: float | None = None) -> int:
        x = np.full((rows, 2), number, np.float32)
        fate = self.fates.setdefault(number, [])
        return self.replica.submit({"x": x}, rows, remaining_s, fate.append)

    def _compute(self) -> None:
        self.now += self.takes_s

    def fate(self, number: int) -> Result | InfaasError:
        (fate,) = self.fates[number]
        return fate


@pytest.fixture
async def bench() -> Bench:
    return Bench()


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
    assert bench.replica.counts == {"answered": 1, "expired": 1, "failed": 0, "cancelled": 0, "batches": 1}


async def test_who_has_gone_is_let_go_while_it_waits(bench: Bench) -> None:
    began, release = threading.Event(), threading.Event()
    bench.model.computing = lambda: (began.set(), assert_set(release))[1]
    runs = bench.submit(1)
    await asyncio.to_thread(assert_set, began)
    waits, stays = bench.submit(2), bench.submit(3)
    for number in (runs, waits, waits, stays + 1):  # what runs, what has left, and what never was, is left alone
        bench.replica.cancel(number)
    assert isinstance(bench.fate(2), Unavailable)
    release.set()
    await bench.replica.drain()
    assert isinstance(bench.fate(1), Result)
    assert isinstance(bench.fate(3), Result)
    assert bench.model.batches == [1, 1]
    assert bench.replica.counts == {"answered": 2, "expired": 0, "failed": 0, "cancelled": 1, "batches": 2}


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (-1, "failed: RuntimeError: negative"),
        (13, "should be an array of 2 rows, got (1, 2)"),
        (14, "failed: UntoldError"),
        (15, "should be an array of 2 rows, got list"),
    ],
)
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
    assert bench.model.third.wait(10.0)  # on the event loop, which stands
    assert bench.model.batches == [4, 4, 4]
    await bench.replica.drain()
    results = [bench.fate(x) for x in range(1, 4)]
    assert [x.queued_rows for x in results if isinstance(x, Result)] == [8, 4, 0]


async def test_what_expires_while_a_batch_computes_leaves_after_it(bench: Bench) -> None:
    bench.takes_s = 1.0
    bench.submit(1, rows=4, remaining_s=1.2)
    bench.submit(2, rows=4, remaining_s=1.5)
    bench.submit(3, rows=4, remaining_s=1.6)
    await bench.replica.drain()
    answered = bench.fate(2)
    assert isinstance(answered, Result)
    assert (answered.queue_s, answered.compute_s) == (1.0, 1.0)
    assert isinstance(bench.fate(3), DeadlineExceeded)
    assert bench.replica.counts == {"answered": 2, "expired": 1, "failed": 0, "cancelled": 0, "batches": 2}


async def test_a_result_that_cannot_be_told_takes_no_other_with_it(bench: Bench) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    error = AttributeError("nobody listens")

    def fails(result: Result | InfaasError) -> None:
        raise error

    bench.submit(1)
    bench.replica.submit({"x": np.zeros((1, 2), np.float32)}, 1, None, fails)
    bench.submit(2)
    await bench.replica.drain()
    assert isinstance(bench.fate(1), Result)
    assert isinstance(bench.fate(2), Result)
    assert reported == [error]


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
