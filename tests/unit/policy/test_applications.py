"""Rows by application, of as many applications as are told apart."""

from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.policy.applications import FORGET_S, MOST, OTHER, Applications


def test_rows_of_a_window_are_given_once() -> None:
    found = Applications()
    found.of("shop").window["v"] += 3
    found.of("shop").window["w"] += 1
    assert found.take(0.0) == {"shop": {"v": 3, "w": 1}}
    assert found.take(1.0) == {}


def test_the_silent_make_room_for_the_new() -> None:
    found = Applications()
    for number in range(MOST):
        found.of(f"old-{number}").window["v"] += 1
    found.take(0.0)
    found.of("new").window["v"] += 1
    found.of("old-0").window["v"] += 1
    assert found.take(10.0) == {OTHER: {"v": 1}, "old-0": {"v": 1}}
    found.take(FORGET_S)
    assert set(found.accounts) == {OTHER, "old-0"}
    found.of("new").window["v"] += 1
    assert found.take(FORGET_S) == {"new": {"v": 1}}


def test_one_who_was_opened_and_never_counted_is_forgotten_too() -> None:
    found = Applications()
    found.of("shop")
    found.take(5.0)
    found.take(5.0 + FORGET_S)
    assert found.accounts == {}


@given(st.lists(st.tuples(st.integers(0, 3 * MOST), st.integers(1, 5)), max_size=500), st.integers(1, 50))
def test_no_row_is_lost_and_the_accounts_stay_few(asked: list[tuple[int, int]], every: int) -> None:
    found = Applications()
    total = 0
    for turn, (name, rows) in enumerate(asked):
        found.of(str(name)).window["v"] += rows
        assert len(found.accounts) <= MOST + 1
        if turn % every == 0:
            total += sum(x["v"] for x in found.take(turn * FORGET_S / 10).values())
    total += sum(x["v"] for x in found.take(1e9).values())
    assert total == sum(rows for _, rows in asked)
