"""The world of a simulation: arrivals, replicas and machines around the live policy, in virtual time.

Rule: the world decides nothing. `Autoscaler.step` takes its turns as in the live system; what it orders is performed
here by arranging what will happen, and each outcome is a fact for its next turn. Queries go through the live `select`
and the live `Batcher`. The same settings, workload and seed give the same run, always.
"""

from collections.abc import Callable, Iterator
from itertools import cycle
from math import exp
from typing import assert_never

import numpy as np

from infaas_ray.errors import InfaasError, InvalidInput, UnknownTarget, one_of
from infaas_ray.policy.autoscaler import Autoscaler, ScalingSettings
from infaas_ray.policy.messages import (
    Action,
    CatalogChanged,
    DrainReplica,
    LoadRequested,
    PlanMade,
    ReleaseWorker,
    ReplicaDied,
    ReplicaDrained,
    ReplicaFailed,
    ReplicaReady,
    ReplicaStopped,
    RequestWorkers,
    SolvePlan,
    StartReplica,
    StopReplica,
    WorkerReported,
)
from infaas_ray.policy.planner.problem import Plan, PlanProblem
from infaas_ray.policy.rhythm import DRAIN_LIMIT_S, MONITOR_S, PUBLISHED_S, REPORT_S
from infaas_ray.policy.routing import Catalog, Offer, RoutingTable
from infaas_ray.simulator.control import Control, Log
from infaas_ray.simulator.engine import Engine
from infaas_ray.simulator.flights import Batch, Flight, Kind
from infaas_ray.simulator.jitter import BatchTimes, ProfiledTimes, normals
from infaas_ray.simulator.meter import Meter
from infaas_ray.simulator.replicas import Replica
from infaas_ray.simulator.router import Router
from infaas_ray.simulator.settings import WorldSettings
from infaas_ray.simulator.ways import Ways
from infaas_ray.simulator.workers import Machine, Provider
from infaas_ray.simulator.workload import Workload

Solver = Callable[[PlanProblem], Plan]
MakeTimes = Callable[[Offer, Iterator[float]], BatchTimes]
_SLICE_S = 1.0  # how far time runs at once after the last arrival
_STUCK_S = 3600.0  # a query that has not left so long after the last arrival never will
_WORKLOAD, _BATCHES, _WAYS, _STARTS, _PROVIDER = range(5)  # each has random numbers of its own


def arrivals_rng(seed: int) -> np.random.Generator:
    """The generator from which the arrivals of a run with that seed are drawn."""
    return _rng(seed, _WORKLOAD)


def _rng(seed: int, use: int) -> np.random.Generator:
    return np.random.default_rng([seed, use])


