"""The queue of a replica: order, batches, waiting, expiry."""

from math import inf

import pytest

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.batching import Batcher, Turn, Waiting
from tests.unit.policy.builders import profile

# p99 of 1 row 10 ms, of 8 rows 24 ms, 2 ms per row between; medians are half of it.
PROFILE = profile(p99_ms=((1, 10), (8, 24)), median=0.5)


def batcher(*items: Waiting) -> Batcher:
    made = Batcher(PROFILE, 8)
    for item in items:
        made.add(item)
    return made


def item(id: int, deadline: float = inf, rows: int = 1, arrived: float = 0.0) -> Waiting:
    return Waiting(id=id, rows=rows, deadline=deadline, arrived=arrived)


def crowd(count: int, deadline: float, arrived: float = 0.0) -> list[Waiting]:
    """Queries at a rate that batches of this size do not sustain."""
    return [item(n, deadline, arrived=arrived) for n in range(count)]


class TestRun:
    def test_an_empty_queue_has_nothing_to_do(self) -> None:
        assert batcher().step(0.0, busy=False) == Turn()

    def test_a_quiet_replica_runs_at_once(self) -> None:
        assert batcher(item(1, deadline=1.0)).step(0.0, busy=False) == Turn(run=(1,))

    def test_nothing_runs_while_busy(self) -> None:
        made = batcher(item(1))
        assert made.step(0.0, busy=True) == Turn()
        assert made.step(0.1, busy=False).run == (1,)

    def test_the_earliest_deadline_first_then_arrival(self) -> None:
        made = batcher(item(1), item(2, 9.0), item(3, 5.0), item(4, 9.0, arrived=-1.0))
        assert made.step(0.0, busy=False).run == (3, 4, 2, 1)

    def test_online_overtakes_offline_even_with_a_later_deadline(self) -> None:
        made = batcher(
            *(Waiting(id=n, rows=1, deadline=5.0, arrived=0.0, offline=True) for n in range(8)), item(8), item(9, 9.0)
        )
        assert made.step(0.0, busy=False).run == (9, 8, 0, 1, 2, 3, 4, 5)
        assert made.step(0.1, busy=False).run == (6, 7)

    def test_batches_keep_the_limit(self) -> None:
        made = batcher(*(item(n, rows=3) for n in range(3)))
        assert made.step(0.0, busy=False).run == (0, 1)
        assert made.queued_rows == 3
        assert made.step(0.1, busy=False).run == (2,)

    def test_more_rows_than_the_limit_run_alone_and_whole(self) -> None:
        made = batcher(item(1, deadline=1.0, rows=20), item(2, deadline=2.0))
        assert made.step(0.0, busy=False).run == (1,)
        made = batcher(item(1, deadline=2.0, rows=20), item(2, deadline=1.0))
        assert made.step(0.0, busy=False).run == (2,)

    def test_what_was_cancelled_does_not_run(self) -> None:
        made = batcher(item(1), item(2), item(3))
        assert made.cancel(1)
        assert not made.cancel(1)
        assert (made.queued_rows, len(made)) == (2, 2)
        made.add(item(1, arrived=5.0))
        assert made.step(5.0, busy=False).run == (2, 3, 1)

    def test_an_id_waits_once_and_has_rows(self) -> None:
        made = batcher(item(1))
        with pytest.raises(InvalidInput, match="query 1"):
            made.add(item(1))
        with pytest.raises(InvalidInput, match="query 2"):
            made.add(item(2, rows=0))


