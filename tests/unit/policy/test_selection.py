"""Selection, one rule at a time: a table, a load and a query in, a decision out."""

from math import inf

import pytest

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.errors import UnknownTarget
from infaas_ray.policy.candidates import Condition
from infaas_ray.policy.selection import Dispatch, Load, Reject, ReplicaLoad, SelectionIndex, explain, select
from tests.unit.policy.builders import USE_CASE, offer, table, v

CHEAP = offer("cheap", usd=0.01, accuracy=0.80, p99_ms=((1, 10), (8, 24)))
GOOD = offer("good", usd=0.02, accuracy=0.95, p99_ms=((1, 20), (8, 60)))
FAST = offer("fast", usd=0.05, accuracy=0.90, p99_ms=((1, 2), (8, 4)), rate_qps=1000)
ALL = (GOOD, FAST, CHEAP)


def index(ready: dict[str, int] | None = None, **kwargs: dict[str, float] | dict[str, str]) -> SelectionIndex:
    return SelectionIndex(table(*ALL, ready=ready, **kwargs))  # type: ignore[arg-type]


ALL_READY = {v("cheap"): 1, v("good"): 1, v("fast"): 1}


class TestReady:
    def test_the_cheapest_that_meets_the_slo(self) -> None:
        found = select(USE_CASE, 1, SLO(), index(ALL_READY), {})
        assert found == Dispatch(
            replica=v("cheap") + "#1", variant=v("cheap"), expected_s=pytest.approx(0.010), wanted=v("cheap")
        )

    @pytest.mark.parametrize(
        ("slo", "expected"),
        [
            (SLO(min_accuracy=0.85), "good"),
            (SLO(latency_s=0.005), "fast"),
            (SLO(latency_s=0.015, min_accuracy=0.85), "fast"),
            (SLO(latency_s=0.5, max_usd_per_1k=0.015), "cheap"),
        ],
    )
    def test_each_bound_counts(self, slo: SLO, expected: str) -> None:
        found = select(USE_CASE, 1, slo, index(ALL_READY), {})
        assert isinstance(found, Dispatch)
        assert found.variant == v(expected)

    def test_rows_take_longer(self) -> None:
        slo = SLO(latency_s=0.015)
        assert select(USE_CASE, 1, slo, index(ALL_READY), {}).wanted == v("cheap")
        assert select(USE_CASE, 8, slo, index(ALL_READY), {}).wanted == v("fast")

    def test_more_rows_than_a_batch_run_as_several(self) -> None:
        found = select(v("cheap"), 20, SLO(), index(ALL_READY), {})
        assert isinstance(found, Dispatch)
        assert found.expected_s == pytest.approx(3 * 0.024)

    def test_the_least_loaded_replica_of_the_variant(self) -> None:
        loads = {v("cheap") + "#1": ReplicaLoad(5), v("cheap") + "#2": ReplicaLoad(1)}
        found = select(USE_CASE, 1, SLO(), index({v("cheap"): 2}), loads)
        assert isinstance(found, Dispatch)
        assert found.replica == v("cheap") + "#2"
        assert found.expected_s == pytest.approx(1 / 100 + 0.012)

    def test_among_idle_replicas_the_first_so_that_others_can_be_given_back(self) -> None:
        found = select(USE_CASE, 1, SLO(), index({v("cheap"): 3}), {})
        assert isinstance(found, Dispatch)
        assert found.replica == v("cheap") + "#1"

    def test_a_backlog_sends_the_query_to_the_next_best(self) -> None:
        loads = {v("cheap") + "#1": ReplicaLoad(10)}
        found = select(USE_CASE, 1, SLO(latency_s=0.05), index(ALL_READY), loads)
        assert isinstance(found, Dispatch)
        assert (found.variant, found.wanted) == (v("good"), v("cheap"))

    def test_a_slow_replica_counts_as_slow(self) -> None:
        loads = {v("cheap") + "#1": ReplicaLoad(0, slowdown=3.0)}
        found = select(USE_CASE, 1, SLO(latency_s=0.025), index(ALL_READY), loads)
        assert isinstance(found, Dispatch)
        assert found.variant == v("good")

    def test_what_has_passed_since_arrival_is_gone(self) -> None:
        slo = SLO(latency_s=0.025)
        found = select(USE_CASE, 1, slo, index(ALL_READY), {}, waited_s=0.010)
        assert isinstance(found, Dispatch)
        assert found.variant == v("cheap")
        found = select(USE_CASE, 1, slo, index(ALL_READY), {}, waited_s=0.020)
        assert isinstance(found, Dispatch)
        assert (found.variant, found.wanted) == (v("fast"), v("cheap"))

    def test_a_full_queue_is_closed_even_without_a_bound(self) -> None:
        loads = {v("cheap") + "#1": ReplicaLoad(3001)}
        assert isinstance(select(v("cheap"), 1, SLO(), index(ALL_READY), loads), Reject)
        loads = {v("cheap") + "#1": ReplicaLoad(3000)}
        assert isinstance(select(v("cheap"), 1, SLO(), index(ALL_READY), loads), Dispatch)

    def test_a_ready_one_is_used_although_a_cheaper_one_could_be_loaded(self) -> None:
        found = select(USE_CASE, 1, SLO(latency_s=10), index({v("fast"): 1}), {})
        assert isinstance(found, Dispatch)
        assert (found.variant, found.wanted) == (v("fast"), v("cheap"))

    def test_what_cannot_grow_is_not_wanted_unless_it_takes_the_query(self) -> None:
        blocked = {v("cheap"): "no room"}
        taken = select(USE_CASE, 1, SLO(latency_s=0.05), index(ALL_READY, blocked=blocked), {})
        assert (taken.wanted, isinstance(taken, Dispatch)) == (v("cheap"), True)
        loads = {v("cheap") + "#1": ReplicaLoad(10)}
        moved = select(USE_CASE, 1, SLO(latency_s=0.05), index(ALL_READY, blocked=blocked), loads)
        assert moved.wanted == v("good")

    @pytest.mark.parametrize("target", [USE_CASE, "classification", "cheap", v("cheap")])
    def test_every_kind_of_target(self, target: str) -> None:
        assert isinstance(select(target, 1, SLO(), index(ALL_READY), {}), Dispatch)

    def test_an_unknown_target_names_those_that_exist(self) -> None:
        with pytest.raises(UnknownTarget, match=r"unknown target 'dogs'; known: .*cheap"):
            select("dogs", 1, SLO(), index(ALL_READY), {})


