"""The variant actors of a system: makes them, watches them, drains and ends them, and finds those that live.

Each is a named, detached Ray actor pinned to its worker, without restarts: Ray tells of a death within milliseconds,
and the autoscaler decides about a successor. What happens becomes an event. A replica of a CPU variant is made of a
shell where one waits, and its processors are reserved beside it; others hold their resources themselves, because the
devices that Ray gives to an actor are settled when it is made.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Mapping
from math import floor
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from infaas_ray.config import Settings
from infaas_ray.domain import Architecture, HardwareKind
from infaas_ray.errors import ArtifactCorrupt, InfaasError, InvalidModel, MissingExtra
from infaas_ray.policy.messages import (
    Event,
    ReplicaDied,
    ReplicaFailed,
    ReplicaReady,
    ReplicaStopped,
    StartReplica,
)
from infaas_ray.policy.rhythm import DRAIN_LIMIT_S
from infaas_ray.policy.routing import Offer
from infaas_ray.serving.shares import Shares
from infaas_ray.serving.shells import Shells
from infaas_ray.serving.variant_actor import Phase, ReplicaSpec, VariantActor
from infaas_ray.serving.workers import actor_options

_REPLICA = "replica:"
_SHELL = "shell:"
_PERMANENT = (ArtifactCorrupt, InvalidModel, MissingExtra)
_START_LIMIT_S = 120.0
_ANSWER_LIMIT_S = 10.0


def resources_of(hardware: HardwareKind, amount: float) -> dict[str, Any]:
    """The amount of the main resource of that hardware, as Ray's options of an actor.

    Ray counts in ten thousandths and rounds to the nearest, by which seven sevenths of a GPU would be more than one.
    """
    match hardware:
        case HardwareKind.GPU:
            return {"num_cpus": 0, "num_gpus": floor(amount * 10_000 + 1e-6) / 10_000}
        case HardwareKind.NEURON:
            return {"num_cpus": 0, "resources": {"neuron_cores": amount}}
        case HardwareKind.CPU:
            return {"num_cpus": amount}


class ReplicaActors:
    """Handles of the living variant actors by replica id."""

    def __init__(self, settings: Settings, secret: bytes, report: Callable[[Event], None]) -> None:
        self._settings = settings
        self._secret = secret
        self._report = report
        self._actors: dict[str, Any] = {}
        self._pids: dict[str, int] = {}
        self._stopping: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._shares = Shares(settings.cluster.namespace)
        self._shells = Shells(settings.shells.per_worker, _RayShells(settings))

    def names(self) -> list[str]:
        """Ids of the replicas whose actors live."""
        return list(self._actors)

    def pid(self, replica: str) -> int | None:
        """Process id of a replica."""
        return self._pids.get(replica)

    def shells(self, worker: str) -> int:
        """How many shells wait on a worker."""
        return self._shells.count(worker)

    def tend_shells(self, calm: Mapping[str, bool], now: float) -> None:
        """Make the shells that are missing. `calm`: the workers that stay, and whether their processors have time."""
        self._shells.tend(calm, now)

    async def adopt(self) -> None:
        """Take over what a former controller left: report each replica that answers as ready, keep the shells.

        What was still loading ends; the autoscaler asks again if it is needed. What was told to end is seen to its end.
        One that does not say what it is within some seconds answers no query either, and is ended.
        """
        namespace = self._settings.cluster.namespace
        names = [x["name"] for x in ray.util.list_named_actors(all_namespaces=True) if x["namespace"] == namespace]
        await asyncio.gather(*(self._adopt(x) for x in names if x.startswith((_REPLICA, _SHELL))))
        self._shares.adopt(self._actors.keys())

    async def _adopt(self, name: str) -> None:
        actor = None
        try:
            actor = ray.get_actor(name, self._settings.cluster.namespace)
            state = await asyncio.wait_for(actor.describe.remote(), _ANSWER_LIMIT_S)
        except (RayError, TimeoutError, ValueError):
            if actor is not None:
                ray.kill(actor)
            return
        match state["phase"]:
            case Phase.SHELL:
                self._shells.adopt(state["worker"], actor)
            case Phase.READY:
                self._ready(actor, state)
            case Phase.ENDING:
                self._spawn(_see_off(actor))
            case _:
                ray.kill(actor)

    async def start(self, order: StartReplica, offer: Offer, architecture: Architecture) -> None:
        """Make the actor, or take a shell, and load the model; reports ReplicaReady or ReplicaFailed."""
        spec = ReplicaSpec(
            replica=order.replica,
            variant=offer.variant,
            architecture=architecture,
            profile=offer.profile,
            repository=self._settings.repository,
            secret=self._secret,
            local=self._settings.local,
        )
        try:
            state = await asyncio.wait_for(self._start(order, spec), _START_LIMIT_S)
        except (RayError, InfaasError, TimeoutError, ValueError) as error:
            self._fail(order.replica, offer.name, error)
        else:
            self._ready(self._actors[order.replica], state)

    async def _start(self, order: StartReplica, spec: ReplicaSpec) -> dict[str, Any]:
        hardware = spec.variant.hardware
        shell = self._shells.take(order.worker) if hardware is HardwareKind.CPU else None
        if shell is None:
            options = actor_options(_REPLICA + order.replica, self._settings.cluster.namespace, order.worker)
            options |= resources_of(hardware, order.amount) | {"max_concurrency": 10_000}
            self._actors[order.replica] = ray.remote(VariantActor).options(**options).remote()
            state = await self._actors[order.replica].start.remote(spec)
        else:
            self._actors[order.replica] = shell
            share = self._shares.take(order.replica, order.worker, order.amount)
            state, _ = await asyncio.gather(shell.start.remote(spec), share)
        return dict(state)

    def _fail(self, replica: str, variant: str, error: Exception) -> None:
        actor = self._actors.pop(replica, None)
        if actor is not None:
            ray.kill(actor)
        self._shares.give_back(replica)
        self._stopping.discard(replica)
        cause = getattr(error, "cause", error)
        reason = f"did not start within {_START_LIMIT_S:.0f} s" if isinstance(error, TimeoutError) else str(cause)
        permanent = isinstance(cause, _PERMANENT)
        self._report(ReplicaFailed(replica=replica, variant=variant, reason=reason, permanent=permanent))

    def _ready(self, actor: Any, state: Mapping[str, Any]) -> None:
        replica = state["replica"]
        self._actors[replica] = actor
        self._pids[replica] = state["pid"]
        self._spawn(self._watch(replica, actor))
        facts = {name: state[name] for name in ("replica", "variant", "worker", "address")}
        self._report(ReplicaReady(**facts))

    async def _watch(self, replica: str, actor: Any) -> None:
        """Wait for the actor's end and report it."""
        await _gone(actor)
        self._actors.pop(replica, None)
        self._pids.pop(replica, None)
        self._shares.give_back(replica)
        asked = replica in self._stopping
        self._stopping.discard(replica)
        self._report(ReplicaStopped(replica=replica) if asked else ReplicaDied(replica=replica))

    async def drain(self, replica: str) -> bool:
        """Let a replica finish what it holds; False where it died meanwhile (its watch reports that)."""
        actor = self._actors.get(replica)
        if actor is None:
            return False
        try:
            await asyncio.wait_for(actor.drain.remote(), DRAIN_LIMIT_S)
        except TimeoutError:
            return True  # it hangs: it is taken out of the way, and its callers hear of it as of a loss
        except RayActorError:
            return False
        return True

    async def stop(self, replica: str) -> None:
        """Unload and end a replica; its watch reports the end."""
        actor = self._actors.get(replica)
        if actor is None:
            self._report(ReplicaStopped(replica=replica))
            return
        self._stopping.add(replica)
        await _stop(actor)

    async def retire(self, replica: str) -> None:
        """Drain, then stop."""
        if await self.drain(replica):
            await self.stop(replica)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def close(self) -> None:
        """Retire every replica and end the shells."""
        self._shells.end()
        await asyncio.gather(*(self.retire(x) for x in self.names()))
        self._shares.adopt(())


class _RayShells:
    """Makes shells as Ray actors that hold no resource."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def make(self, worker: str) -> Any:
        name = f"{_SHELL}{worker[:12]}:{secrets.token_hex(4)}"
        options = actor_options(name, self._settings.cluster.namespace, worker)
        return ray.remote(VariantActor).options(**options, num_cpus=0, max_concurrency=10_000).remote()

    async def prepare(self, shell: Any) -> None:
        await shell.prepare.remote(self._settings.shells.runtimes)

    async def gone(self, shell: Any) -> None:
        await _gone(shell)

    def end(self, shell: Any) -> None:
        ray.kill(shell)


async def _gone(actor: Any) -> None:
    with contextlib.suppress(RayError):
        await actor.watch.remote()


async def _stop(actor: Any) -> None:
    with contextlib.suppress(RayError, TimeoutError):
        await asyncio.wait_for(actor.stop.remote(), 5.0)
    ray.kill(actor)


async def _see_off(actor: Any) -> None:
    """Let a replica of a former controller that drains finish."""
    with contextlib.suppress(RayError, TimeoutError):
        await asyncio.wait_for(actor.drain.remote(), DRAIN_LIMIT_S)
    await _stop(actor)
