"""The individual strategy, rule by rule, in a world that obeys."""

from itertools import pairwise

import pytest

from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import (
    CatalogChanged,
    LoadRequested,
    ReplicaDied,
    ReplicaFailed,
    StartReplica,
    WorkerLost,
)
from infaas_ray.policy.scaling.settings import ScalingSettings
from tests.unit.policy.builders import catalog, offer, traffic, v, worker, worker_type
from tests.unit.policy.fluid import Asked
from tests.unit.policy.world import World, drains, starts

A, B = v("a"), v("b")


def world(**changes: object) -> World:
    """Two variants of 100 rows/s each, and room for 16 replicas."""
    settings = ScalingSettings(strategy="individual", **changes)  # type: ignore[arg-type]
    return World(offer("a", usd=0.01), offer("b", usd=0.02), settings=settings)


class TestLoad:
    def test_a_load_that_a_query_asks_for_starts_at_once(self) -> None:
        made = world()
        (action,) = made.step(LoadRequested(variant=A, within_s=2.0))
        assert isinstance(action, StartReplica)
        assert (action.variant, action.replica, action.worker) == (A, A + "#1", "w1")
        assert action.because == "a query needs it within 2 s"

    def test_once_is_enough(self) -> None:
        made = world()
        asked = LoadRequested(variant=A)
        assert starts(made.step(asked, asked)) == [A]
        assert made.step(asked) == []

    def test_an_unknown_variant_is_refused_with_a_reason(self) -> None:
        made = world()
        assert made.step(LoadRequested(variant="x")) == []
        assert made.autoscaler.refused == ("load of unknown variant 'x'",)

    def test_sustained_demand_for_what_is_not_loaded_starts_it(self) -> None:
        made = world()
        actions = made.steady({A: 10}, 3)
        assert starts(actions) == [A]
        assert isinstance(actions[0], StartReplica)
        assert actions[0].because == "wanted by 2.8 rows/s, and not loaded"

    def test_a_few_rows_do_not(self) -> None:
        made = world()
        assert made.step(traffic({A: 1})) == []
        assert made.steady({}, 20) == []


class TestGrow:
    def test_replicas_follow_the_demand(self) -> None:
        made = world()
        made.steady({A: 350}, 40)
        assert made.counts() == {A: 4}

    def test_the_slack_is_kept(self) -> None:
        below, above = world(), world()
        below.steady({A: 95}, 40)
        above.steady({A: 96}, 60)
        assert (below.counts(), above.counts()) == ({A: 1}, {A: 2})

    def test_the_words_give_the_figures(self) -> None:
        made = world()
        made.step(LoadRequested(variant=A))
        actions = made.steady({A: 200}, 20)
        assert isinstance(actions[0], StartReplica)
        assert actions[0].because.startswith("wanted by 97.3 rows/s; 1 replicas carry 100.0")

    def test_what_another_variant_serves_meanwhile_counts_where_it_is_wanted(self) -> None:
        made = world()
        for _ in range(20):
            made.step(traffic({A: 150}, served={B: 150}))
        assert made.counts()[A] == 2

    def test_refusals_of_a_settled_replica_tell_its_real_capacity(self) -> None:
        made = world()
        made.steady({A: 80}, 30)
        assert made.counts() == {A: 1}
        made.steady({A: 80}, 10, refused={A: 30})
        assert made.counts()[A] >= 2

    def test_refusals_while_it_loads_do_not(self) -> None:
        made = world()
        made.load_s = 5.0
        made.step(LoadRequested(variant=A))
        made.steady({A: 80}, 5, refused={A: 80})
        made.steady({A: 80}, 30)
        assert made.counts(State.READY, State.STARTING) == {A: 1}

    def test_never_more_than_the_most(self) -> None:
        made = world(max_replicas_per_variant=3)
        made.steady({A: 1000}, 30)
        assert made.counts() == {A: 3}

    def test_never_more_than_have_cores_of_their_own(self) -> None:
        made = World(
            offer("a"), workers=[worker(cpu=2.0)], settings=ScalingSettings(strategy="individual", start_overhead_s=0.0)
        )
        made.steady({A: 1000}, 30)
        assert made.counts() == {A: 2}
        two = offer("a", threads=2)
        made = World(
            two, workers=[worker(cpu=2.0)], settings=ScalingSettings(strategy="individual", start_overhead_s=0.0)
        )
        made.steady({two.name: 1000}, 30)
        assert list(made.counts().values()) == [1]