class TestLoad:
    def test_the_cheapest_that_can_be_loaded_in_time(self) -> None:
        found = select(USE_CASE, 1, SLO(latency_s=2, min_accuracy=0.85), index(), {})
        assert found == Load(variant=v("good"), expected_s=pytest.approx(1.02), wanted=v("good"))

    def test_not_when_there_is_no_time(self) -> None:
        found = select(USE_CASE, 1, SLO(latency_s=0.5), index(), {})
        assert isinstance(found, Reject)
        assert not found.permanent

    def test_a_load_under_way_may_be_in_time(self) -> None:
        slo = SLO(latency_s=0.5)
        found = select(USE_CASE, 1, slo, index(loading={v("good"): 0.3}), {})
        assert found == Load(variant=v("good"), expected_s=pytest.approx(0.32), wanted=v("cheap"))

    def test_the_age_of_the_table_has_passed_of_a_load_under_way(self) -> None:
        slo = SLO(latency_s=0.2)
        assert isinstance(select(v("good"), 1, slo, index(loading={v("good"): 0.3}), {}), Reject)
        found = select(v("good"), 1, slo, index(loading={v("good"): 0.3}), {}, table_age_s=0.2)
        assert isinstance(found, Load)
        assert found.expected_s == pytest.approx(0.12)

    def test_without_a_bound_what_loads_already_goes_first(self) -> None:
        found = select(USE_CASE, 1, SLO(), index(loading={v("good"): 5.0}), {})
        assert isinstance(found, Load)
        assert found.variant == v("good")
        found = select(USE_CASE, 1, SLO(), index(), {})
        assert isinstance(found, Load)
        assert found.variant == v("cheap")

    def test_what_is_blocked_is_not_loaded(self) -> None:
        found = select(USE_CASE, 1, SLO(), index(blocked={v("cheap"): "no room"}), {})
        assert isinstance(found, Load)
        assert (found.variant, found.wanted) == (v("good"), v("good"))

    def test_those_that_wait_for_the_load_are_ahead(self) -> None:
        slo = SLO(latency_s=2)
        loads = {v("cheap"): ReplicaLoad(200)}
        found = select(v("cheap"), 1, slo, index(), loads)
        assert isinstance(found, Reject)
        assert isinstance(select(v("cheap"), 1, SLO(), index(), {v("cheap"): ReplicaLoad(4000)}), Reject)


