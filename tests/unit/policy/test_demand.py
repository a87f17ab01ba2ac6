"""Queries of a window as classes of demand."""

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.demand import class_counts, size_of
from infaas_ray.policy.demand_classes import DemandClasses
from infaas_ray.policy.messages import ClassCount
from tests.unit.policy.builders import traffic


def test_near_bounds_are_one_class_and_what_a_miss_allows_tells_classes_apart() -> None:
    asked = {
        ("t", SLO(latency_s=0.100, min_accuracy=0.8), 1): 3,
        ("t", SLO(latency_s=0.101, min_accuracy=0.8), 1): 4,
        ("t", SLO(latency_s=0.100, min_accuracy=0.8, on_miss=OnMiss.DEGRADE), 1): 5,
        ("t", SLO(latency_s=0.100, min_accuracy=0.8, on_miss=OnMiss.LATE), 1): 6,
        ("t", SLO(latency_s=0.100, min_accuracy=0.8, offline=True), 1): 7,
    }
    missed = {("t", SLO(latency_s=0.100, min_accuracy=0.8, on_miss=OnMiss.DEGRADE), 1): 2}
    found = {x.on_miss: (x.rows, x.missed) for x in class_counts(asked, missed)}
    assert found == {OnMiss.REJECT: (7, 0), OnMiss.DEGRADE: (5, 2), OnMiss.LATE: (6, 0)}


def test_what_cannot_be_missed_is_no_class_of_its_own() -> None:
    asked = {("t", SLO(on_miss=x), 1): 1 for x in OnMiss}
    (found,) = class_counts(asked, {})
    assert (found.rows, found.on_miss) == (3, OnMiss.REJECT)


def test_queries_of_like_size_are_one_class() -> None:
    asked = {("t", SLO(), 1): 10, ("t", SLO(), 33): 1, ("t", SLO(), 64): 3}
    small, large = class_counts(asked, {("t", SLO(), 40): 2})
    assert (small.rows, small.rows_each, small.missed) == (10, 1.0, 0)
    assert (large.rows, large.rows_each, large.missed) == (33 + 3 * 64, (33 + 3 * 64) / 4, 2 * 40)
    assert [size_of(x) for x in (1, 1.5, 2, 33, 64, 65)] == [1, 2, 2, 64, 64, 128]


def test_demand_is_kept_by_class() -> None:
    classes = DemandClasses(0.95)
    counts = [ClassCount(target="t", min_accuracy=0.8, on_miss=x, rows=10) for x in OnMiss]
    classes.take([traffic(classes=counts)], 1.0)
    assert [x.key.on_miss for x in classes] == list(OnMiss)
