"""The controller: gathers facts, asks the autoscaler what to do, does it, and tells the routers what is true now.

It decides nothing itself (`policy.autoscaler` does) and sees no query. Facts become events; each turn of the loop
gives them to `Autoscaler.step`, appends the turn to the decision log, performs the actions, and publishes the
routing table where it changed. The outcome of an action is the next event. A new controller finds the replicas that
live by the names of their actors and takes them over by the same events.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Coroutine
from typing import Any, assert_never

import ray

from infaas_ray.config import Settings
from infaas_ray.domain import WorkerType
from infaas_ray.policy.autoscaler import Autoscaler
from infaas_ray.policy.messages import (
    Action,
    CatalogChanged,
    DrainReplica,
    Event,
    LoadRequested,
    PlanMade,
    ReleaseWorker,
    ReplicaDrained,
    ReplicaFailed,
    RequestWorkers,
    SolvePlan,
    StartReplica,
    StopReplica,
    TrafficReported,
    WorkerInterrupted,
    WorkerReported,
)
from infaas_ray.policy.plan_book import PlanBook, RunningPlan
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.replay import encode_turn
from infaas_ray.policy.rhythm import PUBLISHED_S, TURN_S
from infaas_ray.policy.routing import Catalog, RoutingTable
from infaas_ray.serving.accounts import Accounts
from infaas_ray.serving.catalog import read_catalog
from infaas_ray.serving.cluster_file import limits_of, to_be_had
from infaas_ray.serving.decision_log import open_log
from infaas_ray.serving.machines import Machines
from infaas_ray.serving.replica_actors import ReplicaActors
from infaas_ray.serving.workers import Workers, start_monitor
from infaas_ray.storage.metadata import Metadata

_logger = logging.getLogger(__name__)
_LISTEN_S = 10.0


class Controller:
    """One per system, as a named, detached actor that Ray restarts."""

    def __init__(self, settings: Settings, secret: bytes) -> None:
        self._settings = settings
        # Versions go on rising over restarts, so that routers know the tables of a new controller as newer.
        self._autoscaler = Autoscaler(settings.scaling, first_version=int(time.time() * 1000))
        self._metadata = Metadata(settings.metadata_url)
        self._accounts = Accounts(self._metadata, time.monotonic())
        self._plans = PlanBook()
        self._replicas = ReplicaActors(settings, secret, self._report)
        self._secret = secret
        self._catalog = Catalog(revision=-1)
        self._workers = Workers()
        self._known_types = settings.worker_types()
        limits = limits_of(settings)
        self._types = to_be_had(settings, self._known_types, limits)
        gcs = ray.get_runtime_context().gcs_address
        self._machines = Machines(gcs, settings.cluster.namespace, limits, self._autoscaler.fleet, self._report)
        self._events: list[Event] = []
        self._wake = asyncio.Event()
        self._table = RoutingTable()
        self._table_changed = asyncio.Event()
        self._routers: dict[str, dict[str, Any]] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._history: list[tuple[float, dict[str, int]]] = []
        self._closing = False
        self._started = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        settings = self._settings
        settings.home.mkdir(parents=True, exist_ok=True)
        self._log = open_log(settings)
        if not settings.local:
            await self._machines.start()
        self._see_workers()
        self._see_catalog()
        await self._replicas.adopt()
        self._turn()  # before anybody listens: a router must not see a table without the replicas that live
        self._spawn(self._loop())

    async def ready(self) -> dict[str, Any]:
        """Wait until the controller works; returns `status()`."""
        await self._started
        return self.status()

    # -- what others tell

    def _report(self, event: Event) -> None:
        """Note a fact for the next turn, and take that turn now unless it is only a measurement."""
        self._events.append(event)
        if not isinstance(event, TrafficReported | WorkerReported):
            self._wake.set()

    async def report_traffic(self, traffic: TrafficReported, about: dict[str, Any]) -> None:
        """A router's last window, and about itself: fates of its queries, conditions of replicas, its addresses."""
        self._routers[traffic.router] = about | {"seen": time.monotonic()}
        self._report(traffic)

    async def report_worker(self, report: WorkerReported) -> None:
        """A worker monitor's measurement."""
        self._workers.take(report)
        self._report(report)

    async def report_interruption(self, worker: str, within_s: float) -> None:
        """Somebody knows that a worker is taken away in so many seconds: its replicas move off."""
        self._report(WorkerInterrupted(worker=worker, within_s=within_s))

    async def request_load(self, variant: str, within_s: float | None) -> None:
        """A router has a query for a variant that is not loaded."""
        self._report(LoadRequested(variant=variant, within_s=within_s))

    async def listen(self, version: int) -> RoutingTable | None:
        """The routing table once it is newer than `version`; None after a while without one (ask again)."""
        await self._started
        if self._table.version <= version:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._table_changed.wait(), _LISTEN_S)
        return self._table if self._table.version > version else None

    async def routers(self) -> tuple[list[str], bytes]:
        """Addresses of the routers heard of lately, and the secret of the cluster (for drivers on it)."""
        now = time.monotonic()
        return [x["address"] for x in self._routers.values() if now - x["seen"] < _LISTEN_S], self._secret

    # -- the loop

    async def _loop(self) -> None:
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TURN_S)
            self._wake.clear()
            try:
                self._see_workers()
                self._see_catalog()
                self._turn()
                self._tend_shells()
            except Exception:  # whatever it was, the next turn sees the facts anew
                _logger.exception("a turn of the control loop failed")
                await asyncio.sleep(TURN_S)

    def _turn(self) -> None:
        now = time.monotonic()
        events, self._events = self._events, []
        actions = self._autoscaler.step(events, now)
        self._plans.note(events, actions, self._autoscaler.followed or 0, now)
        self._log.write(encode_turn(now, events, actions) + b"\n")
        self._log.flush()
        self._publish(now)
        for action in actions:
            self._spawn(self._perform(action))
        spent = self._accounts.turn(events, self._autoscaler, self._prices(), now)
        if spent is not None:
            self._spawn(asyncio.to_thread(self._accounts.write, spent, self._catalog))

    def _prices(self) -> dict[str, WorkerType]:
        at_hand = self._workers.priced(self._known_types, self._settings.prices.usd_per_cpu_hour)
        return {**self._known_types, **{x.name: x for x in at_hand}}

    def _tend_shells(self) -> None:
        if not self._closing:
            staying = [x for x in self._autoscaler.fleet.workers.values() if not x.leaving]
            self._replicas.tend_shells(self._workers.calm(staying), time.monotonic())

    def _publish(self, now: float) -> None:
        table = self._autoscaler.routing_table(now)
        if table.version != self._table.version:
            self._table = table
            self._table_changed.set()
            self._table_changed = asyncio.Event()
            self._remember(table)

    def _remember(self, table: RoutingTable) -> None:
        """Keep how many replicas of each variant were ready when, for plots."""
        counts: dict[str, int] = {}
        for replica in table.replicas:
            counts[replica.variant] = counts.get(replica.variant, 0) + 1
        self._history = [*self._history[-9_999:], (time.time(), counts)]

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _perform(self, action: Action) -> None:
        match action:
            case StartReplica():
                await self._start_replica(action)
            case DrainReplica():
                await asyncio.sleep(PUBLISHED_S)
                if await self._replicas.drain(action.replica):
                    self._report(ReplicaDrained(replica=action.replica))
            case StopReplica():
                await self._replicas.stop(action.replica)
            case RequestWorkers():
                await self._machines.request(action)
            case ReleaseWorker():
                await self._machines.release(action)
            case SolvePlan():
                await self._solve(action)
            case _:
                assert_never(action)

    async def _start_replica(self, action: StartReplica) -> None:
        offer = self._catalog.offers.get(action.variant)
        if offer is None:
            reason = "its variant left the catalogue"
            self._report(ReplicaFailed(replica=action.replica, variant=action.variant, reason=reason, permanent=True))
            return
        architecture = self._catalog.architectures[offer.variant.architecture]
        await self._replicas.start(action, offer, architecture)

    async def _solve(self, action: SolvePlan) -> None:
        """Make a plan on a thread; what goes wrong is told, and the last plan stands."""
        planner, started = self._settings.scaling.planner, time.monotonic()
        plan, reason = None, ""
        try:
            plan = await asyncio.to_thread(solve, action.problem, planner.time_limit_s, planner.gap)
        except Exception as error:
            _logger.exception("no plan could be made")
            reason = f"{type(error).__name__}: {error}"
        took_s = time.monotonic() - started
        self._report(PlanMade(number=action.number, plan=plan, took_s=took_s, reason=reason))

    # -- facts that are looked up

    def _see_workers(self) -> None:
        before, known = self._workers.types(), self._workers.nodes.keys()
        # First of the turn's facts: where a worker is lost, starts that failed on it are not their variant's fault.
        self._events[:0] = self._workers.look(self._machines.drained_by_others())
        for node in self._workers.nodes.keys() - known:
            start_monitor(node, self._settings.cluster)
        if (self._workers.types() ^ before) - self._catalog.worker_types.keys():
            self._catalog = Catalog(revision=-1)  # prices depend on the types at hand

    def _see_catalog(self) -> None:
        if self._metadata.revision() != self._catalog.revision:
            at_hand = self._workers.priced(self._known_types, self._settings.prices.usd_per_cpu_hour)
            self._catalog = read_catalog(self._metadata, at_hand, self._types)
            self._report(CatalogChanged(catalog=self._catalog))

    # -- what people ask

    def status(self) -> dict[str, Any]:
        """What runs: workers, replicas, routers with the fate of their queries, and the version of the table."""
        totals: dict[str, int] = {}
        for router in self._routers.values():
            for name, count in router["counts"].items():
                totals[name] = totals.get(name, 0) + count
        conditions = {name: state for x in self._routers.values() for name, state in x["conditions"].items()}
        fleet = self._autoscaler.fleet
        return {
            "controller_pid": os.getpid(),
            "table_version": self._table.version,
            "revision": self._catalog.revision,
            "variants": len(self._catalog.offers),
            "workers": self._workers.status(self._replicas.shells),
            "machines": self._machines.status(),
            "replicas": [
                {
                    "replica": x.id,
                    "variant": x.variant,
                    "state": str(x.state),
                    "worker": x.worker,
                    "condition": conditions.get(x.id, ""),
                    "pid": self._replicas.pid(x.id),
                }
                for x in fleet.replicas.values()
            ],
            "routers": {
                name: {"address": x["address"], "direct_url": x["direct_url"], **x["counts"]}
                for name, x in self._routers.items()
            },
            "queries": totals,
            "blocked": dict(self._table.blocked),
            "decision_log": self._log.name,
        }

    async def plan(self, others: int = 0) -> RunningPlan:
        """The plan that is followed; for quotes, also what would be planned for now and up to so many alternatives."""
        return self._plans.running(self._autoscaler, time.monotonic(), others)

    async def catalog(self) -> Catalog:
        """What is offered now, with its prices."""
        return self._catalog

    async def history(self) -> list[tuple[float, dict[str, int]]]:
        """Ready replicas by variant at each change, with Unix times."""
        return self._history

    async def shutdown(self) -> None:
        """Stop scaling, let every replica finish, and end them."""
        self._closing = True
        self._wake.set()
        await self._machines.close()
        await self._replicas.close()
        await asyncio.to_thread(self._accounts.write, self._accounts.rest(), self._catalog)
        self._log.close()
        self._metadata.close()
