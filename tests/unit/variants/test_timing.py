"""Timing of batches: bounded in runs and time, all sizes in turn."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from infaas_ray.domain import Array
from infaas_ray.variants import timing
from infaas_ray.variants.timing import Run, Waiting, first_rows, quantiles, time_batches

SAMPLE = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}


@pytest.fixture(autouse=True)
def _undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waiting, "now", lambda self: [])


class Counting:
    """A model that takes stated times, some twice or thrice that."""

    def __init__(self, clock: list[float], took_s: float) -> None:
        self.clock, self.took_s = clock, took_s
        self.sizes: list[int] = []

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.sizes.append(len(inputs["x"]))
        self.clock[0] += self.took_s * (1 + len(self.sizes) % 3)
        return dict(inputs)


@pytest.mark.parametrize(("took_s", "runs"), [(1e-6, 5000), (0.005, 25), (0.02, 20), (2.0, 5)])
def test_timing_is_bounded_in_runs_and_time(monkeypatch: pytest.MonkeyPatch, took_s: float, runs: int) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    model = Counting(clock, took_s)
    [found], _ = time_batches(model, SAMPLE, [40], threads=1)
    assert found.p999_s is not None
    assert took_s <= found.p50_s <= found.p95_s <= found.p99_s <= found.p999_s <= took_s * 3 + 1e-9
    assert found.batch == 40
    assert found.runs == len(model.sizes) - 3
    assert abs(found.runs - runs) <= 5


def test_sizes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    model = Counting(clock, 0.1)
    assert [x.batch for x in time_batches(model, SAMPLE, [1, 4], threads=1).latencies] == [1, 4]
    timed = model.sizes[6:]
    changes = sum(a != b for a, b in itertools.pairwise(timed))
    assert changes == 9  # five rounds of both


def test_rows_are_repeated_where_the_sample_is_short() -> None:
    assert first_rows(SAMPLE, 2)["x"].tolist() == [[0, 1], [2, 3]]
    assert first_rows(SAMPLE, 4)["x"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]


def test_runs_in_which_others_held_the_processor_do_not_count_where_enough_others_do() -> None:
    runs = [Run(1.0, 0.0)] * 20 + [Run(9.0, 0.5)] * 100
    found = quantiles(4, runs, threads=1)
    assert (found.p50_s, found.p999_s, found.runs) == (1.0, 1.0, 20)


def test_where_all_runs_were_disturbed_the_wait_is_taken_off() -> None:
    found = quantiles(4, [Run(3.0, 2.0), Run(1.5, 0.5), Run(2.0, 1.0)], threads=1)
    assert (found.p50_s, found.p99_s, found.runs) == (1.0, 1.0, 3)
    assert quantiles(4, [Run(3.0, 3.0)], threads=1).p50_s == pytest.approx(0.06)


def test_the_wait_of_several_threads_may_be_for_each_other_and_stays() -> None:
    assert quantiles(4, [Run(3.0, 2.0)], threads=2).p50_s == 3.0


def test_the_kernel_tells_of_this_processs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with Waiting.of_this_process() as waiting:
        assert all(x >= 0 for x in waiting.now())


def test_a_thread_that_ends_meanwhile_waits_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    (tmp_path / "schedstat").write_text("5 70 1")
    (tmp_path / "ended").write_text("")
    with (tmp_path / "schedstat").open() as living, (tmp_path / "ended").open() as ended:
        waiting = Waiting([living.fileno(), ended.fileno(), 10**6])
        assert waiting.now() == [70, 0, 0]


def test_what_computes_on_a_device_waits_for_no_processor() -> None:
    assert quantiles(4, [Run(3.0, 2.0)], threads=0).p50_s == 3.0
