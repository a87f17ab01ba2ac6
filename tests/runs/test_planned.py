"""The planner strategy: what it asks for, starts, drains and gives back."""

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from infaas_ray.domain import HardwareKind, OnMiss, Variant
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import (
    CatalogChanged,
    DrainReplica,
    LoadRequested,
    PlanMade,
    ReplicaFailed,
    ReplicaReady,
    SolvePlan,
    StartReplica,
)
from infaas_ray.policy.planner.problem import Plan
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.plan_follower import PlanFollower
from infaas_ray.policy.scaling.regret import Regret
from infaas_ray.policy.scaling.settings import PlannerSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation
from infaas_ray.policy.traffic import Traffic
from tests.unit.policy.builders import catalog, offer, ready, v, worker, worker_type
from tests.unit.policy.fluid import Asked, serve
from tests.unit.policy.world import World, requests, starts

GIB = 2**30
CPU = worker_type("cpu", usd=0.4)
GPU = worker_type("gpu", gpu=1.0, usd=3.0)
SMALL = offer("small", usd=0.001, accuracy=0.7, rate_qps=667)
LARGE = offer("large", usd=0.004, accuracy=0.9, p99_ms=[(1, 40.0), (8, 160.0)], rate_qps=100)
FAST = offer("fast", usd=0.002, accuracy=0.9, p99_ms=[(1, 4.0), (8, 8.0)], rate_qps=2000, hardware=HardwareKind.GPU)


def settings(**planner: float) -> ScalingSettings:
    return ScalingSettings(strategy="planner", start_overhead_s=0.0, planner=PlannerSettings(**planner))


def on_demand(*offers: object, types: tuple = (CPU, GPU), **planner: float) -> World:
    """Machines of these types can be asked for; none is there."""
    return World(*offers, types=types, settings=settings(**planner))


def test_the_cheapest_machines_that_meet_the_slo_come_and_serve() -> None:
    world = on_demand(SMALL, LARGE, FAST)
    world.ask(Asked(rows=100, latency_s=0.5, min_accuracy=0.9), seconds=60)
    assert set(world.workers()) == {"cpu"}
    assert LARGE.name in world.counts()
    assert world.missed == 0.0


def test_a_bound_that_only_a_gpu_meets_brings_a_gpu() -> None:
    world = on_demand(SMALL, LARGE, FAST)
    world.ask(Asked(rows=100, latency_s=0.02, min_accuracy=0.9), seconds=60)
    assert world.workers() == {"gpu": 1}
    assert set(world.counts()) == {FAST.name}
    assert world.missed == 0.0


def test_more_demand_brings_more_and_its_end_gives_all_back() -> None:
    world = on_demand(SMALL, LARGE, types=(CPU,), release_s=10.0, waiting_usd_per_s=0.0)
    world.ask(Asked(rows=50, latency_s=0.5, min_accuracy=0.9), seconds=60)
    before = sum(world.workers().values())
    world.ask(Asked(rows=600, latency_s=0.5, min_accuracy=0.9), seconds=90)
    assert sum(world.workers().values()) > before
    assert world.missed == 0.0
    world.ask(seconds=60)  # where waiting is worth nothing, nothing is kept warm for long
    assert world.workers() == {}
    assert world.counts(*State) == {}


def test_demand_that_moves_to_another_accuracy_is_upgraded_new_before_old() -> None:
    world = on_demand(SMALL, LARGE, types=(CPU,))
    world.ask(Asked(rows=60, latency_s=0.5, min_accuracy=0.7), seconds=100)
    assert set(world.counts()) == {SMALL.name}
    for _ in range(120):
        world.ask(Asked(rows=60, latency_s=0.5, min_accuracy=0.9))
        assert world.counts(), "there is always somebody who answers"
    assert LARGE.name in world.counts()
    assert world.missed == 0.0


def test_a_type_that_cannot_be_had_is_replaced_and_tried_again_later() -> None:
    other = worker_type("other", usd=0.6)
    world = on_demand(SMALL, types=(CPU, other))
    world.failing = {"cpu"}
    asked = Asked(rows=100, latency_s=0.5)
    world.ask(asked, seconds=60)
    assert world.workers() == {"other": 1}
    assert world.missed == 0.0
    world.failing = set()
    actions = world.ask(Asked(rows=3000, latency_s=0.5), seconds=600)
    assert any(x.get("cpu", 0) > 0 for x in requests(actions))


