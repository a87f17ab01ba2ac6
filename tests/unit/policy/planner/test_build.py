"""From a fleet and what is wanted of it to a problem."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from infaas_ray.domain import OnMiss, WorkerType
from infaas_ray.policy.planner.problem import PlanProblem
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.settings import PlannerSettings
from tests.unit.policy.builders import offer, worker_type
from tests.unit.policy.planner.demands import BULK, LARGE, QUICK, SMALL, problem_of, wanted


def problem(
    *types: WorkerType, spot_factor: float = 1.2, offers: Sequence[Offer] = (SMALL, LARGE), **asked: Any
) -> PlanProblem:
    settings = PlannerSettings(spot_factor=spot_factor)
    return problem_of(types, [wanted(**asked)], settings, offers)


def names(made: PlanProblem) -> list[str]:
    return [made.variants[x.variant].name for x in made.classes[0].options]


def test_only_what_meets_the_slo_may_answer() -> None:
    assert names(problem(worker_type())) == [SMALL.name, LARGE.name]
    assert names(problem(worker_type(), min_accuracy=0.8)) == [LARGE.name]
    assert names(problem(worker_type(), max_usd_per_1k=0.0015)) == [SMALL.name]


def test_what_no_variant_meets_is_no_class() -> None:
    assert problem(worker_type(), min_accuracy=0.99).classes == ()
    assert problem(worker_type(), latency_s=0.001).classes == ()


@pytest.mark.parametrize(("spot_factor", "chosen"), [(1.2, "spot"), (3.0, "cpu")])
def test_a_spot_machine_costs_what_it_costs_but_its_risk_counts(spot_factor: float, chosen: str) -> None:
    spot = replace(worker_type("spot", usd=0.2), spot=True)
    plan = solve(problem(worker_type("cpu", usd=0.4), spot, spot_factor=spot_factor))
    assert {name for name, count in plan.workers.items() if count} == {chosen}
    assert plan.machines_usd_per_hour == {"spot": 0.2, "cpu": 0.4}[chosen]
    assert plan.bound_usd_per_hour <= plan.objective_usd_per_hour + 1e-9


SLOW = offer("slow", usd=0.003, accuracy=0.95, p99_ms=[(1, 400.0), (8, 1600.0)], rate_qps=10)


class TestOnMiss:
    def test_less_accurate_ones_may_answer_who_accepts_it(self) -> None:
        made = problem(worker_type(), min_accuracy=0.8, on_miss=OnMiss.DEGRADE)
        (large, small) = sorted(made.classes[0].options, key=lambda x: x.beyond_slo)
        assert (names(made), small.beyond_slo, large.beyond_slo) == ([SMALL.name, LARGE.name], True, False)
        assert large.penalty_usd_per_1k < small.penalty_usd_per_1k < made.classes[0].refusal_usd_per_1k
        for on_miss in (OnMiss.REJECT, OnMiss.LATE):
            assert names(problem(worker_type(), min_accuracy=0.8, on_miss=on_miss)) == [LARGE.name]

    def test_slower_ones_may_answer_who_accepts_to_be_late(self) -> None:
        three = (SMALL, LARGE, SLOW)
        made = problem(worker_type(), offers=three, latency_s=0.2, min_accuracy=0.8, on_miss=OnMiss.LATE)
        assert {x.beyond_slo for x in made.classes[0].options} == {True, False}
        assert names(made) == [LARGE.name, SLOW.name]
        for on_miss in (OnMiss.REJECT, OnMiss.DEGRADE):
            assert SLOW.name not in names(
                problem(worker_type(), offers=three, latency_s=0.2, min_accuracy=0.8, on_miss=on_miss)
            )

    @pytest.mark.parametrize("on_miss", list(OnMiss))
    def test_the_greatest_price_stays(self, on_miss: OnMiss) -> None:
        asked = {"min_accuracy": 0.8, "latency_s": 0.2, "max_usd_per_1k": 0.0025, "on_miss": on_miss}
        found = names(problem(worker_type(), offers=(offer("dear", usd=0.1, accuracy=0.7), LARGE, SLOW), **asked))
        assert found == [LARGE.name]

    def test_the_further_from_the_slo_the_dearer(self) -> None:
        offers = [offer(f"at-{x}", usd=0.001 + x / 1000, accuracy=x / 10) for x in (2, 5, 8)]
        options = problem(worker_type(), offers=offers, min_accuracy=0.9, on_miss=OnMiss.DEGRADE).classes[0].options
        prices = [x.penalty_usd_per_1k for x in options]
        assert prices == sorted(prices, reverse=True)
        assert len(set(prices)) == 3

    def test_where_nothing_meets_the_slo_the_best_there_is_is_planned(self) -> None:
        made = problem(worker_type(), min_accuracy=0.99, on_miss=OnMiss.DEGRADE)
        plan = solve(made)
        assert set(plan.replicas) == {LARGE.name}
        assert sum(plan.beyond_slo_qps.values()) == pytest.approx(50.0)
        assert plan.refused_qps == {}

    @pytest.mark.parametrize(("accepting", "beyond"), [(OnMiss.REJECT, False), (OnMiss.DEGRADE, True)])
    def test_where_machines_are_short_rows_are_degraded_instead_of_refused(
        self, accepting: OnMiss, beyond: bool
    ) -> None:
        asked = wanted(min_accuracy=0.8, demand_qps=4000.0, on_miss=accepting)
        plan = solve(problem_of([worker_type(most=1)], [asked], offers=(QUICK, LARGE)))
        assert bool(plan.beyond_slo_qps) is beyond
        assert bool(plan.refused_qps) is not beyond

    def test_where_machines_are_short_rows_may_be_late_instead_of_refused(self) -> None:
        asked = wanted(min_accuracy=0.8, latency_s=0.055, demand_qps=1800.0, on_miss=OnMiss.LATE)
        plan = solve(problem_of([worker_type(cpu=2.0, most=1)], [asked], offers=(LARGE, BULK)))
        assert BULK.name in plan.replicas
        assert plan.refused_qps == {}

    def test_where_machines_can_be_had_nobody_is_degraded(self) -> None:
        made = problem(worker_type(most=10), min_accuracy=0.8, demand_qps=100.0, on_miss=OnMiss.DEGRADE)
        assert solve(made).beyond_slo_qps == {}

    def test_no_price_of_a_miss_is_above_that_of_refusing(self) -> None:
        made = problem_of(
            [worker_type()],
            [wanted(min_accuracy=0.8, on_miss=OnMiss.DEGRADE)],
            PlannerSettings(refusal_factor=2.0, degrade_factor=9.0),
        )
        (asked,) = made.classes
        wear = max(SMALL.usd_per_1k, LARGE.usd_per_1k)
        assert all(x.penalty_usd_per_1k <= asked.refusal_usd_per_1k + wear for x in asked.options)