class TestShrink:
    def test_what_is_too_much_for_a_while_is_drained(self) -> None:
        made = world()
        made.steady({A: 350}, 40)
        actions = made.steady({A: 50}, 60)
        assert made.counts() == {A: 1}
        assert len(drains(actions)) == 3

    def test_not_before_the_delay(self) -> None:
        made = world(downscale_delay_s=15.0)
        made.steady({A: 190}, 30)
        assert made.counts() == {A: 2}
        assert drains(made.steady({A: 20}, 14)) == []
        assert len(drains(made.steady({A: 20}, 20))) == 1

    def test_the_load_time_counts_where_it_is_longer(self) -> None:
        made = World(offer("a"), load_s=25.0)
        made.steady({A: 190}, 60)
        assert made.counts() == {A: 2}
        assert drains(made.steady({A: 20}, 24)) == []

    def test_what_is_served_for_another_keeps_a_replica(self) -> None:
        made = world()
        made.steady({A: 190}, 30)
        for _ in range(40):
            assert drains(made.step(traffic({B: 0}, served={A: 190}))) == []

    @pytest.mark.parametrize("rate", [40, 95, 96, 150, 199, 290])
    def test_steady_traffic_settles(self, rate: int) -> None:
        made = world()
        made.steady({A: rate}, 60)
        assert made.steady({A: rate}, 120) == []

    def test_the_last_replica_goes_after_the_idle_time(self) -> None:
        made = world(idle_timeout_s=30.0)
        made.steady({A: 50}, 10)
        assert drains(made.steady({}, 29)) == []
        assert drains(made.steady({}, 2)) == [A + "#1"]
        made.steady({}, 3)
        assert made.autoscaler.fleet.replicas == {}

    def test_pinned_replicas_stay(self) -> None:
        made = world(keep_warm={"a": 2}, idle_timeout_s=5.0)
        made.steady({}, 60)
        assert made.counts() == {A: 2}


class TestKeepWarm:
    def test_a_use_case_means_its_cheapest_variant(self) -> None:
        made = world(keep_warm={"classification:digits": 1, "not-registered-yet": 3})
        made.steady({}, 5)
        assert made.counts() == {A: 1}

    def test_one_that_cannot_start_is_replaced_by_the_next(self) -> None:
        settings = ScalingSettings(strategy="individual", keep_warm={"classification:digits": 1})
        made = World(offer("a", usd=0.01), offer("b", usd=0.02), settings=settings, load_s=9.0)
        broken = ReplicaFailed(replica=A + "#1", variant=A, reason="corrupt", permanent=True)
        assert starts(made.step(broken, passed=0.1)) == [B]


class TestFaults:
    def test_failed_starts_back_off(self) -> None:
        made, tries = world(), []
        for _ in range(400):
            for variant in starts(made.step(traffic({A: 50}), passed=0.1)):
                tries.append(made.now)
                name = f"{variant}#{len(tries)}"
                made.step(ReplicaFailed(replica=name, variant=variant, reason="no file", permanent=False), passed=0.0)
        gaps = [round(b - a) for a, b in pairwise(tries)]
        assert gaps == [1, 2, 4, 8, 16]

    def test_a_dead_last_replica_in_use_is_replaced_at_once(self) -> None:
        made = world(min_rate_qps=100.0)
        made.step(LoadRequested(variant=A))
        made.steady({A: 5}, 20)
        (action,) = made.step(ReplicaDied(replica=A + "#1"))
        assert isinstance(action, StartReplica)
        assert action.replica == A + "#2"
        assert action.because == "its last replica was lost, and it was used 1.0 s ago"

    def test_an_unused_one_is_not(self) -> None:
        made = world(idle_timeout_s=20.0, keep_warm={A: 1})
        made.steady({}, 15)
        made.autoscaler.fleet.apply(WorkerLost(worker="w1"), made.now)
        assert made.step() == []

    def test_a_lost_worker_is_made_up_for_on_another(self) -> None:
        made = World(offer("a"), workers=[worker("w1", cpu=2.0), worker("w2", cpu=2.0)])
        made.steady({A: 150}, 30)
        lost = {x.worker for x in made.autoscaler.fleet.replicas.values()}.pop()
        actions = made.step(WorkerLost(worker=lost))
        made.steady({A: 150}, 10)
        assert starts(actions)
        assert made.counts() == {A: 2}
        assert {x.worker for x in made.autoscaler.fleet.replicas.values()} == {"w1", "w2"} - {lost}