def test_a_machine_stays_until_what_replaces_it_serves() -> None:
    """The GPU that stood in for the cheaper machine goes when the variant on that one, which loads slowly, is ready."""
    cpu = worker_type("cpu", usd=0.4, boot_s=5.0)
    gpu = worker_type("gpu", cpu=0.0, gpu=1.0, usd=3.0)
    world = World(SMALL, FAST, types=(cpu, gpu), settings=settings(release_s=1.0), load_s=20.0)
    asked = Asked(rows=100, latency_s=0.5)
    world.failing = {"cpu"}
    world.ask(asked, seconds=60)
    assert world.workers() == {"gpu": 1}
    world.failing = set()
    for _ in range(200):
        world.ask(asked)
        assert world.counts(), "there is always somebody who answers"
    assert world.workers() == {"cpu": 1}


def test_replicas_do_not_crowd_the_machines_that_are_there_while_theirs_boot() -> None:
    world = on_demand(SMALL, types=(worker_type("cpu", usd=0.4, boot_s=20.0),), interval_s=2.0)
    world.ask(Asked(rows=300, latency_s=0.5), seconds=60)
    cores = 4
    for _ in range(60):
        world.ask(Asked(rows=12_000, latency_s=0.5), seconds=1)
        crowd = Counter(x.worker for x in world.autoscaler.fleet.replicas.values())
        assert max(crowd.values()) <= cores
    assert world.workers()["cpu"] > 2
    assert world.missed == 0.0


def test_a_lost_worker_is_replaced() -> None:
    world = on_demand(SMALL, types=(CPU,))
    world.ask(Asked(rows=100, latency_s=0.5), seconds=60)
    (name,) = world.autoscaler.fleet.workers
    world.lose(name)
    world.ask(Asked(rows=100, latency_s=0.5), seconds=40)
    assert world.workers() == {"cpu": 1}
    assert world.missed == 0.0


def test_a_spot_machine_that_is_taken_away_has_a_successor_first() -> None:
    world = on_demand(SMALL, types=(CPU,))
    world.ask(Asked(rows=100, latency_s=0.5), seconds=60)
    (name,) = world.autoscaler.fleet.workers
    world.interrupt(name, 60.0)
    for _ in range(90):
        world.ask(Asked(rows=100, latency_s=0.5))
        assert world.counts(), "the successor serves before the old one goes"
    assert name not in world.autoscaler.fleet.workers


def test_what_a_cold_query_needs_starts_before_any_plan() -> None:
    world = World(SMALL, workers=[worker()], settings=settings())
    actions = world.ask(Asked(rows=1, latency_s=None))
    assert starts(actions) == [SMALL.name]


def test_what_the_plan_answers_otherwise_is_not_loaded_for_a_query() -> None:
    fast = Variant(**{**_fields(SMALL.variant), "threads": 2})
    twin = replace(SMALL, variant=fast, profile=replace(SMALL.profile, variant=fast.name), usd_per_1k=0.002)
    world = World(SMALL, twin, workers=[worker()], settings=settings())
    world.ask(Asked(rows=20, latency_s=0.5), seconds=20)
    assert set(world.counts()) == {SMALL.name}
    assert twin.name not in starts(world.step(LoadRequested(variant=twin.name)))


def _fields(variant: Variant) -> dict[str, Any]:
    return {x.name: getattr(variant, x.name) for x in fields(variant)}


def test_a_replica_that_cannot_start_is_planned_around() -> None:
    twin = offer("twin", usd=0.002, accuracy=0.7, rate_qps=600)
    world = World(SMALL, twin, workers=[worker()], settings=settings())
    world.load_s = 1e9  # nothing becomes ready by itself
    world.ask(Asked(rows=10, latency_s=0.5), seconds=4)
    starting = [x for x in world.autoscaler.fleet.replicas.values() if x.variant == SMALL.name]
    assert starting
    failed = [ReplicaFailed(replica=x.id, variant=x.variant, reason="corrupt", permanent=True) for x in starting]
    world.step(*failed)
    assert twin.name in starts(world.ask(Asked(rows=10, latency_s=0.5), seconds=8))


def test_keep_warm_is_there_without_demand() -> None:
    scaling = ScalingSettings(strategy="planner", keep_warm={v("small"): 2}, start_overhead_s=0.0)
    world = World(SMALL, LARGE, types=(CPU,), settings=scaling)
    world.ask(seconds=60)
    assert world.counts() == {SMALL.name: 2}