class TestExpiry:
    def test_a_passed_deadline_expires_busy_or_not(self) -> None:
        made = batcher(item(1, deadline=1.0), item(2, deadline=2.0), item(3))
        assert made.step(1.0, busy=True) == Turn(expired=(1,), wake_at=pytest.approx(2.0 - 0.005))
        assert made.step(3.0, busy=False) == Turn(run=(3,), expired=(2,))

    def test_hopeless_is_what_even_the_median_cannot_make(self) -> None:
        assert batcher(item(1, deadline=0.0049)).step(0.0, busy=False).expired == (1,)
        assert batcher(item(1, deadline=0.0051)).step(0.0, busy=False).run == (1,)

    def test_many_rows_are_hopeless_sooner(self) -> None:
        made = batcher(item(1, deadline=0.011), item(2, deadline=0.012, rows=8))
        assert made.step(0.0, busy=False) == Turn(run=(1,), wake_at=pytest.approx(0.0))
        assert made.step(0.0, busy=False).expired == (2,)

    def test_a_hopeless_one_within_a_batch_expires_too(self) -> None:
        made = batcher(item(1, deadline=0.0061), item(2, deadline=0.0062, rows=5), item(3, deadline=0.0063))
        turn = made.step(0.0, busy=False)
        assert (turn.run, turn.expired) == ((1, 3), (2,))

    def test_a_slow_replica_still_tries_and_a_fast_one_waits_for_less(self) -> None:
        slow, fast = batcher(), batcher()
        for _ in range(50):
            slow.done(1, 0.5, 0.0)
            fast.done(1, 0.0005, 0.0)
        assert slow.slowdown == pytest.approx(100, rel=0.02)
        assert fast.slowdown == pytest.approx(0.1, rel=0.06)
        for made in (slow, fast):
            made.add(item(1, deadline=0.0051))
            assert made.step(0.0, busy=False).run == (1,)
        fast.add(item(2, deadline=0.0006))
        assert fast.step(0.0, busy=False).run == (2,)

    def test_an_offline_one_expires_behind_online_ones(self) -> None:
        made = batcher(item(1), Waiting(id=2, rows=1, deadline=1.0, arrived=0.0, offline=True))
        assert made.step(0.0, busy=True).wake_at == pytest.approx(1.0 - 0.005)
        assert made.step(1.0, busy=True).expired == (2,)
        assert made.step(1.0, busy=False).run == (1,)

    def test_waking_at_the_given_time_finds_it_expired(self) -> None:
        made = batcher(item(1, deadline=0.1))
        wake_at = made.step(0.0, busy=True).wake_at
        assert wake_at is not None
        assert made.step(wake_at, busy=True).expired == (1,)


class TestWaiting:
    def test_a_fast_stream_waits_while_one_more_could_join(self) -> None:
        # 3 rows at once count as 3 rows/s: too few to wait for, unless batches are slow.
        made = Batcher(profile(p99_ms=((1, 2000), (8, 2400)), median=0.5), 8)
        for query in crowd(2, deadline=10.0):
            made.add(query)
        turn = made.step(0.0, busy=False)
        latest = 10.0 - (2.0 + 0.4 * 2 / 7)
        assert turn == Turn(wake_at=pytest.approx(latest))
        assert turn.wake_at is not None
        assert made.step(turn.wake_at, busy=False).run == (0, 1)

    def test_not_when_batches_of_this_size_keep_up(self) -> None:
        assert batcher(*crowd(3, deadline=10.0)).step(0.0, busy=False).run == (0, 1, 2)

    def test_not_when_the_stream_has_ended(self) -> None:
        made = Batcher(profile(p99_ms=((1, 2000), (8, 2400)), median=0.5), 8)
        for query in crowd(2, deadline=30.0):
            made.add(query)
        assert made.step(0.01, busy=False).run == ()
        assert made.step(5.0, busy=False).run == (0, 1)

    def test_not_without_a_deadline_and_not_with_a_full_batch(self) -> None:
        slow = profile(p99_ms=((1, 2000), (8, 2400)), median=0.5)
        for queries in (crowd(4, deadline=inf), crowd(8, deadline=30.0)):
            made = Batcher(slow, 8)
            for query in queries:
                made.add(query)
            assert len(made.step(0.0, busy=False).run) == len(queries)

    def test_not_when_another_row_would_be_late(self) -> None:
        made = Batcher(profile(p99_ms=((1, 2000), (8, 2400)), median=0.5), 8)
        for query in crowd(2, deadline=2.1):
            made.add(query)
        assert made.step(0.0, busy=False).run == (0, 1)


class TestSplit:
    def test_a_batch_is_split_where_both_parts_are_then_in_time(self) -> None:
        made = batcher(item(1, deadline=0.011), *(item(n, deadline=0.5) for n in range(2, 9)))
        assert made.step(0.0, busy=False).run == (1,)
        assert made.queued_rows == 7
        assert len(made.step(0.010, busy=False).run) == 7

    def test_not_at_the_cost_of_others(self) -> None:
        made = batcher(item(1, deadline=0.011), *(item(n, deadline=0.025) for n in range(2, 9)))
        assert len(made.step(0.0, busy=False).run) == 8

    def test_not_for_one_that_is_late_anyway(self) -> None:
        made = batcher(item(1, deadline=0.009), *(item(n, deadline=0.5) for n in range(2, 9)))
        assert len(made.step(0.0, busy=False).run) == 8
