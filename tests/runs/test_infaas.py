"""INFaaS rule by rule: replicate, upgrade, downgrade, wait, interference."""

import pytest

from infaas_ray.domain import HardwareKind
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import LoadRequested, StartReplica
from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.settings import InfaasSettings
from infaas_ray.policy.scaling.states import PairState, States
from infaas_ray.policy.scaling.strategy import Situation
from tests.unit.policy.builders import USE_CASE, offer, traffic, v, worker, worker_type
from tests.unit.policy.fluid import Asked
from tests.unit.policy.world import World, drains, starts

A, B = v("a"), v("b")
# Replicas cost usd_per_1k x rate: 3.6 and 36 dollars an hour.
SMALL = offer("net", usd=0.01, rate_qps=100)
LARGE = offer("net", usd=0.01, rate_qps=1000, hardware=HardwareKind.GPU, batch_limit=64, p99_ms=((1, 5.0), (64, 60.0)))
HERE = [worker("w1", cpu=16.0, gpu=2.0, memory_bytes=64 * 2**30), worker("w2", cpu=16.0)]


def world(*offers: Offer, **changes: object) -> World:
    settings = ScalingSettings(strategy="infaas", start_overhead_s=0.0, **changes)  # type: ignore[arg-type]
    return World(*(offers or (SMALL, LARGE)), workers=HERE, settings=settings)


class TestUp:
    def test_capacity_over_load_below_the_slack_replicates(self) -> None:
        made = world(SMALL)
        made.ask(Asked(rows=94), seconds=30)
        assert made.counts() == {SMALL.name: 1}
        made.ask(Asked(rows=99), seconds=30)
        assert made.counts() == {SMALL.name: 2}

    def test_the_words_give_the_figures(self) -> None:
        made = world(SMALL)
        made.step(LoadRequested(variant=SMALL.name))
        made.ask(Asked(rows=94), seconds=30)
        (action,) = [x for _ in range(9) for x in made.ask(Asked(rows=99)) if isinstance(x, StartReplica)]
        assert action.because.endswith(f"rows/s load {SMALL.name}, whose replicas carry 100.0")

    def test_a_variant_that_does_more_takes_over_where_that_costs_less(self) -> None:
        cheap = offer("net", usd=0.001, rate_qps=1000, hardware=HardwareKind.GPU)  # 3.6 dollars an hour
        made = world(SMALL, cheap)
        made.step(LoadRequested(variant=SMALL.name))
        made.ask(Asked(rows=50), seconds=2)  # one replica, whose queries stay with it
        made.ask(Asked(rows=500), seconds=10)
        assert made.counts() == {cheap.name: 1}
        started = [x for _, _, actions in made.log for x in starts(actions)]
        assert started == [SMALL.name, cheap.name]

    def test_new_before_old(self) -> None:
        cheap = offer("net", usd=0.0101, rate_qps=1000, hardware=HardwareKind.GPU, load_s=5.0)
        made = world(SMALL, cheap, slack=1.05)
        made.load_s = 5.0
        made.step(LoadRequested(variant=SMALL.name))
        made.ask(Asked(rows=50), seconds=7)
        for _ in range(60):
            made.ask(Asked(rows=900))
            assert made.counts()

    def test_replicas_of_the_same_where_that_costs_less(self) -> None:
        made = world()
        made.step(LoadRequested(variant=SMALL.name))
        made.steady({SMALL.name: 150}, 20)
        assert made.counts() == {SMALL.name: 2}

    def test_only_variants_that_meet_the_objective_take_over(self) -> None:
        slow = offer("net", usd=0.0001, rate_qps=5000, hardware=HardwareKind.GPU, p99_ms=((1, 80.0), (8, 90.0)))
        made = world(SMALL, slow)
        made.ask(Asked(rows=50, latency_s=0.05), seconds=5)
        made.ask(Asked(rows=300, latency_s=0.05), seconds=20)
        assert set(made.counts()) == {SMALL.name}

    def test_only_variants_that_are_accurate_enough_take_over(self) -> None:
        poor = offer("poor", usd=0.0001, rate_qps=5000, accuracy=0.5)
        made = world(offer("a"), poor)
        made.ask(Asked(rows=300, min_accuracy=0.8), seconds=30)
        assert set(made.counts()) == {A}

    def test_queries_that_name_an_architecture_stay_with_it(self) -> None:
        made = world(offer("a", usd=0.02), offer("b", usd=0.001, rate_qps=5000))
        made.ask(Asked(rows=300, target="a"), seconds=30)
        assert set(made.counts()) == {A}

    def test_what_keep_warm_lists_is_there(self) -> None:
        made = world(offer("a"), offer("b"), keep_warm={"b": 2})
        made.steady({}, 100)
        assert made.counts() == {B: 2}