class TestOnMiss:
    def test_degrade_takes_the_most_accurate_in_time(self) -> None:
        slo = SLO(latency_s=0.015, min_accuracy=0.95, on_miss=OnMiss.DEGRADE)
        found = select(USE_CASE, 1, slo, index(ALL_READY), {})
        assert found == Dispatch(
            replica=v("fast") + "#1",
            variant=v("fast"),
            expected_s=pytest.approx(0.002),
            degraded=True,
            wanted=v("fast"),
        )

    def test_degrade_keeps_the_price(self) -> None:
        slo = SLO(latency_s=0.015, min_accuracy=0.95, max_usd_per_1k=0.02, on_miss=OnMiss.DEGRADE)
        found = select(USE_CASE, 1, slo, index(ALL_READY), {})
        assert isinstance(found, Dispatch)
        assert (found.variant, found.degraded) == (v("cheap"), True)

    def test_degrade_is_not_needed_while_the_slo_can_be_met(self) -> None:
        slo = SLO(latency_s=0.05, min_accuracy=0.9, on_miss=OnMiss.DEGRADE)
        found = select(USE_CASE, 1, slo, index(ALL_READY), {})
        assert isinstance(found, Dispatch)
        assert (found.variant, found.degraded) == (v("good"), False)

    def test_degrade_loads_the_most_accurate_where_nothing_is_ready(self) -> None:
        found = select(USE_CASE, 1, SLO(min_accuracy=0.99, on_miss=OnMiss.DEGRADE), index(), {})
        assert isinstance(found, Load)
        assert (found.variant, found.wanted) == (v("good"), v("good"))

    def test_degrade_refuses_for_good_only_what_is_too_fast_for_all(self) -> None:
        slo = SLO(latency_s=0.001, min_accuracy=0.99, on_miss=OnMiss.DEGRADE)
        found = select(USE_CASE, 1, slo, index(ALL_READY), {})
        assert isinstance(found, Reject)
        assert found.permanent

    def test_late_takes_the_earliest_at_the_asked_accuracy(self) -> None:
        slo = SLO(latency_s=0.001, min_accuracy=0.85, on_miss=OnMiss.LATE)
        found = select(USE_CASE, 1, slo, index(ALL_READY), {})
        assert isinstance(found, Dispatch)
        assert (found.variant, found.degraded, found.wanted) == (v("fast"), False, v("fast"))
        loads = {v("fast") + "#1": ReplicaLoad(100)}
        found = select(USE_CASE, 1, slo, index(ALL_READY), loads)
        assert isinstance(found, Dispatch)
        assert found.variant == v("good")

    def test_late_loads_where_nothing_is_ready(self) -> None:
        slo = SLO(latency_s=0.001, on_miss=OnMiss.LATE)
        found = select(USE_CASE, 1, slo, index(loading={v("cheap"): 0.1}), {})
        assert isinstance(found, Load)
        assert found.variant == v("cheap")

    def test_late_respects_full_queues(self) -> None:
        slo = SLO(latency_s=0.02, on_miss=OnMiss.LATE)
        found = select(v("cheap"), 1, slo, index({v("cheap"): 1}), {v("cheap") + "#1": ReplicaLoad(4000)})
        assert isinstance(found, Reject)
        assert found.retry_after_s == pytest.approx(10.0)


