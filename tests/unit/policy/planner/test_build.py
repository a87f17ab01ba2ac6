"""From a fleet and what is wanted of it to a problem."""

from dataclasses import replace

import pytest

from infaas_ray.domain import WorkerType
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.messages import CatalogChanged
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.problem import PlanProblem
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.scaling.settings import PlannerSettings
from tests.unit.policy.builders import USE_CASE, catalog, offer, worker_type

SMALL = offer("small", usd=0.001, accuracy=0.7)
LARGE = offer("large", usd=0.002, accuracy=0.9)


def problem(*types: WorkerType, spot_factor: float = 1.2, **asked: float) -> PlanProblem:
    fleet = Fleet(4.0)
    fleet.apply(CatalogChanged(catalog=catalog(SMALL, LARGE, types=types)), 0.0)
    bounds = {"latency_s": None, "min_accuracy": None, "max_usd_per_1k": None} | asked
    wanted = Wanted(target=USE_CASE, demand_qps=50.0, z=2.0, **bounds)  # type: ignore[arg-type]
    known = Known(fleet.catalog, fleet.targets)
    return Builder(fleet, known, PlannerSettings(spot_factor=spot_factor), {}, 0.0).build([wanted])


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