def test_a_loose_plan_is_not_followed_where_there_is_a_better_one() -> None:
    world = on_demand(SMALL, types=(CPU,))
    asked = Asked(rows=100, latency_s=0.5)
    world.ask(asked, seconds=60)
    plans = [x for x in world.ask(asked, seconds=8) if isinstance(x, SolvePlan)]
    loose = Plan(workers={"cpu": 9}, objective_usd_per_hour=9.0, bound_usd_per_hour=0.4)
    actions = world.step(PlanMade(number=plans[-1].number, plan=loose, took_s=1.0))
    assert requests(actions) == []


def test_a_loose_plan_is_better_than_one_of_long_ago() -> None:
    world = on_demand(SMALL, types=(CPU,))
    world.ask(Asked(rows=100, latency_s=0.5), seconds=60)
    world.solve = lambda problem, time_limit_s: replace(solve(problem, time_limit_s), bound_usd_per_hour=0.01)
    world.ask(Asked(rows=3000, latency_s=0.5), seconds=50)
    assert world.missed > 0.5
    world.ask(Asked(rows=3000, latency_s=0.5), seconds=60)
    assert world.missed == 0.0


def test_a_variant_that_cannot_start_hides_no_other() -> None:
    twin = offer("twin", usd=0.002, accuracy=0.7, rate_qps=600)
    world = on_demand(SMALL, twin, types=(CPU,))
    world.corrupt.add(SMALL.name)
    world.ask(Asked(rows=1500, latency_s=0.5), seconds=90)
    assert set(world.counts()) == {twin.name}
    assert world.missed == 0.0


def test_what_only_the_loosest_queries_of_a_class_can_have_is_there_for_them() -> None:
    world = on_demand(SMALL, types=(CPU,))
    least_s = SMALL.profile.latency_s(1)
    world.ask(Asked(rows=5, latency_s=least_s * 1.01), seconds=60)  # less than what the way is planned to take
    assert set(world.counts()) == {SMALL.name}


def test_only_machines_that_were_too_many_all_the_time_are_given_back() -> None:
    world = on_demand(SMALL, types=(CPU,), release_s=20.0)
    fleet, follower = world.autoscaler.fleet, PlanFollower(world.autoscaler.settings)
    for name in ("a", "b", "c", "d"):
        fleet.apply(worker(name, kind="cpu"), 0.0)
    left: list[str] = []
    for second in range(100, 140):
        orders = Orders(fleet, float(second))
        plan = Plan(workers={"cpu": 3 if second < 119 else 0})
        situation = Situation(fleet=fleet, traffic=Traffic(10.0), requests={}, lost=(), pins={}, now=float(second))
        follower.follow(plan, {}, situation, orders, ())
        left += [x.name for x in fleet.workers.values() if x.leaving and x.name not in left]
        if left:
            break
    assert len(left) == 1


@pytest.mark.parametrize(("missed", "kept_s"), [(0.0, 30), (36.0, 200), (1e6, 600)])
def test_a_machine_stays_for_what_was_missed_while_it_came(missed: float, kept_s: int) -> None:
    """36 rows at 0.617 dollars per 1,000 are worth 200 s of one that costs 0.4 dollars an hour."""
    world = on_demand(SMALL, types=(CPU,), release_s=30.0)
    fleet, regret = world.autoscaler.fleet, Regret()
    usd_per_1k = {"all": 0.4 * 200 / 3.6 / 36}
    regret.note({"cpu": 1}, {"all": missed}, usd_per_1k, 99.0)
    regret.note({}, {}, usd_per_1k, 100.0)
    follower = PlanFollower(world.autoscaler.settings, regret)
    fleet.apply(worker("a", kind="cpu"), 0.0)
    for second in range(100, 800):
        now = float(second)
        situation = Situation(fleet=fleet, traffic=Traffic(10.0), requests={}, lost=(), pins={}, now=now)
        follower.follow(Plan(workers={"cpu": 0}), {}, situation, Orders(fleet, now), ())
        if fleet.workers["a"].leaving:
            break
    assert second - 100 == pytest.approx(kept_s, abs=2)


