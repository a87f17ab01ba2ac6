"""Replicas one by one in workers: never more in one than it has, and what must be there first."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.policy.planner.model import _whole
from infaas_ray.policy.planner.packing import Packed, pack, shares
from infaas_ray.policy.planner.problem import PlanPlace, PlanProblem
from tests.unit.policy.planner.problems import at, fits_one_by_one, problem, variant, worker


def packed(
    made: PlanProblem, replicas: Sequence[int], workers: Sequence[int], must: Sequence[int] | None = None
) -> Packed:
    places = [x for found in made.variants for x in found.places]
    return pack(
        made,
        shares(made, places),
        np.array([x.worker_type for x in places]),
        np.array(must or [0] * len(places)),
        np.array(replicas),
        np.array(workers),
    )


def of(*places: PlanPlace, cpu: float = 4.0, most: int = 10) -> PlanProblem:
    return problem([worker(cpu=cpu, most=most)], [variant(f"v{n}", x) for n, x in enumerate(places)], [])


class TestPack:
    def test_what_fits_stays_as_it_is(self) -> None:
        found = packed(of(at(1.0), at(2.0)), [2, 3], [2])
        assert (found.workers.tolist(), found.replicas.tolist()) == ([2], [2, 3])

    def test_halves_that_do_not_add_up_need_another_worker(self) -> None:
        assert packed(of(at(3.0), at(2.0)), [2, 1], [2]).workers.tolist() == [3]

    def test_fractions_of_a_device_that_add_up_to_it_fit(self) -> None:
        assert packed(of(at(1 / 3), cpu=1.0), [9], [3]).workers.tolist() == [3]

    def test_the_largest_go_first_and_the_rest_is_dropped(self) -> None:
        found = packed(of(at(1.0), at(3.0), most=2), [4, 2], [2])
        assert (found.workers.tolist(), found.replicas.tolist()) == ([2], [2, 2])

    def test_what_must_be_there_goes_before_the_larger(self) -> None:
        found = packed(of(at(1.0), at(3.0), most=2), [4, 2], [2], must=[4, 0])
        assert found.replicas.tolist() == [4, 1]

    def test_each_type_is_packed_by_itself(self) -> None:
        types = [worker("a"), worker("b", cpu=2.0)]
        made = problem(types, [variant("v", at(2.0), at(2.0, on=1))], [])
        assert packed(made, [3, 3], [1, 1]).workers.tolist() == [2, 3]

    def test_every_resource_counts(self) -> None:
        memory = PlanPlace(worker_type=0, holds={"CPU": 1.0, "GPU": 1.0}, works={})
        found = packed(of(memory), [1], [1])
        assert found.replicas.tolist() == [0]

    @given(
        st.lists(st.tuples(st.sampled_from([0.5, 1.0, 1.5, 2.5, 4.0]), st.integers(0, 3)), min_size=1, max_size=3),
        st.integers(1, 4),
    )
    def test_no_worker_has_more_than_it_can_hold(self, sizes: list[tuple[float, int]], most: int) -> None:
        made = of(*(at(size) for size, _ in sizes), most=most)
        found = packed(made, [count for _, count in sizes], [1])
        assert found.workers[0] <= most
        assert all(found.replicas <= [count for _, count in sizes])
        assert fits_one_by_one(made, tuple(found.workers.tolist()), tuple(found.replicas.tolist()))


@given(st.lists(st.integers(1, 24), min_size=1, max_size=12), st.sampled_from([1, 2, 3]))
def test_shares_that_fit_into_a_worker_take_no_more_than_it(parts: list[int], divided: int) -> None:
    shares_of_one = np.array(parts) / max(24, sum(parts))
    assert _whole(shares_of_one, divided).sum() <= 1 + 1e-9
