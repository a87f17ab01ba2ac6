"""Which plan is followed, of those that were asked for and made."""

import pytest

from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.messages import CatalogChanged, ClassCount, PlanMade, SolvePlan
from infaas_ray.policy.plan_book import PlanBook
from infaas_ray.policy.planner.solve import solve
from tests.unit.policy.builders import catalog, offer, ready, traffic, v, worker, worker_type

SETTINGS = ScalingSettings(strategy="planner", start_overhead_s=0.0)


class Turns:
    """An autoscaler and a book of its plans; each second is a turn in which the same is asked for."""

    def __init__(self, settings: ScalingSettings = SETTINGS) -> None:
        self.autoscaler, self.book, self.now = Autoscaler(settings), PlanBook(), 0.0
        self.asked: list[SolvePlan] = []
        types = [worker_type("cpu", usd=0.4)]
        self.turn(CatalogChanged(catalog=catalog(offer("a"), types=types)), worker("w1", kind="cpu"))

    def turn(self, *events: object, rows: int = 40) -> None:
        self.now += 1.0
        count = ClassCount(target="a", latency_s=0.5, min_accuracy=0.7, rows=rows)
        told = [*events, traffic({v("a"): rows}, classes=[count])]
        actions = self.autoscaler.step(told, self.now)  # type: ignore[arg-type]
        self.asked += [x for x in actions if isinstance(x, SolvePlan)]
        self.book.note(told, actions, self.autoscaler.followed or 0, self.now)  # type: ignore[arg-type]

    def follow(self) -> None:
        """Report the plan that was asked for last, and let demand call for another."""
        last = self.asked[-1]
        self.turn(PlanMade(number=last.number, plan=solve(last.problem), took_s=0.25))
        while self.asked[-1] is last:
            self.turn()


def test_a_plan_is_shown_with_its_problem_once_it_is_followed() -> None:
    turns = Turns()
    assert turns.book.running(turns.autoscaler, turns.now).followed is None
    turns.follow()
    (first, second), asked_at = turns.asked, turns.now
    turns.turn(ready(f"{v('a')}#1"))
    found = turns.book.running(turns.autoscaler, turns.now)
    assert found.followed is not None
    assert found.followed.number == first.number
    assert found.followed.problem is first.problem
    turns.follow()
    found = turns.book.running(turns.autoscaler, turns.now)
    assert found.followed is not None
    assert found.followed.problem is second.problem
    assert found.followed.plan == solve(second.problem)
    assert found.followed.because == second.because
    assert found.followed.age_s == turns.now - asked_at
    assert found.workers == {"cpu": 1}
    assert found.ready == {v("a"): {"cpu": 1}}


def test_what_is_older_than_the_plan_that_is_followed_is_forgotten() -> None:
    turns = Turns()
    turns.follow()
    first = turns.autoscaler.followed or 0
    assert turns.book.followed(first, turns.now) is not None
    turns.follow()
    assert turns.autoscaler.followed == first + 1
    assert turns.book.followed(first, turns.now) is None


def test_a_plan_that_failed_is_not_followed() -> None:
    turns = Turns()
    turns.turn(PlanMade(number=turns.asked[-1].number, plan=None, took_s=1.0, reason="no time"))
    assert turns.book.running(turns.autoscaler, turns.now).followed is None


def test_alternatives_are_what_would_be_asked_for_with_one_bound_looser() -> None:
    turns = Turns()
    turns.follow()
    problems = turns.book.running(turns.autoscaler, turns.now, others=10).problems
    now = problems[""].classes[0]
    assert len(problems) == 3
    latency = next(x for name, x in problems.items() if name.endswith("within 750 ms, accuracy 0.9"))
    assert latency.classes[0].demand_qps == pytest.approx(now.demand_qps)
    assert latency.classes[0].options[0].rate_qps >= now.options[0].rate_qps
    assert any(name.endswith("accuracy 0.88") for name in problems)
    assert len(turns.book.running(turns.autoscaler, turns.now, others=1).problems) == 2


def test_other_strategies_make_no_plans() -> None:
    turns = Turns(ScalingSettings(strategy="individual", start_overhead_s=0.0))
    assert turns.autoscaler.followed is None
    found = turns.book.running(turns.autoscaler, turns.now, others=5)
    assert (found.strategy, found.followed, found.problems) == ("individual", None, {})
