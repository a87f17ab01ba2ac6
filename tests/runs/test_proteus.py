"""Proteus: the program against brute force, and what the strategy does with its plans."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import LoadRequested, ReplicaFailed
from infaas_ray.policy.scaling.proteus_program import Program, ProgramFamily, ProgramSpot, Solution, solve
from tests.unit.policy.builders import offer, worker, worker_type
from tests.unit.policy.fluid import Asked
from tests.unit.policy.world import World, drains, starts

GOOD = offer("good", accuracy=0.9, rate_qps=50, usd=0.02)
FAST = offer("fast", accuracy=0.7, rate_qps=500, usd=0.01)
HERE = [worker(cpu=4.0)]


def world(*offers: object, types: object = (), **changes: object) -> World:
    scaling = ScalingSettings(strategy="proteus", start_overhead_s=0.0, **changes)  # type: ignore[arg-type]
    workers = None if types else HERE
    return World(*(offers or (GOOD, FAST)), workers=workers, types=types, settings=scaling)  # type: ignore[arg-type]


def program(demand: float, rates: tuple[float, ...], accuracies: tuple[float, ...], slots: int) -> Program:
    """One family on one kind of machine, of which each replica keeps one core."""
    names = [f"v{n}" for n in range(len(rates))]
    return Program(
        spots=[ProgramSpot(variant=x, kind="cpu", keeps={"CPU": 1.0}, most=slots, now=0) for x in names],
        families=[
            ProgramFamily(
                name="f",
                demand_qps=demand,
                rates_qps=dict(zip(names, rates, strict=True)),
                accuracies=dict(zip(names, accuracies, strict=True)),
            )
        ],
        has={"cpu": {"CPU": float(slots)}},
    )


class TestProgram:
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(st.floats(1, 100), st.floats(0.1, 1)), min_size=1, max_size=3),
        st.integers(1, 5),
        st.floats(1, 400),
    )
    def test_it_serves_as_accurately_as_the_best_of_all_plans(
        self, variants: list[tuple[float, float]], slots: int, demand: float
    ) -> None:
        rates, accuracies = zip(*variants, strict=True)
        found = solve(program(demand, rates, accuracies, slots), 1.0, 0.05, 1.0)
        best = _brute_force(demand, rates, accuracies, slots)
        if best is None:
            assert found is None
            return
        assert found is not None
        counts = [found.replicas.get((f"v{n}", "cpu"), 0) for n in range(len(rates))]
        assert sum(counts) <= slots
        earned = _flow(demand, rates, accuracies, counts)
        assert earned is not None
        assert earned >= best - 3e-3 * demand

    def test_the_largest_share_of_the_demand_that_can_be_served(self) -> None:
        found = solve(program(100.0, (10.0,), (1.0,), 8), 1.05, 0.05, 0.2)
        assert found is not None
        assert found.beta == pytest.approx(0.8)

    def test_nothing_where_not_even_the_least_share_can_be(self) -> None:
        assert solve(program(100.0, (1.0,), (1.0,), 8), 1.05, 0.05, 0.2) is None

    def test_replicas_stay_where_they_are_if_that_costs_nothing(self) -> None:
        spots = [
            ProgramSpot(variant="a", kind=kind, keeps={"CPU": 1.0}, most=4, now=now)
            for kind, now in (("x", 0), ("y", 2))
        ]
        family = ProgramFamily(name="f", demand_qps=20.0, rates_qps={"a": 10.0}, accuracies={"a": 1.0})
        made = Program(spots=spots, families=[family], has={"x": {"CPU": 4.0}, "y": {"CPU": 4.0}})
        assert solve(made, 1.0, 0.05, 1.0) == Solution(replicas={("a", "y"): 2}, beta=1.0)


def _flow(demand: float, rates: tuple[float, ...], accuracies: tuple[float, ...], counts: list[int]) -> float | None:
    """The most accuracy that these replicas give to all of the demand; None where they cannot serve it."""
    most = [rate * count for rate, count in zip(rates, counts, strict=True)]
    found = linprog([-x for x in accuracies], A_eq=[[1.0] * len(rates)], b_eq=[demand], bounds=[(0, x) for x in most])
    return -found.fun if found.status == 0 else None


def _brute_force(demand: float, rates: tuple[float, ...], accuracies: tuple[float, ...], slots: int) -> float | None:
    plans = (x for x in product(range(slots + 1), repeat=len(rates)) if sum(x) <= slots)
    earned = [_flow(demand, rates, accuracies, list(x)) for x in plans]
    return max((x for x in earned if x is not None), default=None)


class TestStrategy:
    def test_the_most_accurate_serves_while_it_can(self) -> None:
        made = world()
        made.ask(Asked(rows=100), seconds=30)
        assert made.counts() == {GOOD.name: 3}

    def test_accuracy_gives_way_to_load(self) -> None:
        made = world()
        made.ask(Asked(rows=400), seconds=60)
        assert made.counts() == {GOOD.name: 3, FAST.name: 1}
        made.ask(Asked(rows=1900), seconds=60)
        assert made.counts() == {FAST.name: 4}

    def test_and_comes_back(self) -> None:
        made = world()
        made.ask(Asked(rows=1900), seconds=30)
        made.ask(Asked(rows=100), seconds=60)
        assert GOOD.name in made.counts()

    def test_batches_fit_twice_into_the_objective(self) -> None:
        """At 48 ms, batches of at most 24 ms: the variant's largest; at 30 ms, of 15 ms: 3 rows in 6.5 ms."""
        made = world(offer("good", rate_qps=10_000))
        made.ask(Asked(rows=700, latency_s=0.030), seconds=30)
        assert sum(made.counts().values()) == 2
        wide = world(offer("good", rate_qps=10_000))
        wide.ask(Asked(rows=700, latency_s=0.048), seconds=30)
        assert sum(wide.counts().values()) == 1

    def test_plans_are_made_every_ten_seconds(self) -> None:
        made = world()
        made.ask(Asked(rows=100), seconds=15)
        turns = [n for n in range(25) if starts(made.ask(Asked(rows=900 + n)))]
        assert len(turns) <= 3

    def test_what_is_not_planned_cannot_be_loaded(self) -> None:
        made = world()
        made.ask(Asked(rows=100), seconds=20)
        assert starts(made.step(LoadRequested(variant=FAST.name))) == []
        assert FAST.name in made.autoscaler.routing_table(made.now).blocked

    def test_new_before_old(self) -> None:
        made = world()
        made.ask(Asked(rows=100), seconds=30)
        for _ in range(40):
            made.ask(Asked(rows=1900))
            assert made.counts()

    def test_a_variant_that_cannot_start_is_planned_without(self) -> None:
        made = World(
            GOOD, FAST, workers=HERE, settings=ScalingSettings(strategy="proteus", start_overhead_s=0.0), load_s=60.0
        )
        made.ask(Asked(rows=100), seconds=5)
        broken = next(iter(made.autoscaler.fleet.replicas))
        made.step(ReplicaFailed(replica=broken, variant=GOOD.name, reason="corrupt", permanent=True))
        made.ask(Asked(rows=100), seconds=20)
        assert FAST.name in made.counts(State.STARTING)

    def test_machines_follow_their_use(self) -> None:
        made = world(GOOD, types=[worker_type("cpu")])
        made.ask(Asked(rows=600), seconds=400)
        assert made.counts() == {GOOD.name: 13}
        assert made.workers() == {"cpu": 4}
        made.ask(Asked(rows=50), seconds=700)
        assert made.workers() == {"cpu": 1}
        made.ask(Asked(rows=0), seconds=700)
        assert made.workers() == {}

    def test_without_demand_everything_leaves_but_what_is_kept_warm(self) -> None:
        made = world(keep_warm={"fast": 1})
        made.ask(Asked(rows=100), seconds=30)
        made.ask(Asked(rows=0), seconds=120)
        assert made.counts() == {FAST.name: 1}

    def test_a_steady_load_moves_nothing(self) -> None:
        made = world()
        made.ask(Asked(rows=400), seconds=60)
        actions = made.ask(Asked(rows=400), seconds=300)
        assert (starts(actions), drains(actions)) == ([], [])

    def test_who_asks_for_accuracy_is_served_with_it(self) -> None:
        made = world()
        made.ask(Asked(rows=1000), Asked(rows=40, min_accuracy=0.8), seconds=60)
        assert made.counts() == {GOOD.name: 2, FAST.name: 2}  # 1,000 of 1,050 on the fast, all others on the good
