"""What is wanted of a small fleet, and the problem that it makes."""

from collections.abc import Sequence
from typing import Any

from infaas_ray.domain import WorkerType
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.messages import CatalogChanged
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.problem import PlanProblem
from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.settings import PlannerSettings
from tests.unit.policy.builders import USE_CASE, catalog, offer

SMALL = offer("small", usd=0.001, accuracy=0.7)
LARGE = offer("large", usd=0.002, accuracy=0.9)
QUICK = offer("quick", usd=0.0005, accuracy=0.7, rate_qps=2000, p99_ms=[(1, 1.0), (8, 8.0)])
BULK = offer("bulk", usd=0.003, accuracy=0.95, p99_ms=[(1, 60.0), (64, 70.0)], rate_qps=1800, batch_limit=64)


def wanted(**asked: Any) -> Wanted:
    default = {"latency_s": None, "min_accuracy": None, "max_usd_per_1k": None, "demand_qps": 50.0, "z": 2.0}
    return Wanted(target=USE_CASE, **(default | asked))


def problem_of(
    types: Sequence[WorkerType],
    asked: Sequence[Wanted],
    settings: PlannerSettings = PlannerSettings(),  # noqa: B008  # frozen
    offers: Sequence[Offer] = (SMALL, LARGE),
) -> PlanProblem:
    fleet = Fleet(4.0)
    fleet.apply(CatalogChanged(catalog=catalog(*offers, types=types)), 0.0)
    known = Known(fleet.catalog, fleet.targets)
    return Builder(fleet, known, settings, {}, 0.0).build(asked)
