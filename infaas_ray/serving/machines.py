"""Machines, through Ray's autoscaler (v2): asks for workers by type, gives them back, tells what could not be had.

The only module that talks to the autoscaler. Rules:
- Each worker type of the cluster's file has a resource of its own, `tier_<type>: 1`, which nothing occupies. As many
  of it are asked for as the books want workers: bundles of processors would be packed into GPU machines.
- A request counts what lives. Workers that leave and are not drained yet are asked for on top, or they would stand for
  those that are to replace them.
- Ray grants a request as a whole or not at all, so it is cut to the limits of the cluster's file first.
- The last request stands until the next one, beyond the life of who asked. It is renewed every few seconds, and follows
  the books where a worker dies: the policy decides about a successor, not Ray.
- A worker is given back by lowering the request, ending our monitor on it, and draining it "for preemption": Ray then
  puts nothing on it, and it ends with the last actor. Draining "for idleness" is refused while anything lives there.

Calls to Ray's control store block, so they run one after the other on a thread of their own.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.autoscaler.v2.sdk import get_cluster_status, request_cluster_resources
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.messages import Event, LaunchFailed, ReleaseWorker, RequestWorkers
from infaas_ray.serving.cluster_file import Limits
from infaas_ray.serving.workers import MARKER, end_monitor

_logger = logging.getLogger(__name__)
_PERIOD_S = 1.0
_RENEW_S = 10.0
_DRAIN_S = 60.0  # what else runs on a drained worker (a router of Ray Serve) is told to move within this time
_NO_DEADLINE_S = 3600.0  # to move off a worker that somebody drains without saying until when
_CALL_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the autoscaler says.

    `asked`: the request that stands, in workers by type. `pending`: how many of each type are on their way, those
    included that are tried again; `starting`: how many of them the provider has granted. `failed`: all launches that
    failed, as Ray lists them. `draining`: workers that are being drained, and the seconds they have left.
    """

    asked: Mapping[str, int] = field(default_factory=dict)
    pending: Mapping[str, int] = field(default_factory=dict)
    starting: Mapping[str, int] = field(default_factory=dict)
    failed: Sequence[Any] = ()
    draining: Mapping[str, float] = field(default_factory=dict)


class Failures:
    """Tells each failed launch once, although the autoscaler goes on listing it."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[Any, ...]] | None = None

    def fresh(self, listed: Sequence[Any]) -> dict[str, str]:
        """The types with failures that were not listed before, and the reason of the last; none at the first look."""
        now = Counter((x.ray_node_type_name, x.request_ts_s, x.failed_ts_s, x.details) for x in listed)
        new = Counter() if self._seen is None else now - self._seen
        self._seen = now
        return {name: _in_words(details) for name, _, _, details in sorted(new, key=lambda x: x[2] or 0)}


def _in_words(details: str | None) -> str:
    """Ray often drops the provider's words (2.60: always), but logs them."""
    return " ".join((details or "it could not be started; monitor.log among Ray's logs on the head says why").split())


