"""Rates from reports."""

import pytest

from infaas_ray.policy.traffic import SILENT_S, Traffic
from tests.unit.policy.builders import traffic


def steady(rate: int, seconds: int, made: Traffic | None = None, start: int = 0, router: str = "r") -> Traffic:
    made = made or Traffic(3.0)
    for second in range(start, start + seconds):
        made.report(traffic({"v": rate}, refused={"v": rate // 10}, router=router), float(second))
    return made


def test_a_steady_rate_is_found() -> None:
    demand = steady(50, 30).demand("v")
    assert (demand.wanted_qps, demand.served_qps, demand.refused_qps) == pytest.approx((50, 50, 5), rel=1e-3)


def test_a_step_is_followed_over_the_window() -> None:
    assert steady(100, 3).demand("v").wanted_qps == pytest.approx(63.2, rel=1e-2)


def test_the_length_of_reports_does_not_matter() -> None:
    long, short = Traffic(3.0), Traffic(3.0)
    long.report(traffic({"v": 40}, window_s=2.0), 2.0)
    for now in (0.5, 1.0, 1.5, 2.0):
        short.report(traffic({"v": 10}, window_s=0.5), now)
    assert long.demand("v").wanted_qps == pytest.approx(short.demand("v").wanted_qps)


def test_routers_add_up_and_silent_ones_count_no_more() -> None:
    made = steady(50, 30)
    steady(30, 30, made, router="other")
    assert made.demand("v").wanted_qps == pytest.approx(80, rel=1e-3)
    steady(30, 15, made, start=30, router="other")
    made.forget_silent(29 + SILENT_S + 1)
    assert made.demand("v").wanted_qps == pytest.approx(30, rel=1e-3)


def test_what_ended_is_forgotten() -> None:
    made = steady(50, 10)
    assert made.wanted() == ["v"]
    for second in range(10, 60):
        made.report(traffic(), float(second))
    assert made.wanted() == []
    assert made.demand("v").wanted_qps == 0.0


def test_the_last_use_is_remembered() -> None:
    made = Traffic(3.0)
    assert made.last_seen("v") is None
    made.report(traffic({"v": 0}), 1.0)
    assert made.last_seen("v") is None
    made.report(traffic({"v": 1}, served={"u": 1}), 2.0)
    assert (made.last_seen("v"), made.last_seen("u")) == (2.0, 2.0)


def test_refusals_that_have_ceased_count_no_more() -> None:
    made = steady(50, 30)
    made.report(traffic({"v": 50}), 30.0)
    assert made.demand("v").refused_qps == 0.0
    made.report(traffic({"v": 50}, refused={"v": 50}), 31.0)
    assert 5 < made.demand("v").refused_qps < 50


def test_a_report_about_no_time_says_nothing() -> None:
    made = Traffic(3.0)
    made.report(traffic({"v": 5}, window_s=0.0), 1.0)
    assert made.wanted() == []
