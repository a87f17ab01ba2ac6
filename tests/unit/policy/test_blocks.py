"""What is not to be started for now."""

from math import inf

import pytest

from infaas_ray.policy.blocks import Blocks


def test_failed_starts_block_for_longer_and_longer() -> None:
    blocks, now = Blocks(), 0.0
    waits = []
    for _ in range(8):
        blocks.failed("v", "no file", False, now)
        wait = next(x / 2 for x in range(1, 200) if blocks.reason("v", now + x / 2) is None)
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_reason_says_how_often_and_when_again() -> None:
    blocks = Blocks()
    blocks.failed("v", "no file", False, 0.0)
    assert blocks.reason("v", 0.5) == "its start failed: no file; next try in 1 s"
    blocks.failed("v", "no file", False, 1.0)
    assert blocks.at(1.5) == {"v": "its start failed (2 times): no file; next try in 2 s"}
    assert blocks.at(3.5) == {}


def test_after_a_while_without_failures_it_starts_afresh() -> None:
    blocks = Blocks()
    for now in (0.0, 1.0, 3.0, 200.0):
        blocks.failed("v", "no file", False, now)
    assert blocks.reason("v", 200.9) is not None
    assert blocks.reason("v", 201.1) is None


def test_what_cannot_heal_blocks_until_the_catalogue_changes() -> None:
    blocks = Blocks()
    blocks.failed("v", "corrupt", True, 0.0)
    blocks.failed("v", "again", False, 1.0)
    blocks.add("u", "no room", 5.0)
    assert blocks.permanent("v")
    assert not blocks.permanent("u")
    assert blocks.reason("v", 1e9) == "it cannot start: corrupt"
    blocks.forget_permanent()
    assert blocks.at(2.0) == {"u": "no room"}


def test_a_longer_block_stays() -> None:
    blocks = Blocks()
    blocks.add("v", "long", 10.0)
    blocks.add("v", "short", 5.0)
    assert blocks.reason("v", 7.0) == "long"


@pytest.mark.parametrize(("lived_s", "blocked"), [(0.0, True), (9.0, True), (11.0, False)])
def test_an_early_death_counts_as_a_failed_start(lived_s: float, blocked: bool) -> None:
    blocks = Blocks()
    blocks.died("v", lived_s, 100.0)
    assert (blocks.reason("v", 100.5) is not None) is blocked
    assert blocks.reason("v", inf) is None