def test_machines_that_are_too_many_one_after_another_leave_when_each_was_for_long_enough() -> None:
    world = on_demand(SMALL, types=(CPU,), release_s=30.0)
    fleet, regret = world.autoscaler.fleet, Regret()
    regret.note({"cpu": 1}, {"all": 1e6}, {"all": 1.0}, 99.0)
    regret.note({}, {}, {"all": 1.0}, 100.0)
    follower = PlanFollower(world.autoscaler.settings, regret)
    for name in "abcd":
        fleet.apply(worker(name, kind="cpu"), 0.0)
    left: dict[int, int] = {}
    for second in range(100, 1000):
        now = float(second)
        planned = 3 if second < 110 else 0
        situation = Situation(fleet=fleet, traffic=Traffic(10.0), requests={}, lost=(), pins={}, now=now)
        follower.follow(Plan(workers={"cpu": planned}), {}, situation, Orders(fleet, now), ())
        left[second] = sum(x.leaving for x in fleet.workers.values())
    assert (left[699], left[700], left[709], left[710]) == (0, 1, 1, 4)


def test_who_misses_much_while_a_machine_comes_has_it_the_next_time() -> None:
    """A minute of load, two without: the machine is there the second time, and is given back in the end."""
    world = on_demand(SMALL, types=(worker_type("cpu", usd=0.4, boot_s=30.0),), waiting_usd_per_s=0.0)
    load = Asked(rows=1000, latency_s=0.5)
    world.ask(load, seconds=60)
    world.ask(seconds=120)
    assert world.workers()
    world.ask(load, seconds=10)
    assert world.missed == 0.0
    world.ask(seconds=900)
    assert world.workers() == {}


def test_spare_replicas_come_last_and_make_room() -> None:
    """One worker of four cores: what is free of it answers the first class better, until a second one needs it."""
    wide = offer("wide", usd=0.002, accuracy=0.9, rate_qps=100, threads=2, p99_ms=[(1, 20.0), (8, 80.0)])
    world = World(SMALL, wide, workers=[worker()], settings=settings())
    first = Asked(rows=200, latency_s=0.5, min_accuracy=0.7)
    world.ask(first, seconds=60)
    assert world.counts()[SMALL.name] > 1
    assert world.missed == 0.0
    world.ask(first, Asked(rows=20, latency_s=0.5, min_accuracy=0.9), seconds=60)
    assert world.counts()[wide.name] >= 1
    threads = {SMALL.name: 1, wide.name: 2}
    assert sum(threads[name] * count for name, count in world.counts().items()) <= 4
    assert world.missed == 0.0


def test_where_machines_cost_nothing_a_plan_is_followed_however_loose_its_share() -> None:
    world = World(SMALL, workers=[worker()], settings=settings())
    asked = Asked(rows=10, latency_s=0.5)
    world.ask(asked, seconds=30)
    plans = [x for x in world.ask(asked, seconds=12) if isinstance(x, SolvePlan)]
    kind = next(iter(world.autoscaler.fleet.workers.values())).worker_type
    replicas = {SMALL.name: {kind: 2}}
    free = Plan(replicas=replicas, objective_usd_per_hour=2e-5, bound_usd_per_hour=1e-5)
    actions = world.step(PlanMade(number=plans[-1].number, plan=free, took_s=1.0))
    assert starts(actions) == [SMALL.name]


def test_plans_that_do_not_come_are_asked_for_again() -> None:
    autoscaler = Autoscaler(settings())
    asked = [any(isinstance(x, SolvePlan) for x in autoscaler.step([], float(second))) for second in range(100)]
    assert 3 <= sum(asked) <= 5


def test_where_machines_are_short_who_accepts_less_accuracy_gets_it_and_nobody_is_refused() -> None:
    quick = offer("quick", usd=0.0005, accuracy=0.7, rate_qps=2000, p99_ms=[(1, 1.0), (8, 8.0)])
    large = offer("large", usd=0.002, accuracy=0.9, rate_qps=667)
    world = on_demand(quick, large, types=(worker_type("cpu", usd=0.4, most=1),))
    strict = Asked(rows=800, latency_s=0.5, min_accuracy=0.8)
    lenient = Asked(rows=2400, latency_s=0.5, min_accuracy=0.8, on_miss=OnMiss.DEGRADE)
    world.ask(strict, lenient, seconds=60)
    assert set(world.counts()) == {quick.name, large.name}
    report = serve(world.autoscaler.routing_table(world.now), (strict, lenient))[0]
    assert [x.missed for x in report.classes if x.on_miss is OnMiss.REJECT] == [0]
    assert sum(report.served.values()) == 3200
    before = world.counts()
    world.ask(strict, lenient, seconds=120)  # what is missed as planned asks for no more room
    assert world.counts() == before


