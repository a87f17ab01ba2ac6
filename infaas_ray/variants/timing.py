"""Times batches of a loaded model, size after size in turn.

Rules: sizes take turns over several rounds, so that a disturbance from outside falls on all of them alike. A fast
model gets thousands of runs, enough for its p99.9; a slow one as many as fit the time, but at least five. Time in
which a thread was ready and another process had its processor is not the variant's: runs without such waiting count
alone where there are enough. Elsewhere the wait, which Linux tells per thread, is taken off one-thread variants; with
more it cannot be, because a thread that yields while it waits for its fellows waits in the same sense, and all runs
count as they are. What computes on a device (`threads` 0) does not wait so.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from infaas_ray.domain import Array, BatchLatency
from infaas_ray.variants.machine import Moment

_ROUNDS = 5
_WARM_UPS = 3
_LEAST_RUNS, _MOST_RUNS = 4, 1000  # per round
_ENOUGH_S, _TOO_LONG_S = 0.05, 0.3  # per round
_CALM_SHARE, _CALM_RUNS = 0.01, 20
_LEAST_LEFT = 0.02  # of a run, after the wait is taken off: a clock is never that wrong
_NS = 1e-9


class Predicts(Protocol):
    """What is timed."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch."""
        ...


class Run(NamedTuple):
    """Seconds that one run took, and those of them in which a thread waited for a processor."""

    took_s: float
    waited_s: float


class Waiting:
    """How long the threads of this process have waited for a processor, as far as the kernel tells.

    Threads of one computation wait at the same time, so what delays it is the longest wait, not the sum.
    """

    def __init__(self, threads: Sequence[int]) -> None:
        self._threads = threads
        self._last = [0] * len(threads)

    def now(self) -> list[int]:
        """Nanoseconds of each thread; a thread that has ended waits no more."""
        for i, thread in enumerate(self._threads):
            with contextlib.suppress(OSError, IndexError):
                self._last[i] = int(os.pread(thread, 64, 0).split()[1])
        return list(self._last)

    @classmethod
    @contextlib.contextmanager
    def of_this_process(cls) -> Iterator["Waiting"]:
        """The threads that there are now; none where the kernel does not tell."""
        opened: list[int] = []
        try:
            with contextlib.suppress(OSError):
                for place in Path("/proc/self/task").glob("*/schedstat"):
                    opened.append(os.open(place, os.O_RDONLY))  # noqa: PERF401 - a thread may end meanwhile
            yield cls(opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)


def batch_sizes(limit: int) -> list[int]:
    """The sizes that are timed, and compiled where that is done size by size: 1, 2, 4, 8 ... and the limit itself."""
    return sorted({min(1 << power, limit) for power in range(limit.bit_length() + 1)})


class Timed(NamedTuple):
    """Latency quantiles by batch size, and how many cores other processes kept busy meanwhile."""

    latencies: list[BatchLatency]
    outside_load: float


def time_batches(model: Predicts, sample: Mapping[str, Array], batches: Sequence[int], *, threads: int) -> Timed:
    """Time batches of rows repeated from `sample`; the model computes on so many `threads`, 0 where on a device."""
    inputs = {batch: first_rows(sample, batch) for batch in batches}
    runs: dict[int, list[Run]] = {batch: [] for batch in batches}
    for batch in batches:
        for _ in range(_WARM_UPS):
            model.predict(inputs[batch])
    before = Moment.now()
    with Waiting.of_this_process() as waiting:
        for _ in range(_ROUNDS):
            for batch in batches:
                runs[batch] += _round(model, inputs[batch], waiting)
    outside_load = before.outside_load(Moment.now())
    return Timed([quantiles(batch, runs[batch], threads=threads) for batch in batches], outside_load)


def first_rows(sample: Mapping[str, Array], count: int) -> dict[str, Array]:
    """`count` rows, repeated where the sample has fewer."""
    return {name: np.resize(array, (count, *array.shape[1:])) for name, array in sample.items()}


def quantiles(batch: int, runs: Sequence[Run], *, threads: int) -> BatchLatency:
    """The quantiles of what these runs took, as far as it can be told without what others caused."""
    taken = [x.took_s for x in runs if x.waited_s <= _CALM_SHARE * x.took_s]
    if len(taken) < _CALM_RUNS:
        taken = [max(x.took_s - x.waited_s, _LEAST_LEFT * x.took_s) if threads == 1 else x.took_s for x in runs]
    found = np.maximum.accumulate(np.percentile(taken, (50, 95, 99, 99.9)))
    p50, p95, p99, p999 = (float(x) for x in found)
    return BatchLatency(batch=batch, p50_s=p50, p95_s=p95, p99_s=p99, p999_s=p999, runs=len(taken))


def _round(model: Predicts, inputs: Mapping[str, Array], waiting: Waiting) -> list[Run]:
    runs: list[Run] = []
    spent_s = 0.0
    while not _enough(len(runs), spent_s):
        before = waiting.now()
        started = time.perf_counter()
        model.predict(inputs)
        took_s = time.perf_counter() - started
        waited = max((b - a for a, b in zip(before, waiting.now(), strict=True)), default=0)
        runs.append(Run(took_s, min(waited * _NS, took_s)))
        spent_s += took_s
    return runs


def _enough(runs: int, spent_s: float) -> bool:
    slow = runs >= 1 and spent_s >= _TOO_LONG_S
    return slow or runs >= _MOST_RUNS or (runs >= _LEAST_RUNS and spent_s >= _ENOUGH_S)
