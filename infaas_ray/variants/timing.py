"""Times batches of a loaded model, size after size in turn.

Rule: sizes take turns over several rounds, so that a disturbance from outside falls on all of them alike. A fast
model gets thousands of runs, enough for its p99.9; a slow one as many as fit the time, but at least five.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from infaas_ray.domain import Array, BatchLatency

_ROUNDS = 5
_WARM_UPS = 3
_LEAST_RUNS, _MOST_RUNS = 4, 1000  # per round
_ENOUGH_S, _TOO_LONG_S = 0.05, 0.5  # per round


class Predicts(Protocol):
    """What is timed."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch."""
        ...


def time_batches(model: Predicts, sample: Mapping[str, Array], batches: Sequence[int]) -> list[BatchLatency]:
    """Latency quantiles of each batch size, of rows repeated from `sample`."""
    inputs = {batch: first_rows(sample, batch) for batch in batches}
    runs: dict[int, list[float]] = {batch: [] for batch in batches}
    for batch in batches:
        for _ in range(_WARM_UPS):
            model.predict(inputs[batch])
    for _ in range(_ROUNDS):
        for batch in batches:
            runs[batch] += _round(model, inputs[batch])
    return [_quantiles(batch, runs[batch]) for batch in batches]


def first_rows(sample: Mapping[str, Array], count: int) -> dict[str, Array]:
    """`count` rows, repeated where the sample has fewer."""
    return {name: np.resize(array, (count, *array.shape[1:])) for name, array in sample.items()}


def _round(model: Predicts, inputs: Mapping[str, Array]) -> list[float]:
    runs: list[float] = []
    spent_s = 0.0
    while not _enough(len(runs), spent_s):
        started = time.perf_counter()
        model.predict(inputs)
        runs.append(time.perf_counter() - started)
        spent_s += runs[-1]
    return runs


def _enough(runs: int, spent_s: float) -> bool:
    slow = runs >= 1 and spent_s >= _TOO_LONG_S
    return slow or runs >= _MOST_RUNS or (runs >= _LEAST_RUNS and spent_s >= _ENOUGH_S)


def _quantiles(batch: int, runs: Sequence[float]) -> BatchLatency:
    found = np.maximum.accumulate(np.percentile(runs, (50, 95, 99, 99.9)))
    p50, p95, p99, p999 = (float(x) for x in found)
    return BatchLatency(batch=batch, p50_s=p50, p95_s=p95, p99_s=p99, p999_s=p999, runs=len(runs))
