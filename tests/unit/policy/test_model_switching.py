"""Model-Switching: the table, and one variant at a time."""

from math import exp

import pytest

from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.messages import LoadRequested
from infaas_ray.policy.scaling.switching import SwitchingTable, effective
from tests.unit.policy.builders import offer, worker, worker_type
from tests.unit.policy.fluid import Asked
from tests.unit.policy.world import World, drains, starts

GOOD = offer("good", accuracy=0.9, rate_qps=50, usd=0.02, p99_ms=((1, 20.0), (8, 160.0)))
FAST = offer("fast", accuracy=0.7, rate_qps=500, usd=0.01, p99_ms=((1, 2.0), (8, 16.0)))
OFFERS = {x.name: x for x in (GOOD, FAST)}
ASK = 0.2  # seconds: both keep it with full batches


def world(**changes: object) -> World:
    scaling = ScalingSettings(strategy="model_switching", start_overhead_s=0.0)
    if changes:
        return World(GOOD, FAST, types=[worker_type("cpu", **changes)], settings=scaling)  # type: ignore[arg-type]
    return World(GOOD, FAST, workers=[worker(cpu=4.0)], settings=scaling)


class TestTable:
    def best(self, load: float, replicas: int = 4, latency_s: float = ASK) -> str | None:
        return SwitchingTable().best(OFFERS, dict.fromkeys(OFFERS, replicas), latency_s, load)

    def test_accurate_at_low_load_fast_at_high(self) -> None:
        assert self.best(10.0) == GOOD.name
        assert self.best(150.0) == GOOD.name
        assert self.best(199.0) == FAST.name
        assert self.best(1500.0) == FAST.name

    def test_beyond_all_capacity_what_carries_most(self) -> None:
        assert self.best(1e6) == FAST.name

    def test_more_room_lets_the_accurate_serve_more(self) -> None:
        assert self.best(500.0, replicas=4) == FAST.name
        assert self.best(500.0, replicas=12) == GOOD.name

    def test_what_never_keeps_the_bound_is_not_chosen(self) -> None:
        assert self.best(1.0, latency_s=0.01) == FAST.name
        assert self.best(1.0, latency_s=0.001) is None

    def test_neither_is_what_has_no_room(self) -> None:
        assert SwitchingTable().best(OFFERS, {GOOD.name: 0, FAST.name: 1}, ASK, 1.0) == FAST.name

    def test_effective_accuracy_by_hand(self) -> None:
        value, carried = effective(GOOD, 2, ASK, 80.0)
        assert carried == 100.0
        assert value == pytest.approx(0.9 * (1.0 - 0.8 * exp(-20.0 * 0.18)))
        assert effective(GOOD, 2, ASK, 100.0) == (0.0, 100.0)
        assert effective(GOOD, 2, float("inf"), 99.0)[0] == 0.9


class TestStrategy:
    def test_one_variant_at_a_time(self) -> None:
        made = world()
        made.ask(Asked(rows=50, latency_s=ASK), seconds=20)
        assert set(made.counts()) == {GOOD.name}
        made.ask(Asked(rows=900, latency_s=ASK), seconds=20)
        assert made.counts() == {FAST.name: 2}

    def test_it_switches_down_at_once_and_up_after_a_while(self) -> None:
        made = world()
        made.ask(Asked(rows=50, latency_s=ASK), seconds=20)
        down = next(n for n in range(40) if FAST.name in starts(made.ask(Asked(rows=900, latency_s=ASK))))
        assert down <= 3
        made.ask(Asked(rows=900, latency_s=ASK), seconds=40)
        up = next(n for n in range(90) if GOOD.name in starts(made.ask(Asked(rows=50, latency_s=ASK))))
        assert 30 <= up <= 50

    def test_new_before_old(self) -> None:
        made = world()
        made.ask(Asked(rows=50, latency_s=ASK), seconds=20)
        for _ in range(30):
            made.ask(Asked(rows=900, latency_s=ASK))
            assert made.counts()

    def test_others_cannot_be_loaded(self) -> None:
        made = world()
        made.ask(Asked(rows=50, latency_s=ASK), seconds=20)
        assert starts(made.step(LoadRequested(variant=FAST.name))) == []
        assert FAST.name in made.autoscaler.routing_table(made.now).blocked

    def test_two_families_share_the_machines(self) -> None:
        made = World(
            GOOD,
            FAST,
            workers=[worker(cpu=4.0)],
            settings=ScalingSettings(strategy="model_switching", start_overhead_s=0.0),
        )
        asked = Asked(rows=1000, latency_s=ASK, target="good"), Asked(rows=5000, latency_s=ASK, target="fast")
        made.ask(*asked, seconds=20)
        assert made.counts() == {GOOD.name: 2, FAST.name: 2}

    def test_machines_follow_their_use(self) -> None:
        made = world(most=5)
        made.ask(Asked(rows=5000, latency_s=ASK), seconds=200)
        assert made.missed == 0
        assert made.workers() == {"cpu": 4}
        made.ask(Asked(rows=0), seconds=800)
        assert made.workers() == {}

    def test_a_steady_load_moves_nothing(self) -> None:
        made = world()
        made.ask(Asked(rows=170, latency_s=ASK), seconds=60)
        actions = made.ask(Asked(rows=170, latency_s=ASK), seconds=300)
        assert (starts(actions), drains(actions)) == ([], [])

    def test_who_asks_for_accuracy_is_served_with_it(self) -> None:
        made = world()
        asked = Asked(rows=800, latency_s=ASK), Asked(rows=60, latency_s=ASK, min_accuracy=0.8)
        made.ask(*asked, seconds=30)
        assert made.counts() == {FAST.name: 2, GOOD.name: 2}
