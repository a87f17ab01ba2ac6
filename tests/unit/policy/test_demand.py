"""Queries of a window as classes of demand."""

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.demand import class_counts, size_of
from infaas_ray.policy.demand_classes import DemandClasses
from infaas_ray.policy.messages import ClassCount
from infaas_ray.policy.planner.build import Known
from tests.unit.policy.builders import USE_CASE, catalog, offer, traffic


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


def test_bounds_that_admit_the_same_variants_are_one_class() -> None:
    found = catalog(offer("poor", accuracy=0.7, usd=0.001), offer("good", accuracy=0.9, usd=0.002))
    known = Known(found, found.targets())
    classes = DemandClasses(0.95)
    counts = [
        ClassCount(target=USE_CASE, min_accuracy=0.7 + x / 10_000, max_usd_per_1k=0.0021 + x / 1e6, rows=1)
        for x in range(1, 1000)
    ]
    classes.take([traffic(classes=counts)], 1.0, known.bounds)
    assert [(x.key.min_accuracy, x.key.max_usd_per_1k) for x in classes] == [(0.9, 0.002)]


def test_of_too_many_classes_the_last_are_left_out_until_others_are_silent() -> None:
    classes = DemandClasses(0.95)
    counts = [ClassCount(target=f"t{number}", rows=1) for number in range(2001)]
    classes.take([traffic(classes=counts)], 1.0)
    assert [x.key.target for x in classes] == [f"t{number}" for number in range(2000)]
    classes.take([traffic(classes=counts[:1])], 20.0)
    classes.take([traffic(classes=counts[2000:])], 21.0)
    assert [x.key.target for x in classes] == ["t0", *(f"t{number}" for number in range(2, 2001))]