class Machines:
    """Keeps Ray's autoscaler at what the books of the fleet want, once the policy has ordered anything."""

    def __init__(
        self, address: str, namespace: str, limits: Limits | None, fleet: Fleet, report: Callable[[Event], None]
    ) -> None:
        self.observed = Observed()
        self._address = address
        self._namespace = namespace
        self._limits = limits
        self._fleet = fleet
        self._report = report
        self._failures = Failures()
        self._ordered = False
        self._asked: dict[str, int] = {}
        self._asked_at = -_RENEW_S
        self._releasing: set[str] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="machines")
        self._job: asyncio.Task[None] | None = None

    # -- orders

    async def request(self, action: RequestWorkers) -> None:
        """Ask for what the books want now; `action` is in them already."""
        self._ordered = True
        _logger.info("workers wanted: %s (%s)", dict(action.counts), action.because)
        await self._ask()

    async def release(self, action: ReleaseWorker) -> None:
        """Give a worker back. The request is lowered first, or Ray would start another in its place."""
        self._ordered = True
        self._releasing.add(action.worker)
        await self._ask()
        await self._drain(action.worker)

    async def _ask(self) -> None:
        if not self._ordered:
            return  # what a former controller asked for stands until the policy says otherwise
        wanted, cut = self.wanted()
        for name, reason in cut.items():
            here = sum(x.worker_type == name and not x.released for x in self._fleet.workers.values())
            self._report(LaunchFailed(worker_type=name, reason=reason, coming=max(0, wanted.get(name, 0) - here)))
        now = time.monotonic()
        if wanted != self._asked or now - self._asked_at >= _RENEW_S:
            self._asked, self._asked_at = wanted, now
            try:
                await self._call(request_workers, self._address, wanted)
            except Exception:
                self._asked_at = -_RENEW_S  # again at the next turn
                raise

    def wanted(self) -> tuple[dict[str, int], dict[str, str]]:
        """How many of each type to ask Ray for, and which types get fewer than the books want, with the reason."""
        workers = self._fleet.workers.values()
        here = Counter(x.worker_type for x in workers if not x.released)
        leaving = Counter(x.worker_type for x in workers if x.leaving and not x.released)
        if self._limits is None:
            return {name: count + leaving[name] for name, count in self._fleet.counts().items()}, {}
        return self._limits.cut(self._fleet.counts(), leaving, here)

    async def _drain(self, worker: str) -> None:
        """End what is ours on it, and drain it."""
        end_monitor(worker, self._namespace)
        accepted, refusal = await self._call(drain_worker, self._address, worker)
        if not accepted:
            _logger.warning("worker %s cannot be given back yet: %s", worker, refusal)

    # -- facts

    async def start(self) -> None:
        """Look once, then take a turn every second."""
        await self.look()
        self._job = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                await self.turn()
            except Exception:  # the control store may be away for a while; what was asked for stands meanwhile
                _logger.exception("the autoscaler could not be asked")

    async def turn(self) -> None:
        """Ask where the books changed or the last request is old, and look."""
        await self._ask()
        await self.look()

    async def look(self) -> None:
        """Ask the autoscaler how it stands; failed launches are reported, and refused drains tried again."""
        self.observed = await self._call(observe, self._address)
        for name, reason in self._failures.fresh(self.observed.failed).items():
            self._report(LaunchFailed(worker_type=name, reason=reason, coming=self.observed.starting.get(name, 0)))
        self._releasing &= self._fleet.workers.keys()
        for worker in self._releasing - self.observed.draining.keys():
            await self._drain(worker)

    def drained_by_others(self) -> dict[str, float]:
        """Workers that are being drained although we did not ask for it (a provider takes them away), and within what
        time."""
        return {name: left_s for name, left_s in self.observed.draining.items() if name not in self._releasing}

    def status(self) -> dict[str, dict[str, Any]]:
        """By worker type: how many are wanted, how many Ray has on the way, and why none can be had now."""
        now = time.monotonic()
        machines = self._fleet.machines
        return {
            name: {
                "wanted": count,
                "pending": self.observed.pending.get(name, 0),
                "blocked": machines.blocks.reason(name, now),
            }
            for name, count in self._fleet.counts().items()
        }

    async def close(self) -> None:
        """Ask for nothing any more, so that the machines go when they are idle."""
        if self._job is not None:
            self._job.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._job
        if self._ordered or self.observed.asked:
            await self._call(request_workers, self._address, {})
        self._thread.shutdown(wait=False)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


# -- Ray's calls; each blocks


def request_workers(address: str, counts: Mapping[str, int]) -> None:
    """Ask the autoscaler for so many workers of each type; replaces the last request."""
    bundles = [{"resources": {MARKER + name: 1}} for name, count in sorted(counts.items()) for _ in range(count)]
    request_cluster_resources(address, bundles, timeout=_CALL_S)


def drain_worker(address: str, worker: str) -> tuple[bool, str]:
    """Let a worker end with what runs on it; whether Ray agrees, and why not."""
    deadline_ms = int((time.time() + _DRAIN_S) * 1000)
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, refusal = GcsClient(address=address).drain_node(worker, reason, "given back by infaas", deadline_ms)
    return bool(accepted), str(refusal)


def observe(address: str) -> Observed:
    """How the autoscaler stands."""
    status = get_cluster_status(address, timeout=_CALL_S)
    asked: Counter[str] = Counter()
    for demand in status.resource_demands.cluster_constraint_demand:
        for request in demand.bundles_by_count:
            for name in request.bundle:
                asked[name.removeprefix(MARKER)] += request.count * name.startswith(MARKER)
    pending: Counter[str] = Counter()
    for launch in status.pending_launches:
        pending[launch.ray_node_type_name] += launch.count
    starting = Counter(x.ray_node_type_name for x in status.pending_nodes)
    pending += starting
    now_ms = time.time() * 1000
    draining = {
        node: max(0.0, (deadline_ms - now_ms) / 1000) if deadline_ms else _NO_DEADLINE_S
        for node, deadline_ms in GcsClient(address=address).get_draining_nodes(timeout=_CALL_S).items()
    }
    return Observed(asked=+asked, pending=pending, starting=starting, failed=status.failed_launches, draining=draining)
