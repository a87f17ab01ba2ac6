import pytest

from benchmarks.serving.driver import DriverRates
from benchmarks.serving.http import Measured
from benchmarks.serving.load import Outcome, Times
from benchmarks.serving.numbers import driver_numbers, http_numbers, http_table, open_numbers, open_table
from benchmarks.serving.open_loop import FRACTIONS, OpenLoop
from benchmarks.serving.servers import RAY_SERVE


def measured(workload: str, **at_64: float) -> Measured:
    """Doors with that many answers per second at 64 connections; underscores stand for spaces."""
    found = Measured(workload=workload)
    for name, rate in at_64.items():
        for connections in (1, 8, 64):
            key = name.replace("_", " "), connections
            found.rate[key] = [rate * 0.9, rate, rate * 1.1]
            found.p50_ms[key] = found.p99_ms[key] = [1000 / rate] * 3
    return found


def outcome(*, on_time: int, offered: int) -> Outcome:
    return Outcome(
        seconds=10.0,
        offered=offered,
        on_time=on_time,
        late=0,
        refused=offered - on_time,
        failed=0,
        false_on_time=0,
        statuses={},
        answers=Times(),
        refusals=Times(),
        lateness=Times(),
        bodies=[],
    )


def test_noop_compares_the_better_door_with_ray_serve_and_the_best_other() -> None:
    found = measured("noop", ours_slow=1000.0, ours_fast=4000.0, Ray_Serve=100.0, A=1000.0, B=2000.0)
    numbers = http_numbers(found)
    assert {k: v.median for k, v in numbers.items()} == pytest.approx(
        {"noop_vs_ray_serve": 40.0, "noop_p50_vs_ray_serve": 0.025, "noop_vs_best_other": 2.0}
    )


def test_a_number_whose_peer_is_absent_is_not_there() -> None:
    assert http_numbers(measured("noop", ours=1000.0)) == {}
    assert set(http_numbers(measured("noop", ours=1000.0, A=10.0))) == {"noop_vs_best_other"}
    assert http_numbers(measured("digits", ours=1000.0)) == {}


def test_digits_compares_with_every_peer() -> None:
    found = measured("digits", ours=3000.0, Ray_Serve=2000.0, A=1000.0)
    assert http_numbers(found)["digits_vs_best_peer"].median == pytest.approx(1.5)
    assert RAY_SERVE in found.doors


def test_minilm_compares_with_the_floor() -> None:
    found = measured("minilm", ours=100.0)
    found.alone = {"ours": [190.0, 190.0, 210.0]}
    found.floor = [200.0, 200.0, 200.0]
    assert http_numbers(found)["minilm_share_of_floor"].median == pytest.approx(0.95)


def test_the_driver_compares_with_plain_calls() -> None:
    rates = DriverRates(ours={"small": [20.0], "large": [5.0]}, ray={"small": [2.0], "large": [1.0]})
    assert {k: v.median for k, v in driver_numbers(rates).items()} == {
        "driver_vs_ray_calls": 10.0,
        "arrays_vs_ray_calls": 5.0,
    }


def test_open_loop_takes_on_time_of_all_offered_and_goodput_of_capacity() -> None:
    found = OpenLoop(workload="minilm", bounds_ms=[10.0], capacity={"ours": [100.0]})
    for fraction, on_time in zip(FRACTIONS, (500, 796, 950), strict=True):
        found.outcomes["ours", fraction] = [outcome(on_time=on_time, offered=round(1000 * fraction))]
    numbers = open_numbers(found)
    assert numbers["on_time_at_80"].median == pytest.approx(0.995)
    assert numbers["goodput_at_3x"].median == pytest.approx(0.95)
    assert "ours" in open_table(found)


def test_the_table_says_who_is_missing_and_why() -> None:
    found = measured("noop", ours=1000.0)
    found.absent["A"] = "it is not installed"
    assert "Left out: A: it is not installed" in http_table(found)


def test_a_door_that_is_dropped_leaves_no_number_behind() -> None:
    found = measured("noop", ours=1000.0, Ray_Serve=100.0, A=500.0)
    found.drop("A", "it broke down")
    assert found.doors == ["ours", "Ray Serve"]
    assert "noop_vs_best_other" not in http_numbers(found)
    assert "Left out: A: it broke down" in http_table(found)
