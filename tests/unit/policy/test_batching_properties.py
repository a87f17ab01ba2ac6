"""What holds for every sequence of queries: none vanishes, none comes twice, limits and order are kept."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.policy.batching import Batcher, Waiting
from tests.unit.policy.builders import profile

LIMIT = 8
PROFILE = profile(p99_ms=((1, 10), (8, 24)), median=0.5)

moves = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "step", "cancel", "done"]),
        st.floats(0, 0.05),  # time that passes before
        st.integers(1, 12),  # rows, or the id to cancel
        st.sampled_from([0.004, 0.02, 0.1, inf]),  # time to the deadline
    ),
    max_size=40,
)


@given(moves)
def test_every_query_leaves_once_in_order_and_within_the_limit(moves: list[tuple[str, float, int, float]]) -> None:
    batcher, now, busy = Batcher(PROFILE, LIMIT), 0.0, False
    waiting: dict[int, Waiting] = {}
    added = left = 0
    for kind, passed, number, slack in [*moves, *[("done", 0.0, 1, 0.0), ("step", 0.0, 1, 0.0)] * 40]:
        now += passed
        if kind == "add":
            waiting[added] = Waiting(id=added, rows=number, deadline=now + slack, arrived=now)
            batcher.add(waiting[added])
            added += 1
        elif kind == "cancel":
            known = waiting.pop(number, None)
            assert batcher.cancel(number) == (known is not None)
            left += known is not None
        elif kind == "done" and busy:
            busy = False
            batcher.done(number, passed + 0.001, now)
        elif kind == "step":
            turn = batcher.step(now, busy)
            assert not (busy and turn.run)
            assert len({*turn.run, *turn.expired}) == len(turn.run) + len(turn.expired)
            for id in turn.expired:
                query = waiting.pop(id)
                assert now + 0.012 * -(-query.rows // LIMIT) >= query.deadline
                left += 1
            run = [waiting.pop(id) for id in turn.run]
            left += len(run)
            assert len(run) == 1 or sum(x.rows for x in run) <= LIMIT
            assert run == sorted(run, key=lambda x: (x.deadline, x.arrived, x.id))
            if run and waiting:
                assert run[0].deadline <= min(x.deadline for x in waiting.values())
            busy = busy or bool(run)
            if turn.wake_at is not None and not run:
                now = max(now, turn.wake_at)  # a replica without news asks again then
        assert batcher.queued_rows == sum(x.rows for x in waiting.values())
        assert len(batcher) == len(waiting)
    assert not waiting
    assert left == added


@given(st.lists(st.tuples(st.floats(0, 0.01), st.floats(0.01, 0.3)), min_size=1, max_size=40))
def test_waiting_never_makes_a_query_late(arrivals: list[tuple[float, float]]) -> None:
    """On a free replica, a batch that was made to wait starts early enough for its p99."""
    batcher, now = Batcher(PROFILE, LIMIT), 0.0
    deadlines: dict[int, float] = {}
    for number, (passed, slack) in enumerate(arrivals):
        now += passed
        deadlines[number] = now + slack
        batcher.add(Waiting(id=number, rows=1, deadline=deadlines[number], arrived=now))
        turn = batcher.step(now, busy=False)
        if not turn.run and turn.wake_at is not None:
            first = min(x for id, x in deadlines.items() if id not in turn.expired)
            assert turn.wake_at + PROFILE.latency_s(batcher.queued_rows) <= first + 1e-9
        for id in (*turn.run, *turn.expired):
            del deadlines[id]
