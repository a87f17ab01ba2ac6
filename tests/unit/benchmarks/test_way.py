"""The two prices of a query's way."""

import pytest

from benchmarks.live.way import loop_wait_s, two_prices


def mean(rate: float, alone: float, more: float) -> float:
    """The mean price at a rate, by iteration: that of the share which finds the loop idle is another one."""
    price = alone
    for _ in range(200):
        idle = 1 - rate * price
        price = idle * alone + (1 - idle) * more
    return price


@pytest.mark.parametrize(("alone", "more"), [(0.001, 0.0005), (0.0005, 0.0), (0.0004, 0.0003)])
def test_two_rates_tell_them_apart(alone: float, more: float) -> None:
    points = [(rate, mean(rate, alone, more)) for rate in (200.0, 1500.0)]
    assert two_prices(points[0], points[1]) == pytest.approx((alone, more), abs=1e-9)


def test_a_price_that_does_not_fall_is_the_same_for_all() -> None:
    assert two_prices((200.0, 0.001), (1500.0, 0.0012)) == (0.001, 0.0012)


def test_the_wait_for_a_loop_is_that_of_m_d_1() -> None:
    assert loop_wait_s(500.0, 0.001, 0.001, 0.001) == pytest.approx(0.5 * 0.001 / (2 * 0.5))
