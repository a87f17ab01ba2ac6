"""Replicas beyond a plan, where its machines have room."""

import pytest
from hypothesis import given, settings

from infaas_ray.policy.planner.problem import PlanClass, PlanPlace, PlanType, PlanVariant
from infaas_ray.policy.planner.solve import solve
from tests.unit.policy.planner.problems import asked, at, option, problem, small_problems, variant, worker


def spare(variants: list[PlanVariant], demands: list[PlanClass], cpu: float = 4.0) -> dict[str, int]:
    plan = solve(problem([worker(cpu=cpu)], variants, demands))
    assert plan.workers == {"cpu": 1}
    return {name: by_type["cpu"] for name, by_type in plan.spare.items()}


@pytest.mark.parametrize(("demand", "there", "more"), [(8, 0, 3), (4, 0, 1), (2, 0, 0), (2, 2, 1), (1, 2, 0)])
def test_replicas_are_added_until_none_is_busy_and_those_that_are_there_stay_longer(
    demand: float, there: int, more: int
) -> None:
    found = spare([variant("a", at(1.0, now=there))], [asked(demand, option(0, rate=10))])
    assert found.get("a", 0) == more


def test_the_busiest_comes_first() -> None:
    demands = [asked(4, option(0), name="some"), asked(9, option(1), name="other")]
    assert spare([variant("a"), variant("b")], demands, cpu=3.0) == {"b": 1}


def test_nobody_shares_cores_for_a_spare_one() -> None:
    shared = at(0.5, works=2.0)
    demands = [asked(9, option(0, use=0.1), name="some"), asked(9, option(1, use=0.1), name="other")]
    assert spare([variant("a", shared), variant("b", shared)], demands) == {}
    assert spare([variant("a", shared), variant("b", shared)], demands, cpu=6.0) == {"a": 1}


@pytest.mark.parametrize(("gpus", "more"), [(1, {}), (2, {"a": 1, "b": 1}), (3, {"a": 2, "b": 2})])
def test_a_shared_gpu_has_room_beside_others_for_one_of_each(gpus: int, more: dict[str, int]) -> None:
    shared = PlanPlace(worker_type=0, holds={"GPU": 0.2}, works={"GPU": 1.0})
    machine = PlanType(name="gpu", resources={"GPU": 1.0}, usd_per_hour=1.0, now=gpus, least=gpus, most=gpus)
    demands = [asked(9, option(0, use=0.1), name="some"), asked(9, option(1, use=0.1), name="other")]
    plan = solve(problem([machine], [variant("a", shared), variant("b", shared)], demands))
    assert plan.replicas == {"a": {"gpu": 1}, "b": {"gpu": 1}}
    assert {name: x["gpu"] for name, x in plan.spare.items()} == more


def test_what_is_held_of_a_gpu_is_no_room() -> None:
    shared = PlanPlace(worker_type=0, holds={"GPU": 0.9}, works={"GPU": 1.0})
    machine = PlanType(name="gpu", resources={"GPU": 1.0}, usd_per_hour=1.0, now=2, least=2, most=2)
    demands = [asked(9, option(0, use=0.1), name="some"), asked(9, option(1, use=0.1), name="other")]
    plan = solve(problem([machine], [variant("a", shared), variant("b", shared)], demands))
    assert plan.spare == {}


def test_no_more_than_there_may_be_and_none_for_what_answers_nothing() -> None:
    demands = [asked(8, option(0))]
    assert spare([variant("a", most=2), variant("b", least=1)], demands) == {"a": 1}


@settings(max_examples=20, deadline=None)
@given(small_problems)
def test_all_has_room_on_the_workers_of_the_plan(made: object) -> None:
    plan = solve(made, gap=0.05)
    for at_type in made.types:
        held = sum(
            x.holds.get("CPU", 0.0) * (plan.replicas.get(one.name, {}).get(at_type.name, 0) + more)
            for one in made.variants
            for x in one.places
            if made.types[x.worker_type].name == at_type.name
            and (more := plan.spare.get(one.name, {}).get(at_type.name, 0)) > 0
        )
        assert held <= at_type.resources["CPU"] * plan.workers[at_type.name] + 1e-6
