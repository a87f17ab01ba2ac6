"""Load that rises in steps until objectives break.

Rates are 50 queries/s times powers of 1.1. A repetition rises step by step; a step holds when at least 99 % of all
its queries were answered on time at the asked accuracy. One that does not hold is tried a second time, because a
shared machine has hiccups; when it fails again, the step before is what the system sustains. The first repetition
finds the place in long strides; later ones begin shortly below it. A try in which the server breaks its connections
does not hold.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.live.cpu import cpu_times, used_s
from benchmarks.live.systems import Served
from benchmarks.live.traffic import QueryClass
from benchmarks.serving.generator import Generator, MeasurementFailed
from benchmarks.serving.load import Job, Outcome, Part

HOLDS = 0.99
_FIRST_QPS, _FACTOR = 50.0, 1.1
_STRIDE = 4  # steps at once while looking for the place
_BEFORE = 3  # steps below the place at which a repetition begins
_BEYOND = 6  # steps beyond it, for the picture
_CONNECTIONS = 256
_QUIET_S = 0.7
_MOST_FAILED, _RECOVERY_S = 3, 10.0  # tries of a system in which it breaks connections; what it gets to come round


def rate_qps(step: int) -> float:
    """The rate of a step."""
    return _FIRST_QPS * _FACTOR**step


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement at one step. `good` counts answers on time at the asked accuracy, `accuracy` sums theirs."""

    step: int
    repetition: int
    outcome: Outcome
    cpu_s: float
    good: int
    accuracy: float
    by_class: dict[str, float]  # share of good answers

    @property
    def attainment(self) -> float:
        """The share of all queries that was answered on time at the asked accuracy."""
        return self.good / max(1, self.outcome.offered)

    @property
    def effective_accuracy(self) -> float:
        """Accuracy of the answers on time, nothing for the others, over all queries."""
        return self.accuracy / max(1, self.outcome.offered)

    @property
    def cpu_s_per_1k(self) -> float:
        """Processor seconds for 1,000 answers that were good."""
        return 1e3 * self.cpu_s / max(1, self.good)


@dataclass(slots=True, kw_only=True)
class Climb:
    """What was measured of a system, and the step that each repetition sustained (-1: not even the first)."""

    system: str
    runs: list[Run] = field(default_factory=list)
    sustained: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # tries in which the server broke connections

    @property
    def sustained_qps(self) -> list[float]:
        """By repetition; 0 where not even the first step held."""
        return [rate_qps(x) if x >= 0 else 0.0 for x in self.sustained]

    def at(self, step: int) -> list[Run]:
        """All runs of a step."""
        return [x for x in self.runs if x.step == step]


class Climber:
    """Raises the load on systems."""

    def __init__(self, generator: Generator, asked: Sequence[QueryClass], seconds: float, warm_s: float) -> None:
        self._generator = generator
        self._least = {x.name: x.least_accuracy for x in asked}
        self._seconds = seconds
        self._warm_s = warm_s
        self._seed = 0

    def climb(self, served: Served, climb: Climb, repetition: int) -> None:
        """One repetition of a system, added to `climb`."""
        if not climb.sustained:
            place = self._rise(served, climb, repetition, 0, _STRIDE)
            place = self._rise(served, climb, repetition, place + 1, 1)
            climb.sustained.append(place)
            self._try(served, climb, repetition, max(0, place) + _BEYOND)
            return
        first = max(0, climb.sustained[0] - _BEFORE)
        place = self._rise(served, climb, repetition, first, 1)
        while place < first and first > 0:
            first = max(0, first - _BEFORE)
            place = self._rise(served, climb, repetition, first, 1)
        climb.sustained.append(place)

    def _rise(self, served: Served, climb: Climb, repetition: int, first: int, stride: int) -> int:
        """The last step that holds; `first` minus one where that does not."""
        step, last = first, first - 1
        while self._holds(served, climb, repetition, step):
            last = step
            step += stride
        return last

    def _holds(self, served: Served, climb: Climb, repetition: int, step: int) -> bool:
        tries = (self._try(served, climb, repetition, step) for _ in range(2))
        return any(x is not None and x.attainment >= HOLDS for x in tries)

    def _try(self, served: Served, climb: Climb, repetition: int, step: int) -> Run | None:
        """One measurement; None where the server broke its connections, which it may do seldom only."""
        try:
            return self._run(served, climb, repetition, step)
        except MeasurementFailed as error:
            climb.failed.append(f"at {rate_qps(step):.0f} queries/s: {error}")
            if len(climb.failed) > _MOST_FAILED:
                raise
            time.sleep(_RECOVERY_S)
            return None

    def _run(self, served: Served, climb: Climb, repetition: int, step: int) -> Run:
        self._seed += 1
        asked = served.asked
        job = Job(
            host=served.host,
            port=served.port,
            requests=asked.requests,
            connections=_CONNECTIONS,
            seconds=self._seconds,
            warm_s=self._warm_s,
            rate=rate_qps(step),
            bounds_s=asked.bounds_s,
            classes=asked.classes,
            seed=self._seed,
        )
        before, began = cpu_times(served.pid), time.monotonic()
        outcome = self._generator.measure(job)
        cpu_s, took_s = used_s(before, cpu_times(served.pid)), time.monotonic() - began
        run = _run_of(served, self._least, step, repetition, outcome, cpu_s * self._seconds / took_s)
        climb.runs.append(run)
        time.sleep(_QUIET_S)
        return run


def _run_of(served: Served, least: dict[str, float], step: int, repetition: int, outcome: Outcome, cpu_s: float) -> Run:
    by_class: dict[str, float] = {}
    good, accuracy = 0, 0.0
    for name, part in outcome.parts.items():
        fine = {x: n for x, n in _answers(served, part).items() if served.accuracies[x] >= least[name]}
        by_class[name] = sum(fine.values()) / max(1, part.offered)
        good += sum(fine.values())
        accuracy += sum(served.accuracies[x] * n for x, n in fine.items())
    return Run(
        step=step,
        repetition=repetition,
        outcome=outcome,
        cpu_s=cpu_s,
        good=good,
        accuracy=accuracy,
        by_class=by_class,
    )


def _answers(served: Served, part: Part) -> dict[str, int]:
    """Answers on time by variant."""
    return {served.variant: part.on_time} if served.variant else part.variants
