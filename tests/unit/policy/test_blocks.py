"""What is not to be started for now."""

from math import inf

import pytest

from infaas_ray.policy.blocks import Attempt, Blocks


def test_failed_starts_block_for_longer_and_longer() -> None:
    blocks, now = Blocks(), 0.0
    waits = []
    for _ in range(8):
        blocks.failed(Attempt("v"), "no file", False, now)
        wait = next(x / 2 for x in range(1, 200) if blocks.reason("v", now + x / 2) is None)
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_reason_says_how_often_and_when_again() -> None:
    blocks = Blocks()
    blocks.failed(Attempt("v"), "no file", False, 0.0)
    assert blocks.reason("v", 0.5) == "its start failed: no file; next try in 1 s"
    blocks.failed(Attempt("v"), "no file", False, 1.0)
    assert blocks.at(1.5) == {"v": "its start failed (2 times): no file; next try in 2 s"}
    assert blocks.at(3.5) == {}


def test_after_a_while_without_failures_it_starts_afresh() -> None:
    blocks = Blocks()
    for now in (0.0, 1.0, 3.0, 200.0):
        blocks.failed(Attempt("v"), "no file", False, now)
    assert blocks.reason("v", 200.9) is not None
    assert blocks.reason("v", 201.1) is None


def test_what_cannot_heal_blocks_until_the_catalogue_changes() -> None:
    blocks = Blocks()
    blocks.failed(Attempt("v"), "corrupt", True, 0.0)
    blocks.failed(Attempt("v"), "again", False, 1.0)
    blocks.add("u", "no room", 5.0)
    assert blocks.permanent("v")
    assert not blocks.permanent("u")
    assert blocks.reason("v", 1e9) == "it cannot start: corrupt"
    blocks.catalog_changed()
    assert blocks.at(2.0) == {"u": "no room"}


def test_a_longer_block_stays() -> None:
    blocks = Blocks()
    blocks.add("v", "long", 10.0)
    blocks.add("v", "short", 5.0)
    assert blocks.reason("v", 7.0) == "long"


@pytest.mark.parametrize(("lived_s", "blocked"), [(0.0, True), (9.0, True), (11.0, False)])
def test_early_deaths_count_as_failed_starts_from_the_second_on(lived_s: float, blocked: bool) -> None:
    blocks = Blocks()
    blocks.died(Attempt("v"), lived_s, 100.0)
    assert blocks.reason("v", 100.0) is None
    blocks.died(Attempt("v"), lived_s, 110.0)
    assert (blocks.reason("v", 110.5) is not None) is blocked
    assert blocks.reason("v", inf) is None


def test_a_failed_start_blocks_where_a_replica_had_died_before() -> None:
    blocks = Blocks()
    blocks.died(Attempt("v"), 1.0, 100.0)
    blocks.failed(Attempt("v"), "no file", False, 102.0)
    assert blocks.reason("v", 102.0) == "its start failed (2 times): no file; next try in 2 s"


def test_what_fails_together_counts_once() -> None:
    blocks = Blocks()
    for _ in range(5):
        blocks.failed(Attempt("v", ordered_at=9.0), "no file", False, 10.0)
        blocks.died(Attempt("w", ordered_at=9.0), 1.0, 10.0)
    assert blocks.at(10.0) == {"v": "its start failed: no file; next try in 1 s"}
    blocks.failed(Attempt("v", ordered_at=10.5), "no file", False, 11.0)
    blocks.died(Attempt("w", ordered_at=10.5), 1.0, 11.0)
    assert "(2 times)" in str(blocks.reason("v", 11.0))
    assert "(2 times)" in str(blocks.reason("w", 11.0))


class TestLostWorkers:
    def test_what_failed_on_one_shortly_before_is_forgiven(self) -> None:
        blocks = Blocks()
        blocks.failed(Attempt("v", "w1"), "no file", False, 100.0)
        blocks.worker_lost("w1", 100.5)
        assert blocks.reason("v", 100.5) is None
        blocks.failed(Attempt("v", "w2"), "no file", False, 101.0)
        assert blocks.reason("v", 101.0) == "its start failed: no file; next try in 1 s"

    def test_once(self) -> None:
        blocks = Blocks()
        for now in (100.0, 101.0):
            blocks.failed(Attempt("v", "w1"), "no file", False, now)
        blocks.worker_lost("w1", 102.0)
        blocks.worker_lost("w1", 103.0)
        blocks.failed(Attempt("v", "w2"), "no file", False, 104.0)
        assert "(2 times)" in str(blocks.reason("v", 104.0))

    def test_what_failed_elsewhere_or_long_before_is_not(self) -> None:
        blocks = Blocks()
        blocks.failed(Attempt("v", "w1"), "no file", False, 100.0)
        blocks.worker_lost("w2", 100.5)
        assert blocks.reason("v", 100.5) is not None
        blocks.worker_lost("w1", 190.0)
        blocks.failed(Attempt("v", "w2"), "no file", False, 191.0)
        assert "(2 times)" in str(blocks.reason("v", 191.0))

    def test_what_cannot_heal_or_has_no_room_stays_blocked(self) -> None:
        blocks = Blocks()
        blocks.failed(Attempt("u", "w1"), "no file", False, 100.0)
        blocks.failed(Attempt("u", "w1"), "corrupt", True, 100.0)
        blocks.failed(Attempt("v", "w1"), "no file", False, 100.0)
        blocks.add("v", "no room", 120.0)
        blocks.worker_lost("w1", 101.0)
        assert blocks.at(101.0) == {"u": "it cannot start: corrupt", "v": "no room"}