class TestRoom:
    def full(self, **changes: object) -> World:
        """One worker with room for two replicas, both of a."""
        settings = ScalingSettings(**{"strategy": "individual", "oversubscription": 1.0, **changes})  # type: ignore[arg-type]
        made = World(offer("a"), offer("b"), workers=[worker(cpu=2.0)], settings=settings)
        made.steady({A: 190}, 30)
        assert made.counts() == {A: 2}
        return made

    def test_an_idle_replica_makes_room_and_the_load_follows(self) -> None:
        made = self.full()
        made.steady({}, 5)
        actions = made.step(LoadRequested(variant=B))
        assert drains(actions) == [A + "#1"]
        assert actions[0].because == f"unused for 6 s, and {B} needs its room"
        later = [x for _ in range(4) for x in made.step()]
        assert drains(later) == []
        assert starts(later) == [B]

    def test_replicas_in_use_stay_and_the_variant_is_blocked_for_a_while(self) -> None:
        made = self.full()
        assert made.step(traffic({A: 190}), LoadRequested(variant=B)) == []
        blocked = made.autoscaler.routing_table(made.now).blocked
        assert blocked == {B: "needs 1 CPU and 100 MiB, and no worker has that free"}
        made.steady({A: 190}, 6)
        assert made.autoscaler.routing_table(made.now).blocked == {}

    def test_pinned_replicas_stay(self) -> None:
        made = self.full(keep_warm={A: 2})
        made.steady({}, 5)
        assert drains(made.step(LoadRequested(variant=B))) == []

    def test_as_many_leave_as_are_needed_on_one_worker(self) -> None:
        settings = ScalingSettings(strategy="individual", oversubscription=1.0)
        made = World(offer("a"), offer("b", threads=2), workers=[worker(cpu=2.0)], settings=settings)
        made.steady({A: 190}, 30)
        made.steady({}, 5)
        big = offer("b", threads=2).name
        assert drains(made.step(LoadRequested(variant=big))) == [A + "#1", A + "#2"]
        made.steady({}, 5)
        assert made.counts() == {big: 1}

    def test_a_request_is_not_remembered_for_ever(self) -> None:
        made = self.full(request_ttl_s=3.0)
        made.steady({}, 5)
        made.autoscaler.step([LoadRequested(variant=B)], made.now)  # drained, but the end is never reported
        made.step(passed=10.0)
        assert starts(made.steady({}, 10)) == []


class TestFixed:
    """SM+: the variants of keep_warm and no others."""

    def made(self, **changes: object) -> World:
        settings = ScalingSettings(
            strategy="individual", start_overhead_s=0.0, fixed=True, keep_warm={"b": 1}, **changes
        )  # type: ignore[arg-type]
        return World(offer("a", usd=0.01), offer("b", usd=0.02), types=[worker_type()], settings=settings)

    def test_only_what_keep_warm_lists_is_ever_used(self) -> None:
        made = self.made()
        made.step(LoadRequested(variant=A))
        made.steady({A: 500}, 60)
        assert made.counts() == {B: 1}
        assert made.autoscaler.routing_table(made.now).broken == {A}

    def test_it_is_replicated_and_removed_by_its_demand_and_machines_follow(self) -> None:
        made = self.made()
        made.ask(Asked(rows=600), seconds=120)
        assert made.counts() == {B: 7}
        assert made.workers() == {"cpu": 2}
        made.ask(Asked(rows=10), seconds=240)
        assert (made.counts(), made.workers()) == ({B: 1}, {"cpu": 1})

    def test_what_is_listed_stays(self) -> None:
        made = self.made()
        made.steady({}, 600)
        assert made.counts() == {B: 1}

    def test_a_new_variant_of_the_catalogue_is_not_used_either(self) -> None:
        made = self.made()
        made.step(CatalogChanged(catalog=catalog(offer("b"), offer("c", usd=0.001), types=[worker_type()])))
        made.ask(Asked(rows=50), seconds=60)
        assert made.counts() == {B: 1}