class TestDown:
    def test_where_the_load_fits_without_one_it_goes_after_a_load_time(self) -> None:
        made = World(SMALL, workers=HERE, settings=ScalingSettings(strategy="infaas", start_overhead_s=0.0), load_s=8.0)
        made.ask(Asked(rows=250), seconds=60)
        assert made.counts() == {SMALL.name: 3}
        first = next(n for n in range(60) if drains(made.ask(Asked(rows=90))))
        assert 8 <= first <= 14  # the load falls below what fits within some seconds of smoothing
        made.ask(Asked(rows=90), seconds=30)
        assert made.counts() == {SMALL.name: 1}

    def test_a_cheaper_variant_that_would_carry_the_load_takes_over(self) -> None:
        made = world()
        made.step(LoadRequested(variant=LARGE.name))
        made.steady({LARGE.name: 20}, 20)
        assert made.counts() == {SMALL.name: 1}

    def test_not_where_starting_it_costs_more_than_is_saved(self) -> None:
        made = world(infaas=InfaasSettings(load_weight_per_s=20.0))
        made.step(LoadRequested(variant=LARGE.name))
        made.steady({LARGE.name: 20}, 60)
        assert made.counts() == {LARGE.name: 1}

    def test_the_last_replica_goes_when_it_is_idle(self) -> None:
        made = world(idle_timeout_s=30.0)
        made.ask(Asked(rows=50), seconds=10)
        made.steady({}, 60)
        assert made.counts(*State) == {}

    @pytest.mark.parametrize("rate", [40, 94, 96, 150, 199, 290, 480, 900])
    def test_steady_traffic_settles(self, rate: int) -> None:
        made = world()
        made.ask(Asked(rows=rate), seconds=90)
        assert made.ask(Asked(rows=rate), seconds=120) == []


class TestInterference:
    def made(self) -> World:
        made = world(SMALL)
        made.step(LoadRequested(variant=SMALL.name))
        made.steady({SMALL.name: 80}, 20)
        return made

    def test_an_interfered_replica_moves_to_another_worker(self) -> None:
        made = self.made()
        (old,) = made.autoscaler.fleet.replicas.values()
        slow = traffic({SMALL.name: 80}, slowdowns={old.id: 3.0})
        (action, *_) = made.step(slow)
        assert isinstance(action, StartReplica)
        assert action.worker != old.worker
        assert action.because == f"{old.id} is interfered: 3.0 times slower than profiled"
        made.steady({SMALL.name: 80}, 5)
        (new,) = made.autoscaler.fleet.replicas.values()
        assert new.worker == action.worker

    def test_slowness_below_the_threshold_is_borne(self) -> None:
        made = self.made()
        assert made.step(traffic({SMALL.name: 80}, slowdowns={SMALL.name + "#1": 2.4})) == []


class TestStates:
    def state(self, *reports: object, ready: int = 1) -> PairState:
        made = World(SMALL, workers=HERE, settings=ScalingSettings(strategy="static", keep_warm={"net": ready}))
        made.steady({}, 5)
        states = States(InfaasSettings())
        for report in reports:
            made.step(report)  # type: ignore[arg-type]
            fleet, seen = made.autoscaler.fleet, made.autoscaler.traffic
            situation = Situation(fleet=fleet, traffic=seen, requests={}, lost=(), pins={}, now=made.now)
            states.update(situation)
        worker_of = next(iter(made.autoscaler.fleet.replicas.values())).worker if ready else "w1"
        return states.of(SMALL.name, worker_of, situation)

    def test_inactive_without_a_replica(self) -> None:
        assert self.state(traffic(), ready=0) is PairState.INACTIVE

    def test_active(self) -> None:
        assert self.state(*[traffic({SMALL.name: 90})] * 20) is PairState.ACTIVE

    def test_overloaded_at_the_saturation_rate(self) -> None:
        assert self.state(*[traffic({SMALL.name: 101})] * 40) is PairState.OVERLOADED

    def test_overloaded_by_its_backlog(self) -> None:
        behind = traffic({SMALL.name: 50}, ongoing={SMALL.name: 90})
        assert self.state(*[behind] * 20) is PairState.OVERLOADED

    def test_overloaded_by_refusals(self) -> None:
        refusing = traffic({SMALL.name: 50}, served={SMALL.name: 45}, refused={SMALL.name: 5})
        assert self.state(refusing) is PairState.OVERLOADED

    def test_interfered_until_it_is_well_again(self) -> None:
        def slow(factor: float) -> object:
            return traffic({SMALL.name: 90}, slowdowns={SMALL.name + "#1": factor})

        busy = [traffic({SMALL.name: 90})] * 20
        assert self.state(*busy, slow(2.0)) is PairState.ACTIVE
        assert self.state(*busy, slow(2.6)) is PairState.INTERFERED
        assert self.state(*busy, slow(2.6), slow(2.0)) is PairState.INTERFERED
        assert self.state(*busy, slow(2.6), slow(1.4)) is PairState.ACTIVE


def test_machines_come_and_go_with_the_load() -> None:
    settings = ScalingSettings(strategy="infaas", start_overhead_s=0.0)
    made = World(SMALL, types=[worker_type("cpu")], settings=settings)
    made.ask(Asked(rows=1000, target=USE_CASE), seconds=120)
    assert made.missed == 0
    assert made.workers() == {"cpu": 3}
    made.ask(Asked(rows=0), seconds=300)
    assert made.workers() == {}