def test_queries_that_come_now_and_then_are_no_reason_to_swap() -> None:
    """Eight architectures with a query or two in five seconds each; a GPU holds all of them, a CPU some."""
    names = [f"net{number}" for number in range(8)]
    both = [
        x
        for name in names
        for x in (
            offer(name, usd=0.002, p99_ms=[(1, 60.0), (8, 300.0)], rate_qps=30, threads=4),
            offer(f"{name}gpu", usd=0.003, p99_ms=[(1, 4.0), (8, 8.0)], rate_qps=900, hardware=HardwareKind.GPU),
        )
    ]
    world = on_demand(*both)
    rng = np.random.default_rng(5)
    actions = []
    for second in range(900):
        rows = [Asked(rows=n, latency_s=0.1) for n in rng.poisson(0.3, len(names)).tolist() if n]
        done = world.ask(*rows)
        if second >= 200:
            actions += done
    assert len(starts(actions)) <= 10
    assert len(requests(actions)) <= 2


def test_what_answers_alone_stays_until_its_successor_is_ready() -> None:
    """Where a planned replica has no room but in place of others, those go whose queries others answer."""
    world = on_demand(SMALL, LARGE, types=(CPU,))
    world.ask(Asked(rows=60, latency_s=0.5, min_accuracy=0.9), seconds=60)
    for _ in range(150):
        world.ask(Asked(rows=60, latency_s=0.5, min_accuracy=0.9), Asked(rows=400, latency_s=0.1, min_accuracy=0.7))
        assert world.counts().get(LARGE.name, 0) > 0
    assert world.missed == 0.0


def test_replicas_move_where_free_memory_is_in_pieces() -> None:
    """Two of 3 GiB, one on each machine of 8 GiB, leave no room for one of 7 GiB, until one moves."""
    small = offer("small", usd=0.001, accuracy=0.7, rate_qps=667, memory_bytes=3 * GIB, threads=4)
    large = offer("large", usd=0.004, accuracy=0.9, rate_qps=100, memory_bytes=7 * GIB)
    scaling = ScalingSettings(strategy="planner", keep_warm={small.name: 2}, start_overhead_s=0.0)
    world = World(small, large, workers=[worker("w1"), worker("w2")], settings=scaling)
    world.ask(Asked(rows=5, latency_s=0.5), seconds=20)
    assert world.counts() == {small.name: 2}
    assert all(len(x.replicas) == 1 for x in world.autoscaler.fleet.workers.values())
    for _ in range(40):
        world.ask(Asked(rows=5, latency_s=0.5, min_accuracy=0.7), Asked(rows=5, latency_s=0.5, min_accuracy=0.9))
        assert world.counts()[small.name] >= 2, "new before old"
    assert world.counts() == {small.name: 2, large.name: 1}
    assert world.missed == 0.0


def test_replicas_move_where_starts_succeed() -> None:
    small = offer("small", usd=0.001, accuracy=0.7, rate_qps=667, memory_bytes=3 * GIB, threads=4)
    large = offer("large", usd=0.004, accuracy=0.9, rate_qps=100, memory_bytes=7 * GIB)
    scaling = ScalingSettings(strategy="planner", keep_warm={small.name: 3}, start_overhead_s=0.0)
    world = World(small, large, workers=[worker("w1"), worker("w2"), worker("w3")], settings=scaling)
    world.ask(Asked(rows=5, latency_s=0.5), seconds=20)
    world.broken = {"w2"}
    world.ask(
        Asked(rows=5, latency_s=0.5, min_accuracy=0.7), Asked(rows=5, latency_s=0.5, min_accuracy=0.9), seconds=60
    )
    assert world.counts() == {small.name: 3, large.name: 1}
    assert world.missed == 0.0


