"""Load that rises step by step: where it stops, and what a server does not get away with."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.live import steps
from benchmarks.live.steps import Climb, Climber, rate_qps
from benchmarks.serving.generator import MeasurementFailed


@pytest.fixture
def climber(monkeypatch: pytest.MonkeyPatch) -> Climber:
    """Asks nobody: a system holds below step 9, and breaks its connections at what is in `breaks`."""
    monkeypatch.setattr(steps.time, "sleep", lambda seconds: None)
    made: Any = Climber(SimpleNamespace(), [], 1.0, 0.0)  # type: ignore[arg-type]
    made.breaks = []

    def run(served: object, climb: Climb, repetition: int, step: int) -> Any:
        if step in made.breaks:
            made.breaks.remove(step)
            raise MeasurementFailed("the server broke 201 connections")
        return SimpleNamespace(attainment=1.0 if step < 9 else 0.5)

    made._run = run
    return made


def climbed(climber: Any, repetitions: int = 1) -> Climb:
    climb = Climb(system="it")
    for repetition in range(repetitions):
        climber.climb(None, climb, repetition)
    return climb


def test_the_last_step_that_holds_is_sustained(climber: Climber) -> None:
    climb = climbed(climber, repetitions=2)
    assert climb.sustained == [8, 8]
    assert climb.sustained_qps == [rate_qps(8)] * 2


def test_a_try_that_breaks_connections_is_made_once_more(climber: Any) -> None:
    climber.breaks = [4, 8]
    climb = climbed(climber)
    assert climb.sustained == [8]
    assert [x.partition(":")[0] for x in climb.failed] == ["at 73 queries/s", "at 107 queries/s"]


def test_a_server_that_breaks_them_again_does_not_hold(climber: Any) -> None:
    climb = Climb(system="it")
    climber.breaks = [3, 3]
    assert not climber._holds(None, climb, 0, 3)
    assert climber._holds(None, climb, 0, 3)


def test_a_server_that_keeps_breaking_them_is_not_measured(climber: Any) -> None:
    climber.breaks = [0] * 9
    with pytest.raises(MeasurementFailed):
        climbed(climber, repetitions=9)