class World:
    """One run. `solve` makes plans for strategies that ask for them; `times` says how long batches take alone.

    Queries that arrive from `warmup_s` to `duration_s` count, and machine time within.
    """

    def __init__(
        self,
        catalog: Catalog,
        workload: Workload,
        scaling: ScalingSettings,
        *,
        duration_s: float,
        warmup_s: float = 0.0,
        settings: WorldSettings | None = None,
        seed: int = 0,
        bins: int = 120,
        solve: Solver | None = None,
        times: MakeTimes = ProfiledTimes,
        log: Log | None = None,
    ) -> None:
        if not 0 <= warmup_s < duration_s:
            raise InvalidInput(f"a run of {duration_s:g} s cannot begin to count after {warmup_s:g} s")
        targets = catalog.targets()
        for kind in workload.kinds:
            if kind.target not in targets:
                raise UnknownTarget(one_of("target", kind.target, [x for x in targets if "@" not in x]))
        self._catalog = catalog
        self.prices = {name: x.usd_per_hour for name, x in catalog.worker_types.items()}
        self._settings = settings or WorldSettings()
        self._duration_s = duration_s
        self._solve = solve
        self._make_times = times
        self._times: dict[str, BatchTimes] = {}
        self._workload = workload
        self._random = [_rng(seed, x) for x in range(5)]
        self._draws = normals(self._random[_BATCHES])
        self._replicas: dict[str, Replica] = {}
        self._drained: set[str] = set()
        self.engine = engine = Engine()
        self._ways = Ways(engine, self._settings, self._random[_WAYS], self._deliver)
        self.kinds = [Kind(number, x) for number, x in enumerate(workload.kinds)]
        self.meter = Meter(self.kinds, warmup_s, duration_s, bins)
        self.autoscaler = Autoscaler(scaling)
        self.control = Control(
            engine, self.autoscaler, self._perform, self._publish, self._settings.control_delay_s, log
        )
        self.provider = Provider(
            engine,
            self._settings,
            catalog.worker_types.values(),
            self._random[_PROVIDER],
            self.meter,
            self.control.tell,
            self._lose,
        )
        self._routers = [
            Router(f"router-{x + 1}", engine, self.meter, self._send, self._request_load)
            for x in range(self._settings.routers)
        ]
        self._turns = cycle(self._routers)
        self._arrivals = self._arriving()
        self.arrived = 0
        self._more = True

    def run(self, progress: Callable[[float], None] = lambda now: None) -> Meter:
        """Run to the end: until the last query that arrives before `duration_s` has left."""
        self.control.tell(CatalogChanged(catalog=self._catalog))
        self.provider.begin()
        self.control.begin()  # routers open when they have a first table
        for number, router in enumerate(self._routers, start=1):
            self.engine.after(REPORT_S * number / len(self._routers), self._report, router)
        self.engine.after(MONITOR_S, self._monitor)
        self._arrange_next()
        steps = 200
        for step in range(1, steps + 1):
            self.engine.run(self._duration_s * step / steps)
            progress(self._duration_s * step / steps)
        self.meter.machines.end(self._duration_s)
        self.meter.replicas.end(self._duration_s)
        until_s = self._duration_s
        while self._more or self.meter.left < self.arrived:
            until_s += _SLICE_S
            if until_s > self._duration_s + _STUCK_S:
                raise AssertionError(f"{self.arrived - self.meter.left} queries never left")
            self.engine.run(until_s)
        return self.meter

    # ---- arrivals

    def _arriving(self) -> Iterator[tuple[float, Kind]]:
        last_s = 0.0
        for chunk in self._workload.chunks(self._random[_WORKLOAD]):
            if not len(chunk.times):
                continue
            if chunk.times[0] < last_s or np.any(np.diff(chunk.times) < 0):
                raise InvalidInput(f"the workload goes back in time after {last_s:g} s")
            last_s = float(chunk.times[-1])
            for time_s, number in zip(chunk.times.tolist(), chunk.kinds.tolist(), strict=True):
                if time_s >= self._duration_s:
                    return
                yield time_s, self.kinds[number]

    def _arrange_next(self) -> None:
        """Arrange the next arrival; those before anything else happens are not worth arranging (see `_arrive`)."""
        arrival = next(self._arrivals, None)
        if arrival is None:
            self._more = False
        else:
            self.engine.at(arrival[0], self._arrive, arrival[1])

    def _arrive(self, kind: Kind) -> None:
        engine = self.engine
        while True:
            self.arrived += 1
            self.meter.arrived(kind, engine.now)
            next(self._turns).arrive(kind)
            arrival = next(self._arrivals, None)
            if arrival is None:
                self._more = False
                return
            time_s, kind = arrival
            if time_s >= engine.next_at():
                engine.at(time_s, self._arrive, kind)
                return
            engine.advance(time_s)

    # ---- the way of a query

    def _send(self, flight: Flight) -> None:
        replica = self._replicas.get(flight.replica)
        self._ways.out(flight, None if replica is None else self.provider.machines[replica.worker])

    def _deliver(self, flight: Flight) -> None:
        replica = self._replicas.get(flight.replica)
        if replica is None or not replica.take(flight):
            self._ways.back(flight.router.lost, flight)

    def _answer(self, batch: Batch) -> None:
        if len(self._routers) == 1:
            self._ways.back(self._routers[0].answered, batch)
            return
        for router in self._routers:
            part = batch.part([x for x in batch.flights if x.router is router])
            if part.flights:
                self._ways.back(router.answered, part)

    def _expire(self, flight: Flight) -> None:
        self._ways.back(flight.router.expired, flight)

    def _strand(self, flights: list[Flight]) -> None:
        """The replica that held them is gone; their routers notice."""
        for flight in flights:
            self.engine.after(self._settings.loss_noticed_s, flight.router.lost, flight)

    # ---- between routers and control

    def _report(self, router: Router) -> None:
        self.engine.after(self._settings.control_delay_s, self.control.tell, router.report())
        self.engine.after(REPORT_S, self._report, router)

    def _request_load(self, variant: str, within_s: float | None) -> None:
        event = LoadRequested(variant=variant, within_s=within_s)
        self.engine.after(self._settings.control_delay_s, self.control.tell, event)

    def _publish(self, table: RoutingTable) -> None:
        for router in self._routers:
            if self.engine.now > 0:
                self.engine.after(self._settings.table_delay_s, router.update, table)
            else:
                router.update(table)

    def _monitor(self, _subject: object) -> None:
        for machine in self.provider.machines.values():
            self.control.tell(
                WorkerReported(
                    worker=machine.name,
                    cpu_share=machine.cpu_share(MONITOR_S),
                    memory_share=min(1.0, machine.memory_bytes / machine.kind.memory_bytes),
                )
            )
        self.engine.after(MONITOR_S, self._monitor)

    # ---- orders

    def _perform(self, action: Action) -> None:
        match action:
            case StartReplica():
                self._start(action)
            case DrainReplica():
                self.engine.after(PUBLISHED_S, self._drain, action.replica)
            case StopReplica():
                self._stop(action.replica)
            case RequestWorkers():
                workers = self.autoscaler.fleet.workers
                self.provider.have(action.counts, lambda name: name in workers and workers[name].leaving)
            case ReleaseWorker():
                self.provider.release(action.worker)
            case SolvePlan():
                self._plan(action)
            case _:
                assert_never(action)

    def _start(self, action: StartReplica) -> None:
        machine = self.provider.machines.get(action.worker)
        if machine is None:
            return  # its loss is on the way to the autoscaler
        offer = self._catalog.offers[action.variant]
        pool, units = machine.pool_for(action.replica, offer.variant, action.amount, self.engine)
        times = self._times.get(offer.name)
        if times is None:
            times = self._times[offer.name] = self._make_times(offer, self._draws)
        replica = Replica(
            self.engine, action.replica, machine.name, offer, times, pool, units, self._answer, self._expire
        )
        self._replicas[replica.id] = replica
        machine.hold(replica, offer.profile.peak_memory_bytes)
        self.meter.counts["starts"] += 1
        usual_s = offer.profile.load_s + self._settings.start_overhead_s
        jitter = exp(self._settings.start_jitter * self._random[_STARTS].standard_normal())
        self.engine.after(usual_s * jitter, self._started, replica)

    def _started(self, replica: Replica) -> None:
        if replica.gone:
            return  # stopped or lost meanwhile
        settings, rng = self._settings, self._random[_STARTS]
        if settings.start_failures and rng.random() < settings.start_failures:
            self._remove(replica)
            self.meter.counts["starts_failed"] += 1
            self.control.tell(
                ReplicaFailed(replica=replica.id, variant=replica.variant, reason="its process died", permanent=False)
            )
            return
        if not self.meter.replicas.level(replica.variant):
            self.meter.counts["variants_loaded"] += 1
        replica.ready = True
        self.meter.replicas.change(replica.variant, 1, self.engine.now)
        self.control.tell(
            ReplicaReady(replica=replica.id, variant=replica.variant, worker=replica.worker, address="simulated")
        )
        if settings.replica_crashes_per_hour:
            left_s = float(rng.exponential(3600.0 / settings.replica_crashes_per_hour))
            self.engine.after(left_s, self._crash, replica)

    def _crash(self, replica: Replica) -> None:
        if not replica.gone:
            self.meter.counts["replicas_crashed"] += 1
            self._remove(replica)
            self.control.tell(ReplicaDied(replica=replica.id))

    def _drain(self, name: str) -> None:
        replica = self._replicas.get(name)
        if replica is not None:
            self.engine.after(DRAIN_LIMIT_S, self._emptied, replica)
            replica.drain(self._emptied)

    def _emptied(self, replica: Replica) -> None:
        """It has drained, or had its time."""
        if not replica.gone and replica.id not in self._drained:
            self._drained.add(replica.id)
            self.control.tell(ReplicaDrained(replica=replica.id))

    def _stop(self, name: str) -> None:
        replica = self._replicas.get(name)
        if replica is not None:
            self.meter.counts["stops"] += 1
            self._remove(replica)
        self.engine.after(self._settings.stop_s, self.control.tell, ReplicaStopped(replica=name))

    def _remove(self, replica: Replica) -> None:
        """It is gone; what it held is stranded."""
        del self._replicas[replica.id]
        self._drained.discard(replica.id)
        machine = self.provider.machines.get(replica.worker)
        if machine is not None:
            machine.forget(replica)
        if replica.ready:
            self.meter.replicas.change(replica.variant, -1, self.engine.now)
        self._strand(replica.end())

    def _lose(self, machine: Machine) -> None:
        for replica in list(machine.replicas.values()):
            self.meter.counts["replicas_lost"] += 1
            self._remove(replica)

    def _plan(self, action: SolvePlan) -> None:
        problem = action.problem
        variables = len(problem.types) + sum(len(x.places) for x in problem.variants)
        variables += sum(len(x.options) for x in problem.classes)
        took_s = self._settings.solve_s + self._settings.solve_s_per_variable * variables
        plan: Plan | None = None
        reason = ""
        try:
            if self._solve is None:
                raise InvalidInput("this simulation was given no solver")
            plan = self._solve(problem)
        except InfaasError as error:
            reason = error.message
        self.meter.counts["plans"] += 1
        event = PlanMade(number=action.number, plan=plan, took_s=took_s, reason=reason)
        self.engine.after(took_s, self.control.tell, event)