def test_what_queries_ask_for_takes_no_room_from_what_is_planned_for_them() -> None:
    """A query asks for the cheapest that meets its SLO; the plan answers it with what another class needs anyway."""
    cheap = offer("cheap", usd=0.001, accuracy=0.5, memory_bytes=6 * GIB)
    middle = offer("middle", usd=0.002, accuracy=0.7, memory_bytes=7 * GIB)
    best = offer("best", usd=0.003, accuracy=0.8, memory_bytes=7 * GIB)
    world = World(cheap, middle, best, workers=[worker("w1"), worker("w2")], settings=settings())
    low = Asked(rows=60, latency_s=0.5, min_accuracy=0.5)
    world.ask(low, seconds=60)
    asked = (low, Asked(rows=5, latency_s=0.5, min_accuracy=0.7), Asked(rows=60, latency_s=0.5, min_accuracy=0.8))
    world.ask(*asked, seconds=120)
    assert world.counts() == {cheap.name: 1, best.name: 1}
    assert world.missed == 0.0


def test_what_was_asked_for_before_any_plan_makes_room_for_what_is_planned() -> None:
    cheap = offer("cheap", usd=0.001, accuracy=0.5, memory_bytes=6 * GIB)
    best = offer("best", usd=0.003, accuracy=0.8, memory_bytes=7 * GIB)
    world = World(cheap, best, workers=[worker()], settings=settings())
    assert starts(world.step(LoadRequested(variant=cheap.name))) == [cheap.name]
    low, high = (Asked(rows=60, latency_s=0.5, min_accuracy=x) for x in (0.5, 0.8))
    world.ask(low, high, seconds=10)
    assert world.counts() == {best.name: 1}


def test_a_replica_answers_who_waited_for_it_before_it_makes_room() -> None:
    """What is planned wants the room of one that a query asked for, in the very turn in which that is ready."""
    cheap = offer("cheap", usd=0.001, accuracy=0.5, memory_bytes=6 * GIB)
    best = offer("best", usd=0.003, accuracy=0.8, memory_bytes=7 * GIB)
    world = World(cheap, best, workers=[worker()], settings=settings(), load_s=5.0)
    assert starts(world.step(LoadRequested(variant=cheap.name))) == [cheap.name]
    world.ask(*(Asked(rows=60, latency_s=0.5, min_accuracy=x) for x in (0.5, 0.8)), seconds=20)
    ready_at, drained_at = (
        next(now for now, events, actions in world.log for x in (*events, *actions) if type(x) is kind)
        for kind in (ReplicaReady, DrainReplica)
    )
    assert drained_at >= ready_at + 1.0
    assert world.counts() == {best.name: 1}


def test_a_class_that_is_refused_keeps_nobody_from_what_is_planned() -> None:
    """One machine holds one of the two; queries that only the other could answer go on asking for it."""
    cheap = offer("cheap", usd=0.001, accuracy=0.5, memory_bytes=6 * GIB, p99_ms=[(1, 3.0), (8, 9.0)])
    best = offer("best", usd=0.003, accuracy=0.8, memory_bytes=7 * GIB, p99_ms=[(1, 80.0), (8, 200.0)])
    world = World(cheap, best, workers=[worker()], settings=settings())
    world.step(LoadRequested(variant=cheap.name))
    quick, right = (Asked(rows=60, latency_s=x, min_accuracy=y) for x, y in ((0.02, 0.5), (0.5, 0.8)))
    world.ask(quick, right, seconds=10)
    began = Counter(starts([x for _, _, actions in world.log for x in actions]))
    assert world.counts() == {best.name: 1}
    world.ask(quick, right, seconds=60)
    assert world.counts() == {best.name: 1}
    assert Counter(starts([x for _, _, actions in world.log for x in actions])) == began


GPUS = replace(worker_type("gpu", gpu=1.0, usd=3.0, least=2, most=2), device_memory_bytes=16 * GIB)


def on_gpu(name: str, gib: int) -> Offer:
    made = offer(name, hardware=HardwareKind.GPU, rate_qps=1000, p99_ms=[(1, 4.0), (8, 8.0)])
    return replace(made, profile=replace(made.profile, peak_device_memory_bytes=gib * GIB))


def gpus_with_one_of_each(*offers: Offer) -> Fleet:
    """Two machines with a GPU each, and on them in turn a ready replica of each."""
    scaler = Autoscaler(settings(), 0)
    joined = [worker(x, gpu=1.0, kind="gpu") for x in ("w1", "w2")]
    scaler.step([CatalogChanged(catalog=catalog(*offers, types=(GPUS,))), *joined], 0.0)
    orders = Orders(scaler.fleet, 0.0)
    for one, on in zip(offers, ("w1", "w2"), strict=False):
        replica = orders.start_at(on, one.name, "")
        assert replica is not None
        scaler.fleet.apply(ready(replica, on), 1.0)
    return scaler.fleet


