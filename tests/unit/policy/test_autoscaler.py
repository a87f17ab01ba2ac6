"""The autoscaler as a whole: drained replicas end, removed variants leave, tables have versions, it may restart."""

import pytest

from infaas_ray.errors import ConfigError
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.messages import CatalogChanged, DrainReplica, LoadRequested, ReplicaDrained, StopReplica
from tests.unit.policy.builders import catalog, offer, ready, traffic, v, worker
from tests.unit.policy.world import World, drains, starts

A, B = v("a"), v("b")


class TestTidy:
    def test_a_drained_replica_is_stopped(self) -> None:
        made = World(offer("a"))
        made.step(ready(A + "#1"))
        made.autoscaler.fleet.request_drain(A + "#1", made.now)
        (action,) = made.step(ReplicaDrained(replica=A + "#1"))
        assert action == StopReplica(replica=A + "#1", because="it has answered its last query")
        assert made.step() == []

    def test_replicas_of_a_removed_variant_leave(self) -> None:
        made = World(offer("a"), offer("b"), load_s=9.0)
        made.step(ready(A + "#1"), LoadRequested(variant=B))
        actions = made.step(CatalogChanged(catalog=catalog(offer("c"), revision=2)))
        assert [type(x) for x in actions] == [DrainReplica, StopReplica]
        assert {x.because for x in actions} == {"its variant left the catalogue"}
        assert made.autoscaler.routing_table(made.now).replicas == ()


class TestRoutingTable:
    def test_the_version_rises_only_with_the_content(self) -> None:
        made = World(offer("a"), load_s=5.0)
        version = made.autoscaler.routing_table(made.now).version
        made.steady({}, 3)
        assert made.autoscaler.routing_table(made.now).version == version
        made.step(LoadRequested(variant=A))
        seen = []
        for _ in range(8):
            seen.append(made.autoscaler.routing_table(made.now))
            made.step(passed=0.9)
        # Loading is news, then that it takes longer than profiled (once or twice), then that it is ready.
        versions = [x.version for x in seen]
        assert versions[0] == version + 1
        assert versions == sorted(versions)
        assert len(set(versions)) <= 5
        assert seen[1].loading[A] == pytest.approx(0.1)
        assert [x.id for x in seen[-1].replicas] == [A + "#1"]

    def test_the_time_of_a_load_in_plan_is_no_news(self) -> None:
        made = World(offer("a", load_s=20.0), load_s=20.0)
        made.step(LoadRequested(variant=A))
        tables = []
        for _ in range(10):
            tables.append(made.autoscaler.routing_table(made.now))
            made.step()
        assert len({x.version for x in tables}) == 1
        assert [x.loading[A] for x in tables] == pytest.approx([20.0 - n for n in range(10)])

    def test_a_new_catalogue_is_news_even_under_the_same_revision(self) -> None:
        made = World(offer("a"))
        before = made.autoscaler.routing_table(made.now)
        made.step(CatalogChanged(catalog=catalog(offer("a", usd=9.0))))
        assert made.autoscaler.routing_table(made.now).version == before.version + 1

    def test_numbering_can_go_on_from_a_former_controller(self) -> None:
        assert Autoscaler(ScalingSettings(), first_version=41).routing_table(0.0).version == 42


class TestStartTimes:
    def test_what_starts_take_beyond_their_load_is_expected_and_learned(self) -> None:
        made = World(offer("a", load_s=1.0), offer("b", load_s=2.0), load_s=6.0)
        assert made.autoscaler.routing_table(made.now).start_overhead_s == 0.0
        made.step(LoadRequested(variant=A))
        made.steady({}, 8)
        assert made.autoscaler.fleet.start_s(A) == pytest.approx(6.0)
        assert made.autoscaler.fleet.start_s(B) == pytest.approx(2.0 + 0.2 * 5.0)
        assert made.autoscaler.routing_table(made.now).start_overhead_s == pytest.approx(1.0)


class TestRestart:
    def test_living_replicas_found_are_taken_over_and_nothing_is_started_twice(self) -> None:
        new = Autoscaler(ScalingSettings(strategy="individual"))
        found = [CatalogChanged(catalog=catalog(offer("a"))), worker(), ready(A + "#4"), ready(A + "#2")]
        assert new.step(found, 1000.0) == []
        assert new.step([traffic({A: 150})], 1001.0) == []
        assert [x.id for x in new.routing_table(1001.0).replicas] == [A + "#4", A + "#2"]
        for second in range(30):
            for action in new.step([traffic({A: 250})], 1002.0 + second):
                assert action.replica == A + "#5"

    def test_one_that_is_found_but_not_registered_is_drained(self) -> None:
        new = Autoscaler(ScalingSettings(strategy="individual"))
        found = [ready(B + "#1"), CatalogChanged(catalog=catalog(offer("a")))]
        assert new.step([worker(), *found], 0.0) == [
            DrainReplica(replica=B + "#1", because="its variant left the catalogue")
        ]

    def test_the_order_of_first_facts_does_not_matter(self) -> None:
        new = Autoscaler(ScalingSettings(strategy="individual"))
        assert new.step([worker(), ready(A + "#1"), CatalogChanged(catalog=catalog(offer("a")))], 0.0) == []
        assert new.fleet.workers["w1"].room().free["CPU"] == 3.75


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"slack": 0.9},
            {"oversubscription": 0.0},
            {"idle_timeout_s": float("inf")},
            {"block_s": -1.0},
            {"strategy": "best"},
            {"keep_warm": {"a": -1}},
            {"max_replicas_per_variant": 0},
        ],
    )
    def test_wrong_values_are_refused_by_name(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ScalingSettings(**wrong)  # type: ignore[arg-type]


def test_demand_that_moves_to_another_variant_does_not_ping_pong() -> None:
    """a is wanted; while it loads, b serves. Then b goes once, and nothing moves again."""
    made = World(offer("a", usd=0.01), offer("b", usd=0.02), load_s=3.0)
    made.step(ready(B + "#1"))
    for _ in range(5):
        made.step(traffic({A: 50}, served={B: 50}))
    actions = [x for _ in range(300) for x in made.step(traffic({A: 50}))]
    assert made.counts() == {A: 1}
    assert (starts(actions), drains(actions)) == ([], [B + "#1"])
