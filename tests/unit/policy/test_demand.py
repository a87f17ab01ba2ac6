"""Queries of a window as classes of demand."""

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.demand import class_counts
from infaas_ray.policy.demand_classes import DemandClasses
from infaas_ray.policy.messages import ClassCount
from tests.unit.policy.builders import traffic


def test_near_bounds_are_one_class_and_what_a_miss_allows_tells_classes_apart() -> None:
    asked = {
        ("t", SLO(latency_s=0.100, min_accuracy=0.8)): 3,
        ("t", SLO(latency_s=0.101, min_accuracy=0.8)): 4,
        ("t", SLO(latency_s=0.100, min_accuracy=0.8, on_miss=OnMiss.DEGRADE)): 5,
        ("t", SLO(latency_s=0.100, min_accuracy=0.8, on_miss=OnMiss.LATE)): 6,
        ("t", SLO(latency_s=0.100, min_accuracy=0.8, offline=True)): 7,
    }
    missed = {("t", SLO(latency_s=0.100, min_accuracy=0.8, on_miss=OnMiss.DEGRADE)): 2}
    found = {x.on_miss: (x.rows, x.missed) for x in class_counts(asked, missed)}
    assert found == {OnMiss.REJECT: (7, 0), OnMiss.DEGRADE: (5, 2), OnMiss.LATE: (6, 0)}


def test_what_cannot_be_missed_is_no_class_of_its_own() -> None:
    asked = {("t", SLO(on_miss=x)): 1 for x in OnMiss}
    (found,) = class_counts(asked, {})
    assert (found.rows, found.on_miss) == (3, OnMiss.REJECT)


def test_demand_is_kept_by_class() -> None:
    classes = DemandClasses(0.95)
    counts = [ClassCount(target="t", min_accuracy=0.8, on_miss=x, rows=10) for x in OnMiss]
    classes.take([traffic(classes=counts)], 1.0)
    assert [x.key[-1] for x in classes] == list(OnMiss)
