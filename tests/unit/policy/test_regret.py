"""For how long machines that are too many are worth keeping."""

import pytest

from infaas_ray.policy.scaling.regret import Regret

PRICES = {"a": 10.0, "b": 1.0}  # dollars for 1,000 rows
DEAR = 1e3  # dollars an hour, so that the cap is far


def waited(missing: dict[str, int], *missed: dict[str, float], at: float = 100.0) -> Regret:
    """Machines were missing in so many turns, and came at `at`."""
    regret = Regret()
    for rows in missed:
        regret.note(missing, rows, PRICES, at - 1)
    regret.note({}, {"a": 1e9}, PRICES, at)  # what is missed when they are there is not for want of them
    return regret


def test_what_was_missed_while_it_came_over_its_rent() -> None:
    regret = waited({"cpu": 1}, {"a": 5.0}, {"a": 5.0, "b": 100.0})
    assert regret.worth_usd("cpu", DEAR, 100.0) == pytest.approx(0.2)
    assert regret.keep_s("cpu", 7.2, 100.0) == pytest.approx(100.0)


def test_machines_share_what_was_missed() -> None:
    regret = waited({"cpu": 2, "gpu": 1}, {"b": 400.0})
    assert regret.worth_usd("cpu", DEAR, 100.0) == pytest.approx(0.1)
    assert regret.worth_usd("gpu", DEAR, 100.0) == pytest.approx(0.2)


def test_half_is_forgotten_in_an_hour() -> None:
    assert waited({"cpu": 1}, {"b": 400.0}).worth_usd("cpu", DEAR, 3700.0) == pytest.approx(0.2)


def test_the_last_time_counts() -> None:
    regret = waited({"cpu": 1}, {"b": 400.0})
    regret.note({"cpu": 1}, {}, PRICES, 200.0)
    regret.note({}, {}, PRICES, 230.0)
    assert regret.worth_usd("cpu", DEAR, 230.0) == 0.0


def test_never_for_long_and_not_at_all_where_nothing_was_missed_or_paid() -> None:
    regret = waited({"cpu": 1}, {"a": 1e6})
    assert regret.keep_s("cpu", 1.0, 100.0) == 600.0
    assert regret.worth_usd("cpu", 6.0, 100.0) == pytest.approx(1.0)
    assert regret.keep_s("cpu", 0.0, 100.0) == 0.0
    assert regret.keep_s("gpu", 1.0, 100.0) == 0.0
    assert waited({}, {"a": 5.0}).worth_usd("cpu", DEAR, 100.0) == 0.0
