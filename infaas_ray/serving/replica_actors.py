"""The variant actors of a system: makes them, watches them, drains and ends them, and finds those that live.

Each is a named, detached Ray actor pinned to its worker and to the resources of its variant, without restarts: Ray
tells of a death within milliseconds, and the autoscaler decides about a successor. What happens becomes an event.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from infaas_ray.config import Settings
from infaas_ray.domain import Architecture, HardwareKind, Variant
from infaas_ray.errors import ArtifactCorrupt, InfaasError, InvalidModel, MissingExtra
from infaas_ray.policy.messages import Event, ReplicaDied, ReplicaFailed, ReplicaReady, ReplicaStopped
from infaas_ray.policy.rhythm import DRAIN_LIMIT_S
from infaas_ray.policy.routing import Offer
from infaas_ray.serving.variant_actor import ReplicaSpec, VariantActor
from infaas_ray.serving.workers import actor_options

PREFIX = "replica:"
_PERMANENT = (ArtifactCorrupt, InvalidModel, MissingExtra)
_START_LIMIT_S = 120.0


def resources_of(variant: Variant, oversubscription: float) -> dict[str, Any]:
    """Ray resources that pin a replica: a share of processors, one accelerator, or its Neuron cores."""
    match variant.hardware:
        case HardwareKind.GPU:
            return {"num_cpus": 0, "num_gpus": 1}
        case HardwareKind.NEURON:
            return {"num_cpus": 0, "resources": {"neuron_cores": variant.threads}}
        case HardwareKind.CPU:
            return {"num_cpus": variant.threads / oversubscription}


class ReplicaActors:
    """Handles of the living variant actors by replica id."""

    def __init__(self, settings: Settings, secret: bytes, report: Callable[[Event], None]) -> None:
        self._settings = settings
        self._secret = secret
        self._report = report
        self._actors: dict[str, Any] = {}
        self._pids: dict[str, int] = {}
        self._stopping: set[str] = set()
        self._watches: set[asyncio.Task[None]] = set()

    def names(self) -> list[str]:
        """Ids of the replicas whose actors live."""
        return list(self._actors)

    def pid(self, replica: str) -> int | None:
        """Process id of a replica."""
        return self._pids.get(replica)

    async def adopt(self) -> None:
        """Find the variant actors that a former controller left, and report each that answers as ready."""
        namespace = self._settings.cluster.namespace
        for found in ray.util.list_named_actors(all_namespaces=True):
            if found["namespace"] == namespace and found["name"].startswith(PREFIX):
                actor = ray.get_actor(found["name"], namespace)
                try:
                    state = await asyncio.wait_for(actor.describe.remote(), 5.0)
                except (RayError, TimeoutError):
                    continue
                if state["address"]:
                    self._ready(actor, state)
                else:
                    ray.kill(actor)  # it was still loading; the autoscaler will ask again if it is needed

    async def start(self, replica: str, worker: str, offer: Offer, architecture: Architecture) -> None:
        """Make the actor and load the model; reports ReplicaReady or ReplicaFailed."""
        settings = self._settings
        spec = ReplicaSpec(
            replica=replica,
            variant=offer.variant,
            architecture=architecture,
            profile=offer.profile,
            repository=settings.repository,
            secret=self._secret,
            local=settings.local,
        )
        options = actor_options(PREFIX + replica, settings.cluster.namespace, worker)
        options |= resources_of(offer.variant, settings.scaling.oversubscription) | {"max_concurrency": 10_000}
        try:
            actor = ray.remote(VariantActor).options(**options).remote(spec)
            self._actors[replica] = actor
            state = await asyncio.wait_for(actor.start.remote(), _START_LIMIT_S)
        except (RayError, InfaasError, TimeoutError, ValueError) as error:
            self._fail(replica, offer.name, error)
        else:
            self._ready(actor, state)

    def _fail(self, replica: str, variant: str, error: Exception) -> None:
        actor = self._actors.pop(replica, None)
        if actor is not None:
            ray.kill(actor)
        cause = getattr(error, "cause", error)
        reason = f"did not start within {_START_LIMIT_S:.0f} s" if isinstance(error, TimeoutError) else str(cause)
        permanent = isinstance(cause, _PERMANENT)
        self._report(ReplicaFailed(replica=replica, variant=variant, reason=reason, permanent=permanent))

    def _ready(self, actor: Any, state: dict[str, Any]) -> None:
        replica = state["replica"]
        self._actors[replica] = actor
        self._pids[replica] = state["pid"]
        task = asyncio.get_running_loop().create_task(self._watch(replica, actor))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        facts = {name: state[name] for name in ("replica", "variant", "worker", "address")}
        self._report(ReplicaReady(**facts))

    async def _watch(self, replica: str, actor: Any) -> None:
        """Wait for the actor's end and report it."""
        with contextlib.suppress(RayError):
            await actor.watch.remote()
        self._actors.pop(replica, None)
        self._pids.pop(replica, None)
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
        with contextlib.suppress(RayError, TimeoutError):
            await asyncio.wait_for(actor.stop.remote(), 5.0)
        ray.kill(actor)

    async def retire(self, replica: str) -> None:
        """Drain, then stop."""
        if await self.drain(replica):
            await self.stop(replica)
