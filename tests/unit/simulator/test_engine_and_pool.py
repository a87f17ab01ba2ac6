import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.simulator.engine import Engine
from infaas_ray.simulator.pool import Pool


def test_what_is_due_first_happens_first_and_at_one_moment_in_order_of_arranging() -> None:
    engine, seen = Engine(), []
    engine.at(2.0, seen.append, "second")
    engine.at(1.0, seen.append, "first")
    engine.at(2.0, seen.append, "third")
    engine.run(1.5)
    assert (seen, engine.now, engine.next_at()) == (["first"], 1.0, 2.0)
    engine.run()
    assert seen == ["first", "second", "third"]


def finishes(capacity: float, jobs: list[tuple[float, float, float]]) -> list[float]:
    """When jobs `(starts at, takes alone, units)` end, in the order given."""
    engine, ends = Engine(), [0.0] * len(jobs)
    pool = Pool(engine, capacity)

    def ended(number: int) -> None:
        ends[number] = engine.now

    for number, (at, work, units) in enumerate(jobs):
        engine.at(at, lambda x: pool.start(x[1], x[2], ended, x[0]), (number, work, units))
    engine.run()
    assert pool.demand == 0.0
    assert pool.busy_s() == pytest.approx(sum(work * units for _, work, units in jobs))
    return ends


def test_batches_that_have_enough_processors_do_not_slow_each_other_down() -> None:
    assert finishes(4.0, [(0.0, 1.0, 2.0), (0.5, 1.0, 2.0)]) == pytest.approx([1.0, 1.5])


def test_batches_that_share_processors_slow_down_in_proportion_and_only_as_long_as_they_do() -> None:
    # Alone until 1, at half speed together until 3, when the first is done; the second has 1 s left.
    assert finishes(1.0, [(0.0, 2.0, 1.0), (1.0, 2.0, 1.0)]) == pytest.approx([3.0, 4.0])
    # 6 threads on 4 processors: two thirds of the speed.
    assert finishes(4.0, [(0.0, 2.0, 4.0), (0.0, 2.0, 2.0)]) == pytest.approx([3.0, 3.0])


def test_one_that_is_dropped_leaves_the_processors_to_the_others() -> None:
    engine, ended = Engine(), []
    pool = Pool(engine, 1.0)
    for name in ("dropped", "kept"):
        pool.start(4.0, 1.0, lambda name: ended.append((name, engine.now)), name)
    engine.at(2.0, pool.drop, "dropped")
    engine.run()
    assert ended == [("kept", 5.0)]


job = st.tuples(st.floats(0, 5), st.floats(0.001, 3), st.sampled_from([0.5, 1.0, 2.0, 3.0]))


@given(st.lists(job, min_size=1, max_size=8))
def test_work_is_conserved(jobs: list[tuple[float, float, float]]) -> None:
    ends = finishes(2.0, jobs)
    for (at, work, units), end in zip(jobs, ends, strict=True):
        assert end >= at + work * max(1.0, units / 2.0) - 1e-6
    busy_until = max(at for at, _, _ in jobs) + sum(work * max(1.0, units / 2.0) for _, work, units in jobs)
    assert max(ends) <= busy_until + 1e-6
