"""A plan in words and numbers."""

from dataclasses import replace

import msgspec
import pytest

from benchmarks.planner.world import Size, make_problem
from infaas_ray.policy.planner.explain import PlanExplanation, explain
from infaas_ray.policy.planner.problem import PlanProblem
from infaas_ray.policy.planner.solve import solve
from tests.unit.policy.planner.problems import asked, at, option, problem, variant, worker


def explained(made: PlanProblem, **others: PlanProblem) -> PlanExplanation:
    return explain(made, solve(made), others)


TWO = problem(
    [worker(now=1, boot=0.1)],
    [variant("a", at(1.0, now=1)), variant("b", at(2.0))],
    [asked(20, option(0), name="some"), asked(5, option(1), name="other")],
)


class TestMachines:
    def test_what_replicas_cost_and_the_spare_add_up_to_the_price(self) -> None:
        (found,) = explained(TWO).types
        places = explained(TWO).places
        assert (found.worker_type, found.workers, found.new, found.usd_per_hour) == ("cpu", 1, 0, 1.0)
        assert found.held == {"CPU": pytest.approx(1.0)}
        assert found.spare_usd_per_hour + sum(x.usd_per_hour for x in places) == pytest.approx(1.0)
        assert "100% of CPU is held" in found.because

    def test_for_any_plan_the_costs_add_up(self) -> None:
        made = make_problem(Size(architectures=6, use_cases=3, classes=12, rows_qps=20_000.0, limit=50), 1)
        found = explained(made)
        parts = sum(x.usd_per_hour for x in found.places) + sum(x.spare_usd_per_hour for x in found.types)
        assert parts == pytest.approx(sum(x.usd_per_hour for x in found.types))
        assert all(0 <= x <= 1 + 1e-6 for made_type in found.types for x in made_type.worked.values())

    def test_a_worker_that_must_be_there_says_so(self) -> None:
        made = replace(TWO, types=(worker(least=4),))
        assert "at least 4 are to be there" in explained(made).types[0].because


class TestReplicas:
    def test_whom_they_serve_and_what_is_new(self) -> None:
        a, b = explained(TWO).places
        assert (a.variant, a.replicas, a.new, a.shares, a.use) == ("a", 2, 1, {"some": 1.0}, pytest.approx(1.0))
        assert (b.variant, b.usd_per_hour, b.use) == ("b", pytest.approx(0.5), pytest.approx(0.5))
        assert b.because == "answers 100% of other"

    def test_those_that_must_be_there(self) -> None:
        made = problem([worker()], [variant("a", least=1)], [asked(0, option())])
        assert explained(made).places[0].because == "answers nothing now; at least 1 are to be there"


class TestClasses:
    def test_who_serves_them_at_what_marginal_price(self) -> None:
        some, other = explained(TWO).classes
        assert (some.served, some.because) == ({"a": pytest.approx(20.0)}, "100% by a")
        assert 0 < some.marginal_usd_per_1k < 10
        assert other.refused_qps == 0.0

    @pytest.mark.parametrize(
        ("made", "why"),
        [
            (problem([worker()], [], [asked(5)]), "no variant meets its SLO"),
            (
                problem([worker()], [replace(variant(), places=())], [asked(5, option())]),
                "no worker type can run what meets its SLO",
            ),
            (problem([worker(most=1)], [variant()], [asked(90, option())]), "are at their limit (1 x cpu)"),
            (problem([worker()], [variant(most=1)], [asked(90, option())]), "there may be no more replicas of a"),
            (problem([worker(usd=9.0)], [variant()], [asked(1, option(), refusal=0.1)]), "and $0.1 to refuse"),
        ],
    )
    def test_why_rows_are_refused(self, made: PlanProblem, why: str) -> None:
        (found,) = explained(made).classes
        assert found.refused_qps > 0
        assert why in found.because

    def test_what_is_answered_beyond_its_slo_is_told(self) -> None:
        made = problem(
            [worker(most=1)], [variant("a"), variant("b")], [asked(60, option(0), option(1, 30.0, 1.0, beyond=True))]
        )
        said = explained(made)
        (found,) = said.classes
        assert found.beyond_slo_qps == pytest.approx(found.served["b"])
        assert "rows/s of it beyond the SLO" in found.because
        assert "are answered beyond their SLO" in said.summary


class TestQuotes:
    def test_what_a_cheaper_slo_would_save_dearest_first(self) -> None:
        strict = asked(100, option(0), name="strict")
        made = problem([worker()], [variant("a"), variant("b", at(0.5))], [strict])
        looser = replace(made, classes=(replace(strict, options=(option(0), option(1))),))
        found = explained(made, same=made, looser=looser)
        assert [x.name for x in found.quotes] == ["looser", "same"]
        assert found.quotes[0].saves_usd_per_hour == pytest.approx(1.0)
        assert found.quotes[0].because == "saves $1 an hour"
        assert "saves nothing" in found.quotes[1].because

    def test_a_dearer_one_says_so(self) -> None:
        made = problem([worker()], [variant("a")], [asked(10, option(0, 30.0))])
        dearer = replace(made, classes=(asked(100, option(0, 10.0)),))
        assert explained(made, dearer=dearer).quotes[0].because == "costs $2 an hour more"


def test_the_summary_says_what_is_bought_and_how_good_the_plan_is() -> None:
    said = explained(TWO).summary
    assert said.startswith("1 x cpu for $1 an hour; no plan costs more than 0.0")
    refused = explained(problem([worker(most=1)], [variant()], [asked(90, option())])).summary
    assert "50 rows/s are refused" in refused


def test_the_summary_says_what_other_machines_would_save() -> None:
    types = [worker("cheap", usd=1.0, boot_usd=0.05), worker("dear", usd=3.0, now=1)]
    made = problem(types, [variant("a", at(on=0), at(on=1, now=1))], [asked(10, option())])
    assert "other machines would save $2 an hour" in explained(replace(made, saved_usd=0.0)).summary
    assert "other machines" not in explained(made).summary


def test_an_explanation_can_be_written_as_json() -> None:
    found = explained(TWO)
    assert msgspec.json.decode(msgspec.json.encode(found), type=PlanExplanation) == found
