"""Plans: as good as the best of all, within every limit, and what they do in the cases that matter."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from benchmarks.planner.world import Size, change_demand, follow, make_problem
from infaas_ray.policy.planner.exact import solve_exact, whole_workers
from infaas_ray.policy.planner.fitted import fit, frame_of
from infaas_ray.policy.planner.model import build
from infaas_ray.policy.planner.problem import Plan, PlanPlace, PlanProblem
from infaas_ray.policy.planner.pruning import worth_keeping
from infaas_ray.policy.planner.relaxed import relaxed
from infaas_ray.policy.planner.rounded import round_up
from infaas_ray.policy.planner.solve import solve, workers_up
from tests.unit.policy.planner.problems import (
    asked,
    at,
    cheapest,
    check,
    fits_one_by_one,
    option,
    places_of,
    problem,
    small_problems,
    variant,
    worker,
)

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking a solver's problem takes minutes
_MOST = 3  # replicas at a place that the enumeration tries


def counts(made: PlanProblem, plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(plan.workers[x.name] for x in made.types), tuple(
        plan.replicas.get(made.variants[v].name, {}).get(made.types[x.worker_type].name, 0) for v, x in places_of(made)
    )


@settings(max_examples=12, deadline=None, phases=QUICK, derandomize=True)
@given(small_problems)
def test_small_problems_cost_what_the_best_of_all_plans_costs(made: PlanProblem) -> None:
    plan = solve(made, gap=1e-6, keep_gap=0.0)
    check(made, plan)
    workers, replicas = counts(made, plan)
    assert fits_one_by_one(made, workers, replicas)
    if max(replicas) > _MOST:
        return
    in_sum, one_by_one = cheapest(made, _MOST)
    if in_sum == float("inf"):
        return  # what must be there has no room
    assert plan.bound_usd_per_hour <= in_sum * (1 + 1e-6) + 1e-4
    assert plan.objective_usd_per_hour >= one_by_one * (1 - 1e-6) - 1e-4
    if one_by_one - in_sum < 1e-6:
        assert plan.objective_usd_per_hour <= one_by_one * (1 + 1e-5) + 1e-3


@settings(max_examples=25, deadline=None, phases=QUICK, derandomize=True)
@given(small_problems)
def test_leaving_out_dominated_variants_changes_no_bound(made: PlanProblem) -> None:
    kept = worth_keeping(made)
    everything = np.ones(len(made.variants), dtype=bool)
    pruned, full = (solve_kept(made, x) for x in (kept, everything))
    assert pruned == pytest.approx(full, abs=1e-4)


def solve_kept(made: PlanProblem, kept: np.ndarray) -> float:
    model = build(made, kept)
    base = relaxed(model)
    found = solve_exact(model, base, whole_workers(model, base, 1.0), 5.0, 1e-7)
    assert found.values is not None
    return float(model.cost @ found.values)


class TestPruning:
    def test_a_variant_that_another_beats_everywhere_is_left_out(self) -> None:
        variants = [variant("slow"), variant("fast"), variant("small", at(0.5))]
        classes = [asked(5, option(0, 10), option(1, 11), option(2, 9))]
        assert worth_keeping(problem([worker()], variants, classes)).tolist() == [False, True, True]

    def test_one_of_equals_stays(self) -> None:
        classes = [asked(5, option(0), option(1))]
        assert sum(worth_keeping(problem([worker()], [variant("a"), variant("b")], classes))) == 1

    @pytest.mark.parametrize(
        ("slow", "fast", "better"),
        [
            (variant("slow", least=1), variant("fast"), 20.0),
            (variant("slow", at(now=1, start=0.1)), variant("fast", at(start=0.1)), 20.0),
            (variant("slow"), variant("fast", most=1), 20.0),
            (variant("slow"), variant("fast", at(on=1)), 20.0),
            (variant("slow"), variant("fast", at(works=2.0)), 20.0),
            (variant("slow"), variant("fast", at(start=0.1)), 20.0),
        ],
    )
    def test_what_may_be_worth_it_stays(self, slow: object, fast: object, better: float) -> None:
        classes = [asked(5, option(0), option(1, better))]
        made = problem([worker(), worker("big")], [slow, fast], classes)  # type: ignore[list-item]
        assert worth_keeping(made).all()

    def test_one_that_answers_a_class_more_stays(self) -> None:
        classes = [asked(5, option(0), option(1, 20.0)), asked(5, option(0), name="d")]
        assert worth_keeping(problem([worker()], [variant("a"), variant("b")], classes)).all()


class TestLimits:
    def test_beyond_the_account_rows_are_refused_and_the_dearer_to_refuse_are_served(self) -> None:
        classes = [
            asked(40, option(0), name="dear", refusal=2.0),
            asked(40, option(0), name="cheap", refusal=1.0),
        ]
        plan = solve(problem([worker(most=1)], [variant()], classes))
        assert plan.workers == {"cpu": 1}
        assert plan.refused_qps == pytest.approx({"cheap": 40.0})

    def test_what_no_variant_answers_is_refused(self) -> None:
        plan = solve(problem([worker()], [variant()], [asked(5, name="none"), asked(5, option(), name="some")]))
        assert plan.refused_qps == {"none": 5.0}
        assert plan.replicas == {"a": {"cpu": 1}}

    def test_a_variant_that_runs_nowhere_is_no_answer(self) -> None:
        nowhere = replace(variant(), places=())
        assert solve(problem([worker()], [nowhere], [asked(5, option())])).refused_qps == {"c": 5.0}
        too_large = variant("a", at(holds=9.0))
        assert solve(problem([worker()], [too_large], [asked(5, option())])).refused_qps == {"c": 5.0}
        gpu = replace(at(), holds={"GPU": 1.0})
        assert solve(problem([worker()], [variant("a", gpu)], [asked(5, option())])).refused_qps == {"c": 5.0}

    def test_least_and_most_replicas_and_workers(self) -> None:
        made = problem([worker(least=2)], [variant(least=3), variant("b", most=1)], [asked(30, option(1))])
        plan = solve(made)
        assert (plan.workers, plan.replicas) == ({"cpu": 2}, {"a": {"cpu": 3}, "b": {"cpu": 1}})
        assert plan.refused_qps == pytest.approx({"c": 20.0})

    def test_of_more_than_fits_of_what_must_be_there_as_much_as_fits_is(self) -> None:
        plan = solve(problem([worker(most=1)], [variant(least=9)], [asked(5, option())]))
        assert plan.replicas == {"a": {"cpu": 4}}
        assert plan.gap < 1e-3

    def test_nothing_asked_nothing_bought(self) -> None:
        plan = solve(problem([worker(now=3)], [variant("a", at(now=2))], [asked(0, option())]))
        assert (plan.workers, plan.replicas, plan.objective_usd_per_hour, plan.gap) == ({"cpu": 0}, {}, 0.0, 0.0)
        assert solve(problem([], [], [])).workers == {}

    def test_only_a_share_of_a_worker_is_planned_to_be_busy(self) -> None:
        made = problem([worker(cpu=2.0)], [variant("a", at(0.5, 1.0))], [asked(20, option())], utilization=0.9)
        assert solve(made).workers == {"cpu": 2}
        assert solve(replace(made, utilization=1.0)).workers == {"cpu": 1}


class TestMoney:
    def test_a_booted_worker_wins_over_a_slightly_cheaper_one_that_must_boot(self) -> None:
        variants = [variant("a", at(), at(on=1))]
        here, there = worker("here", usd=1.0, now=1, boot=0.2), worker("there", usd=0.9, boot=0.2)
        assert solve(problem([here, there], variants, [asked(5, option())])).workers == {"here": 1, "there": 0}
        much = replace(there, usd_per_hour=0.5)
        assert solve(problem([here, much], variants, [asked(5, option())])).workers == {"here": 0, "there": 1}

    def test_a_replica_that_is_there_wins_over_an_equal_one(self) -> None:
        variants = [variant("a", at(start=0.01)), variant("b", at(now=1, start=0.01))]
        plan = solve(problem([worker(now=1, boot=0.1)], variants, [asked(5, option(0), option(1))]))
        assert plan.replicas == {"b": {"cpu": 1}}
        assert plan.objective_usd_per_hour == pytest.approx(1.0)

    def test_degrading_is_weighed_against_a_machine(self) -> None:
        variants = [variant("good", at(4.0)), variant("poor", at(1.0), most=1)]
        cheap = asked(10, option(0, 10), option(1, 20, penalty=0.01))
        assert solve(problem([worker()], variants, [cheap])).replicas == {"good": {"cpu": 1}}
        plan = solve(problem([worker()], variants, [cheap, asked(1, option(1, 20), name="d")]))
        assert plan.workers == {"cpu": 1}  # there is room for one of the two, and only the poor one answers both
        assert plan.replicas == {"poor": {"cpu": 1}}

    def test_fewer_replicas_win_among_equally_cheap_plans(self) -> None:
        variants = [variant("small", at(0.25)), variant("large", at(1.0))]
        plan = solve(problem([worker()], variants, [asked(20, option(0, 5.0), option(1, 20.0))]), gap=0.0)
        assert plan.replicas == {"large": {"cpu": 1}}

    def test_the_marginal_price_is_that_of_the_machines_share(self) -> None:
        plan = solve(problem([worker(usd=3.6)], [variant()], [asked(400, option())]))
        assert plan.workers == {"cpu": 10}
        assert plan.marginal_usd_per_1k["c"] == pytest.approx(3.6 / 40 / 3.6, rel=1e-3)
        short = solve(problem([worker(most=1)], [variant()], [asked(400, option(), refusal=7.0)]))
        assert short.marginal_usd_per_1k["c"] == pytest.approx(7.0)

    def test_the_marginal_price_predicts_what_more_demand_costs_in_the_linear_program(self) -> None:
        made = make_problem(_MIDDLE, 3)
        model = build(made, worth_keeping(made))
        base = relaxed(model)
        for number in range(0, len(made.classes), 7):
            more = 1.0001
            classes = [
                replace(x, demand_qps=x.demand_qps * (more if n == number else 1.0)) for n, x in enumerate(made.classes)
            ]
            grown = relaxed(build(replace(made, classes=tuple(classes)), worth_keeping(made)))
            step = made.classes[number].demand_qps * (more - 1.0)
            found = (grown.bound_usd_per_hour - base.bound_usd_per_hour) / step
            assert base.price[number] == pytest.approx(found, rel=0.05, abs=2e-4)


class TestPacking:
    def test_replicas_that_cannot_be_divided_get_another_worker(self) -> None:
        made = problem([worker(cpu=4.0)], [variant("a", at(3.0))], [asked(40, option())])
        assert solve(made).workers == {"cpu": 4}

    def test_without_another_worker_they_are_dropped_and_rows_refused(self) -> None:
        made = problem([worker(cpu=4.0, most=3)], [variant("a", at(3.0))], [asked(40, option())])
        plan = solve(made)
        assert (plan.workers, plan.replicas) == ({"cpu": 3}, {"a": {"cpu": 3}})
        assert plan.refused_qps == pytest.approx({"c": 10.0})


class TestStability:
    def test_the_same_problem_gives_the_same_plan(self) -> None:
        made = make_problem(_MIDDLE, 1)
        assert solve(made, 20.0, 0.02) == solve(made, 20.0, 0.02)

    def test_a_plan_that_was_followed_is_kept(self) -> None:
        made = make_problem(_SMALL, 2)
        first = solve(made, 20.0, 1e-4)
        followed = follow(made, first)
        again = solve(followed, 20.0, 1e-4)
        assert again.workers == first.workers
        assert again.replicas == first.replicas
        assert again.objective_usd_per_hour < first.objective_usd_per_hour

    @pytest.mark.parametrize("pinned", [(at(on=0, now=1), at(on=1)), (at(on=0, now=1),)])
    def test_what_nothing_flows_to_goes_wherever_pinned_variants_could_run(self, pinned: tuple[PlanPlace, ...]) -> None:
        types = [worker("x", now=1, least=1), worker("y", now=1, least=1)]
        variants = [variant("pin", *pinned, least=1), variant("b", at(on=0, now=2))]
        plan = solve(problem(types, variants, [asked(5, option(1))]))
        assert plan.replicas == {"pin": {"x": 1}, "b": {"x": 1}}

    def test_machines_that_only_save_money_come_when_their_boot_is_saved_up(self) -> None:
        types = [worker("cheap", usd=1.0, boot_usd=0.05), worker("dear", usd=3.0, now=1)]
        made = problem(types, [variant("a", at(on=0), at(on=1, now=1))], [asked(10, option())])
        early = solve(replace(made, saved_usd=0.04))
        assert early.workers == {"cheap": 0, "dear": 1}
        assert early.forgone_usd_per_hour == pytest.approx(2.0)
        later = solve(replace(made, saved_usd=0.06))
        assert later.workers == {"cheap": 1, "dear": 0}
        assert later.forgone_usd_per_hour == 0.0

    def test_machines_that_are_too_many_go_while_others_are_saved_for(self) -> None:
        types = [worker("cheap", usd=1.0, boot_usd=0.05), worker("dear", usd=3.0, now=2)]
        made = problem(types, [variant("a", at(on=0), at(on=1, now=2))], [asked(10, option())])
        assert solve(replace(made, saved_usd=0.0)).workers == {"cheap": 0, "dear": 1}

    def test_machines_that_demand_needs_come_at_once(self) -> None:
        types = [worker("cheap", usd=1.0, boot_usd=0.05), worker("dear", usd=3.0, now=1, most=1)]
        made = problem(types, [variant("a", at(on=0), at(on=1, now=4))], [asked(60, option())])
        plan = solve(replace(made, saved_usd=0.0))
        assert plan.workers["cheap"] >= 1
        assert not plan.refused_qps

    def test_problem_and_plan_survive_a_log(self) -> None:
        made = make_problem(_SMALL, 1)
        plan = solve(made)
        for value in (made, plan):
            assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


_SMALL = Size(architectures=3, use_cases=2, classes=6, rows_qps=300.0, limit=20)
_MIDDLE = Size(architectures=10, use_cases=5, classes=20, rows_qps=20_000.0, limit=100)


class TestRounding:
    @pytest.mark.parametrize("seed", range(4))
    def test_it_comes_near_the_best_where_there_are_many_replicas(self, seed: int) -> None:
        made = make_problem(replace(_MIDDLE, rows_qps=200_000.0), seed)
        model = build(made, worth_keeping(made))
        base = relaxed(model)
        frame = frame_of(made, model)
        found = fit(frame, round_up(model, frame.held, base), workers_up(model, base))
        assert found.objective_usd_per_hour <= base.bound_usd_per_hour * 1.05

    @pytest.mark.parametrize("limit", [1, 3])
    def test_within_the_account_it_rounds_down_what_does_not_fit(self, limit: int) -> None:
        made = make_problem(replace(_MIDDLE, limit=limit), 1)
        model = build(made, worth_keeping(made))
        base = relaxed(model)
        frame = frame_of(made, model)
        found = fit(frame, round_up(model, frame.held, base), workers_up(model, base))
        assert (found.workers <= limit).all()
        assert found.refused.sum() > 0
        assert found.objective_usd_per_hour <= base.bound_usd_per_hour * 1.2

    def test_a_large_problem_is_rounded_and_keeps_the_limits(self) -> None:
        made = make_problem(replace(_MIDDLE, rows_qps=5e6, limit=20_000), 1)
        plan = solve(made)
        assert plan.solver == "rounded"
        assert plan.gap < 0.03
        check(made, plan)

    def test_without_time_to_branch_there_is_a_plan_nevertheless(self) -> None:
        made = make_problem(_MIDDLE, 2)
        plan = solve(made, time_limit_s=0.0)
        check(made, plan)
        assert plan.refused_qps == {}


def test_change_demand_keeps_everything_else() -> None:
    made = make_problem(_SMALL, 1)
    changed = change_demand(made, 2)
    assert (changed.types, changed.variants) == (made.types, made.variants)


def test_a_small_class_is_not_refused_for_being_small_beside_what_is_there() -> None:
    kinds = (worker("dear", 1.0, 32.8, now=15, most=20), worker("cheap", 8.0, 0.384))
    nets = (variant("large", at(now=15)), variant("net", at(on=1)))
    classes = (asked(1490.0, option(0, 100.0), refusal=1.8), asked(20.0, option(1, 100.0), name="d", refusal=0.1))
    plan = solve(problem(kinds, nets, classes), 1.0)
    assert plan.refused_qps == {}
    assert plan.workers == {"dear": 15, "cheap": 1}