class TestExplain:
    def test_every_candidate_has_its_figures_and_a_reason(self) -> None:
        loads = {v("cheap") + "#1": ReplicaLoad(10)}
        found = explain(USE_CASE, 1, SLO(latency_s=0.05), index(ALL_READY), loads)
        assert [(x.variant, x.replicas, x.chosen) for x in found] == [
            (v("cheap"), 1, False),
            (v("good"), 1, True),
            (v("fast"), 1, False),
        ]
        assert found[0].expected_ms == pytest.approx(124)
        assert found[0].why == "busy: would answer in 124 ms; the bound leaves 50 ms"
        assert found[1].why.startswith("chosen: the cheapest that meets the SLO")
        assert found[2].why == f"meets the SLO, but {v('good')} is cheaper"

    def test_what_is_not_loaded_is_told_apart(self) -> None:
        found = explain(USE_CASE, 1, SLO(latency_s=9), index({v("fast"): 1}, blocked={v("good"): "no room"}), {})
        assert [x.why for x in found[:2]] == [
            f"could be loaded in time, but {v('fast')} is ready",
            "cannot be loaded now: no room",
        ]
        assert [x.expected_ms for x in found[:2]] == [pytest.approx(1010), None]

    def test_chosen_on_a_miss(self) -> None:
        slo = SLO(latency_s=0.015, min_accuracy=0.95, on_miss=OnMiss.DEGRADE)
        why = next(x.why for x in explain(USE_CASE, 1, slo, index(ALL_READY), {}) if x.chosen)
        assert why == "chosen: the most accurate in time; accuracy 0.9 is below 0.95"
        slo = SLO(latency_s=0.001, on_miss=OnMiss.LATE)
        why = next(x.why for x in explain(USE_CASE, 1, slo, index(ALL_READY), {}) if x.chosen)
        assert why == "chosen: the earliest answer, though late; takes 2 ms for 1 row; the bound is 1 ms"

    def test_chosen_for_loading(self) -> None:
        found = explain(USE_CASE, 1, SLO(), index(loading={v("good"): 0.5}), {})
        assert [x.why for x in found] == [
            f"not loaded; {v('good')} is loading already",
            "chosen: worth loading; answers in 520 ms",
            f"meets the SLO, but {v('good')} is cheaper",
        ]


def test_an_index_lends_its_successor_what_depends_on_the_catalogue() -> None:
    first = index(ALL_READY)
    second = SelectionIndex(first.table, first)
    other = SelectionIndex(table(GOOD, ready={v("good"): 1}), first)
    assert select(USE_CASE, 1, SLO(), second, {}) == select(USE_CASE, 1, SLO(), first, {})
    found = select(USE_CASE, 1, SLO(), other, {})
    assert isinstance(found, Dispatch)
    assert found.variant == v("good")
    assert other.offer(v("good")) == GOOD
    assert explain(USE_CASE, 1, SLO(), other, {})[0].expected_ms != inf


class TestConditions:
    """The states of the original: recognised from measurements, avoided, tried again."""

    def test_backlog_is_overload_and_slowness_without_it_interference(self) -> None:
        found = index(ALL_READY)
        replica = next(x for x in found.table.replicas if x.variant == v("cheap"))
        assert found.condition(replica, ReplicaLoad()) is Condition.STEADY
        assert found.condition(replica, ReplicaLoad(slowdown=2.0)) is Condition.INTERFERED
        assert found.condition(replica, ReplicaLoad(rows_in_flight=10_000, slowdown=2.0)) is Condition.OVERLOADED
        assert found.condition(replica, ReplicaLoad(rows_elsewhere=10_000)) is Condition.OVERLOADED

    def test_an_interfered_replica_is_avoided_and_its_state_is_told(self) -> None:
        loads = {v("cheap") + "#1": ReplicaLoad(slowdown=3.0)}
        slo = SLO(latency_s=0.025)
        found = select(USE_CASE, 1, slo, index(ALL_READY), loads)
        assert isinstance(found, Dispatch)
        assert found.variant == v("good")
        (why,) = [x.why for x in explain(USE_CASE, 1, slo, index(ALL_READY), loads) if x.variant == v("cheap")]
        assert why.startswith("interfered, 3.0 times slower than profiled")

    def test_offline_rows_stand_before_offline_queries_only(self) -> None:
        loads = {v("cheap") + "#1": ReplicaLoad(rows_offline=400)}
        online = select(v("cheap"), 1, SLO(), index(ALL_READY), loads)
        offline = select(v("cheap"), 1, SLO(offline=True), index(ALL_READY), loads)
        assert isinstance(online, Dispatch)
        assert isinstance(offline, Dispatch)
        assert offline.expected_s > 10 * online.expected_s
