"""Parts that strategies share: rates within a bound, objectives, what routers report of replicas."""

import pytest

from infaas_ray.domain import SLO
from infaas_ray.errors import ConfigError
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.candidates import ReplicaLoad
from infaas_ray.policy.messages import CatalogChanged, ClassCount
from infaas_ray.policy.scaling.capacity import rate_within
from infaas_ray.policy.scaling.objectives import Objectives
from infaas_ray.policy.scaling.settings import InfaasSettings, ProteusSettings
from infaas_ray.policy.scaling.strategy import Situation
from infaas_ray.policy.traffic import SILENT_S, Traffic
from infaas_ray.policy.underway import hold, ongoing, slowdowns
from tests.unit.policy.builders import USE_CASE, catalog, offer, traffic, v

A, B = v("a"), v("b")


class TestRateWithin:
    made = offer("a", p99_ms=((1, 10.0), (8, 24.0)), rate_qps=10_000)  # medians are half of that

    def test_the_largest_batch_that_keeps_the_bound(self) -> None:
        assert rate_within(self.made, 0.014) == pytest.approx(3 / 0.007)

    def test_nothing_where_not_even_one_row_does(self) -> None:
        assert rate_within(self.made, 0.0099) == 0.0

    def test_saturation_where_full_batches_do(self) -> None:
        assert rate_within(self.made, 0.024) == rate_within(self.made, float("inf")) == 10_000

    def test_never_more_than_saturation(self) -> None:
        assert rate_within(offer("a", rate_qps=50), 0.014) == 50


class TestObjectives:
    def made(self, *classes: ClassCount) -> Objectives:
        offers = offer("a", accuracy=0.9), offer("b", accuracy=0.7, p99_ms=((1, 50.0),))
        autoscaler = Autoscaler(ScalingSettings(strategy="static"))
        autoscaler.step([CatalogChanged(catalog=catalog(*offers)), traffic(classes=classes)], 1.0)
        fleet, seen = autoscaler.fleet, autoscaler.traffic
        return Objectives(Situation(fleet=fleet, traffic=seen, requests={}, lost=(), pins={}, now=1.0))

    def test_the_tightest_of_what_a_variant_can_serve(self) -> None:
        found = self.made(
            ClassCount(target=USE_CASE, latency_s=0.1, rows=5),
            ClassCount(target=USE_CASE, latency_s=0.02, min_accuracy=0.8, rows=5),
        )
        assert (found.of(A).latency_s, found.of(A).min_accuracy, found.of(A).alternatives) == (0.02, 0.8, (A,))
        assert (found.of(B).latency_s, found.of(B).min_accuracy, found.of(B).alternatives) == (0.1, 0.0, (A, B))

    def test_those_who_name_an_architecture_bind_its_variants(self) -> None:
        found = self.made(ClassCount(target="a", rows=5), ClassCount(target=USE_CASE, rows=5))
        assert found.of(A).alternatives == (A,)
        assert found.of(B).alternatives == (A, B)

    def test_without_queries_the_architecture_decides(self) -> None:
        assert self.made().of(A).alternatives == (A,)

    def test_families_are_targets_at_a_least_accuracy(self) -> None:
        found = self.made(
            ClassCount(target=USE_CASE, latency_s=0.1, rows=5),
            ClassCount(target=USE_CASE, latency_s=0.2, rows=10),
            ClassCount(target=USE_CASE, latency_s=0.2, min_accuracy=0.8, rows=10),
            ClassCount(target=USE_CASE, min_accuracy=0.99, rows=10),
            ClassCount(target="gone", rows=10),
        )
        (loose, strict) = found.families()
        assert (loose.target, loose.latency_s, loose.min_accuracy, loose.variants) == (USE_CASE, 0.1, 0.0, (A, B))
        assert (strict.target, strict.latency_s, strict.min_accuracy, strict.variants) == (USE_CASE, 0.2, 0.8, (A,))
        assert loose.rate_qps == pytest.approx(15 * (1 - 2.718281828 ** (-1 / 3)), rel=1e-6)


class TestTraffic:
    def test_what_is_ongoing_adds_up_and_settles(self) -> None:
        seen = Traffic(3.0)
        for second in range(60):
            for router in ("r1", "r2"):
                seen.report(traffic(ongoing={A: 4}, router=router), float(second))
        assert seen.demand(A).ongoing == pytest.approx(8.0, rel=1e-3)

    def test_a_replica_is_as_slow_as_the_one_says_that_finds_it_slowest(self) -> None:
        seen = Traffic(3.0)
        seen.report(traffic(slowdowns={"x": 2.0}, router="r1"), 0.0)
        seen.report(traffic(slowdowns={"x": 3.0}, router="r2"), 0.0)
        assert (seen.slowdown("x"), seen.slowdown("y")) == (3.0, 1.0)
        seen.forget_silent(SILENT_S + 1.0)
        assert seen.slowdown("x") == 1.0

    def test_routers_count_what_is_not_answered_and_name_what_is_slow(self) -> None:
        loads = {A + "#1": ReplicaLoad(), A + "#2": ReplicaLoad(slowdown=1.5), A: ReplicaLoad(), B: ReplicaLoad()}
        hold(loads[A + "#1"], SLO(), 3)
        hold(loads[A], SLO(), 2)  # they wait for a load
        hold(loads[A + "#2"], SLO(offline=True), 7)
        assert ongoing(loads) == {A: 5}
        assert slowdowns(loads) == {A + "#2": 1.5}


@pytest.mark.parametrize(
    ("section", "wrong"),
    [(ProteusSettings, {"head_room": 0.1}), (InfaasSettings, {"slow_cpu": 1.4}), (ProteusSettings, {"period_s": -1.0})],
)
def test_wrong_settings_are_named(section: type, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"scaling.*{next(iter(wrong))}"):
        section(**wrong)
