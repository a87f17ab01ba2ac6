"""A turn of the control loop in a large system: 1,000 workers, 10,000 replicas, 1,000 variants, 4 routers.

Rule: the system is built by the same events that a controller gets, so no state is made up. In each turn every router
reports traffic, half of the workers report their usage (each does once a second, turns come twice), a few replicas die
and those that were ordered become ready; the demand for each variant swings, so replicas start and drain, and machines
are asked for and given back. A turn is `Autoscaler.step` and the routing table after it; plans that it asks for are
made between turns, as beside the loop, and turns count once the first plan is followed.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from math import sin, tau
from time import perf_counter

from benchmarks.selection.world import make_world
from infaas_ray.domain import WorkerType
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.messages import (
    Action,
    CatalogChanged,
    ClassCount,
    DrainReplica,
    Event,
    PlanMade,
    ReleaseWorker,
    ReplicaDied,
    ReplicaDrained,
    ReplicaReady,
    ReplicaStopped,
    RequestWorkers,
    SolvePlan,
    StartReplica,
    StopReplica,
    TrafficReported,
    WorkerJoined,
    WorkerLost,
    WorkerReported,
)
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.scaling.settings import StrategyName

STRATEGIES: tuple[StrategyName, ...] = ("planner", "individual")
_ROUTERS = 4
_DEATHS = 5  # a turn
_MACHINE = WorkerType(
    name="m5", resources={"CPU": 8.0}, memory_bytes=2**36, usd_per_hour=0.384, boot_s=30.0, max_workers=1_000
)
_TURN_S = 0.5
_LOAD, _SWING, _PERIOD_S = 0.8, 0.3, 120.0  # of what its replicas could answer, how far the demand swings, how fast


class System:
    """An autoscaler and the world that obeys it."""

    def __init__(
        self,
        strategy: StrategyName,
        workers: int = 1_000,
        replicas: int = 10_000,
        variants: int = 1_000,
        seed: int = 1,
    ) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.autoscaler = Autoscaler(ScalingSettings(strategy=strategy), first_version=0)
        catalog = replace(make_world(variants, 10, asks=1, seed=seed).table.catalog, worker_types={"m5": _MACHINE})
        self._workers = [f"w{number}" for number in range(workers)]
        self._due: list[Event] = []
        names = list(catalog.offers)
        weights = [1 / (rank + 1) ** 0.5 for rank in range(len(names))]
        chosen = self.rng.choices(names, weights, k=replicas)
        joined = [self._joined_as(x) for x in self._workers]
        ready = [self._ready(f"{name}#{n}", name, self._workers[n % workers]) for n, name in enumerate(chosen)]
        self._joined = workers
        actions = self.autoscaler.step([CatalogChanged(catalog=catalog), *joined, *ready], self.now)
        self._due = self._outcomes(actions)
        self._rates = {
            name: (chosen.count(name) * offer.profile.saturation_qps, self.rng.uniform(0.0, tau))
            for name, offer in catalog.offers.items()
        }

    def turn(self) -> tuple[float, Sequence[Action]]:
        """Seconds that a turn took, and what it ordered."""
        self.now += _TURN_S
        events = self._events()
        started = perf_counter()
        actions = self.autoscaler.step(events, self.now)
        self.autoscaler.routing_table(self.now)
        took_s = perf_counter() - started
        self._due = self._outcomes(actions)
        return took_s, actions

    def _events(self) -> list[Event]:
        rng = self.rng
        reports = [
            WorkerReported(worker=x, cpu_share=rng.uniform(0.3, 0.9), memory_share=0.5)
            for x in rng.sample(self._workers, len(self._workers) // 2)
        ]
        dead = rng.sample(list(self.autoscaler.fleet.replicas), _DEATHS)
        return [*self._due, *reports, *(ReplicaDied(replica=x) for x in dead), *map(self._traffic, range(_ROUTERS))]

    def _traffic(self, router: int) -> Event:
        turned = self.now / _PERIOD_S * tau
        asked = {
            name: round(rate * (_LOAD + _SWING * sin(turned + phase)) * _TURN_S / _ROUTERS * self.rng.uniform(0.8, 1.2))
            for name, (rate, phase) in self._rates.items()
        }
        classes = tuple(ClassCount(target=name, latency_s=0.1, rows=rows) for name, rows in asked.items())
        return TrafficReported(
            router=f"r{router}", window_s=_TURN_S, wanted=asked, served=asked, refused={}, classes=classes
        )

    def _outcomes(self, actions: Sequence[Action]) -> list[Event]:
        found: list[Event] = []
        for action in actions:
            if isinstance(action, RequestWorkers):
                there = sum(not x.leaving for x in self.autoscaler.fleet.workers.values())
                fresh = [f"w{self._joined + number}" for number in range(action.counts["m5"] - there)]
                self._joined += len(fresh)
                self._workers += fresh
                found += map(self._joined_as, fresh)
            elif (event := self._outcome(action)) is not None:
                found.append(event)
        return found

    def _outcome(self, action: Action) -> Event | None:
        match action:
            case ReleaseWorker():
                self._workers.remove(action.worker)
                return WorkerLost(worker=action.worker)
            case StartReplica():
                return self._ready(action.replica, action.variant, action.worker)
            case DrainReplica():
                return ReplicaDrained(replica=action.replica)
            case StopReplica():
                return ReplicaStopped(replica=action.replica)
            case SolvePlan():
                return PlanMade(number=action.number, plan=solve(action.problem), took_s=0.0)
            case _:
                return None

    def _joined_as(self, worker: str) -> WorkerJoined:
        return WorkerJoined(
            worker=worker, worker_type="m5", resources=_MACHINE.resources, memory_bytes=_MACHINE.memory_bytes
        )

    def _ready(self, replica: str, variant: str, worker: str) -> ReplicaReady:
        return ReplicaReady(replica=replica, variant=variant, worker=worker, address=f"10.0.0.1:{replica}")


def turn_ms(strategy: StrategyName, turns: int, seed: int) -> list[float]:
    """Milliseconds of so many turns, after some that let the system settle."""
    system = System(strategy, seed=seed)
    for _ in range(10):
        system.turn()
    if strategy == "planner" and not system.autoscaler.followed:
        raise RuntimeError("no plan is followed, so that turns would have nothing to do")
    return [system.turn()[0] * 1e3 for _ in range(turns)]
