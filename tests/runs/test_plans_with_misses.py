"""Plans for queries that accept to miss their SLO: as good as the best of all, and no dearer than refusing them."""

from dataclasses import replace

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from infaas_ray.domain import OnMiss
from infaas_ray.policy.planner.build import Wanted
from infaas_ray.policy.planner.solve import solve
from tests.unit.policy.builders import worker_type
from tests.unit.policy.planner.demands import BULK, LARGE, QUICK, problem_of, wanted
from tests.unit.policy.planner.problems import cheapest, check

_asked = st.builds(
    wanted,
    latency_s=st.sampled_from([None, 0.055, 0.2]),
    min_accuracy=st.sampled_from([0.8, 0.8, 0.97]),
    demand_qps=st.sampled_from([5.0, 1400.0, 1800.0]),
    on_miss=st.sampled_from([OnMiss.DEGRADE, OnMiss.LATE, OnMiss.REJECT]),
)


@settings(max_examples=15, deadline=None, phases=(Phase.explicit, Phase.generate), derandomize=True)
@given(st.lists(_asked, min_size=1, max_size=2, unique_by=lambda x: x.name), st.integers(1, 2))
def test_plans_with_misses_cost_what_the_best_of_all_costs_and_never_more_than_without(
    asked: list[Wanted], most: int
) -> None:
    types, offers = [worker_type(cpu=2.0, most=most)], (QUICK, LARGE, BULK)
    made = problem_of(types, asked, offers=offers)
    if not made.classes:
        return
    plan = solve(made, gap=1e-6, keep_gap=0.0)
    check(made, plan)
    in_sum, one_by_one = cheapest(made, 3)
    counts = [n for places in plan.replicas.values() for n in places.values()]
    if max(counts, default=0) <= 3:
        assert plan.objective_usd_per_hour >= one_by_one * (1 - 1e-6) - 1e-4
        if one_by_one - in_sum < 1e-6:
            assert plan.objective_usd_per_hour <= one_by_one * (1 + 1e-5) + 1e-3
    assert not {x.name for x in asked if x.on_miss is OnMiss.REJECT} & set(plan.beyond_slo_qps)
    rejecting = problem_of(types, [replace(x, on_miss=OnMiss.REJECT) for x in asked], offers=offers)
    if len(rejecting.classes) == len(asked):  # else they are priced by other variants
        without = solve(rejecting, gap=1e-6, keep_gap=0.0)
        assert plan.objective_usd_per_hour <= without.objective_usd_per_hour + 1e-3