def followed(follower: PlanFollower, plan: Plan, fleet: Fleet, now: float) -> list[tuple[str, str, str]]:
    """The orders of a turn: what, of which variant, where. What was started is ready at once."""
    orders = Orders(fleet, now)
    situation = Situation(fleet=fleet, traffic=Traffic(3.0), requests={}, lost=(), pins={}, now=now)
    follower.follow(plan, {}, situation, orders, ())
    found = []
    for x in orders.actions:
        assert isinstance(x, StartReplica | DrainReplica)
        known = fleet.replicas[x.replica]
        found.append((type(x).__name__, known.variant, known.worker))
        if isinstance(x, StartReplica):
            fleet.apply(ready(x.replica, x.worker), now)
    return found


def test_a_spare_replica_goes_to_a_gpu_without_one_of_its_own() -> None:
    quick, large = on_gpu("quick", 2), on_gpu("large", 2)
    fleet, follower = gpus_with_one_of_each(quick, large), PlanFollower(settings())
    once = {x.name: {"gpu": 1} for x in (quick, large)}
    plan = Plan(workers={"gpu": 2}, replicas=once, spare={quick.name: {"gpu": 2}})
    assert followed(follower, plan, fleet, 10.0) == [("StartReplica", quick.name, "w2")]
    assert followed(follower, plan, fleet, 11.0) == []


def test_spare_replicas_on_gpus_that_have_room_stay_when_more_is_planned() -> None:
    quick, large, new = on_gpu("quick", 2), on_gpu("large", 2), on_gpu("new", 2)
    fleet, follower = gpus_with_one_of_each(quick, large, new), PlanFollower(settings())
    once = {x.name: {"gpu": 1} for x in (quick, large)}
    spare = {quick.name: {"gpu": 1}, large.name: {"gpu": 1}}
    for now in (10.0, 11.0):
        followed(follower, Plan(workers={"gpu": 2}, replicas=once, spare=spare), fleet, now)
    more = Plan(workers={"gpu": 2}, replicas=once | {new.name: {"gpu": 2}}, spare=spare)
    assert sorted(followed(follower, more, fleet, 20.0)) == [("StartReplica", new.name, x) for x in ("w1", "w2")]


def test_what_a_cold_query_needs_takes_the_room_of_a_spare_replica() -> None:
    quick, large, cold = on_gpu("quick", 5), on_gpu("large", 5), on_gpu("cold", 7)
    world = World(quick, large, cold, types=(GPUS,), settings=settings())
    usual = [Asked(rows=500, latency_s=0.05, target=x) for x in ("quick", "large")]
    world.ask(*usual, seconds=60)
    assert world.counts() == {quick.name: 2, large.name: 2}
    world.step(LoadRequested(variant=cold.name))
    world.ask(*usual, seconds=5)
    assert world.counts()[cold.name] == 1
    assert sum(world.counts().values()) == 4
    assert world.missed == 0.0


@pytest.mark.parametrize("stuck", ["aaa", "zzz"])
def test_one_that_no_move_helps_keeps_no_other_from_room(stuck: str) -> None:
    """Five small ones on each of two machines: one of 4 GiB gets room by a move, one of 8 GiB never does."""
    small, large = offer("small", memory_bytes=GIB), offer("large", memory_bytes=4 * GIB)
    scaler = Autoscaler(settings(), 0)
    joined = [worker("w1"), worker("w2")]
    scaler.step([CatalogChanged(catalog=catalog(small, large, offer(stuck, memory_bytes=8 * GIB))), *joined], 0.0)
    fleet, orders = scaler.fleet, Orders(scaler.fleet, 0.0)
    for name in ("w1", "w2") * 5:
        replica = orders.start_at(name, small.name, "")
        assert replica is not None
        fleet.apply(ready(replica, name), 1.0)
    plan = Plan(replicas={small.name: {"test": 10}, v(stuck): {"test": 1}, large.name: {"test": 1}})
    orders = Orders(fleet, 10.0)
    situation = Situation(fleet=fleet, traffic=Traffic(3.0), requests={}, lost=(), pins={}, now=10.0)
    PlanFollower(settings()).follow(plan, {}, situation, orders, ())
    assert starts(orders.actions) == [small.name]
