"""The Ray actor around one replica: loads the artifact, opens the channel, and can be watched, drained and asked.

Until it is told what to load it is a shell, which may wait for that. Ray places it and notices its death; queries come
over the channel, or by `infer` where no direct connection is possible.
"""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec
import ray

from infaas_ray.domain import Architecture, Array, HardwareKind, Profile, Variant
from infaas_ray.errors import InfaasError
from infaas_ray.serving.addresses import ACTOR, socket_folder
from infaas_ray.serving.interpreter import settle
from infaas_ray.serving.listener import Incoming, Server
from infaas_ray.serving.replica import Replica, Result
from infaas_ray.storage.repository import repository_at
from infaas_ray.variants.runtime import LoadedModel, preload, runtime_named

_LOWEST_PRIORITY = 19


class Phase(StrEnum):
    """What a variant actor is at this moment."""

    SHELL = "shell"
    LOADING = "loading"
    READY = "ready"
    ENDING = "ending"


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a variant actor needs to become a replica."""

    replica: str
    variant: Variant
    architecture: Architecture
    profile: Profile
    repository: str
    secret: bytes
    local: bool


def result_fields(result: Result) -> dict[str, Any]:
    """The numbers of a result, as they travel beside its tensors."""
    return {
        "queue_s": result.queue_s,
        "compute_s": result.compute_s,
        "batch_rows": result.batch_rows,
        "queued_rows": result.queued_rows,
    }


class VariantActor:
    """A shell, then one replica of one variant."""

    def __init__(self) -> None:
        self._spec: ReplicaSpec | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._replica: Replica | None = None
        self._server: Server | None = None
        self._address = ""
        self._load_s = 0.0
        self._phase = Phase.SHELL

    async def prepare(self, runtimes: Sequence[str]) -> None:
        """Import the frameworks of these runtimes, on a thread to which all others on the machine go before."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def work() -> None:
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)  # of this thread alone
                for name in runtimes:
                    preload(name)
            finally:
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=work, name="prepare", daemon=True).start()
        await done.wait()

    async def start(self, spec: ReplicaSpec) -> dict[str, Any]:
        """Become that replica: load the model and listen; return `describe()`. Raises the load's error."""
        assert self._spec is None, "it is a replica already"
        self._spec, self._phase = spec, Phase.LOADING
        if spec.variant.hardware is HardwareKind.CPU:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray shows every GPU to an actor that has asked for none
        started = time.monotonic()
        model = await asyncio.get_running_loop().run_in_executor(self._executor, _load, spec)
        self._load_s = time.monotonic() - started
        self._replica = Replica(model, spec.variant, spec.architecture, spec.profile, self._executor)
        self._server = Server(self._on_call, spec.secret)
        host = "127.0.0.1" if spec.local else ray.util.get_node_ip_address()
        remote = await self._server.listen(f"{host}:0")
        local = await self._server.listen(f"unix:{socket_folder() / f'{os.getpid()}.sock'}")
        self._address = f"{remote},{local},{ACTOR}{ray.get_runtime_context().get_actor_name()}"
        self._phase = Phase.READY
        settle()
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """Who this is and where it listens; `replica` and `variant` are empty in a shell, `address` until it is ready.

        `address` ends with the name of this actor, for callers whom the channel cannot reach.
        """
        context = ray.get_runtime_context()
        return {
            "phase": str(self._phase),
            "replica": self._spec.replica if self._spec else "",
            "variant": self._spec.variant.name if self._spec else "",
            "worker": context.get_node_id(),
            "address": self._address,
            "pid": os.getpid(),
            "load_s": self._load_s,
            "counts": dict(self._replica.counts) if self._replica else {},
            "queued_rows": self._replica.queued_rows if self._replica else 0,
        }

    async def watch(self) -> None:
        """Never returns while the actor lives: whoever waits for it learns of its death at once."""
        await asyncio.Event().wait()

    async def drain(self) -> None:
        """Refuse new queries; return when the last one has been answered."""
        self._phase = Phase.ENDING
        if self._replica is not None:
            await self._replica.drain()

    async def stop(self) -> None:
        """Unload and stop listening."""
        self._phase = Phase.ENDING
        if self._replica is not None:
            await self._replica.close()
        if self._server is not None:
            await self._server.close()
            for address in self._address.split(","):
                if address.startswith("unix:"):
                    os.unlink(address.removeprefix("unix:"))

    async def infer(
        self, inputs: dict[str, Array], rows: int, remaining_s: float | None, offline: bool
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Answer one query over Ray, for callers whom the channel cannot reach."""
        assert self._replica is not None, "start() first"
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def done(result: Result | InfaasError) -> None:
            if future.done():
                return  # whoever asked has gone
            if isinstance(result, Result):
                future.set_result(result)
            else:
                future.set_exception(result)

        self._replica.submit(inputs, rows, remaining_s, done, offline)
        result = await future
        return result_fields(result), result.outputs

    def _on_call(self, call: Incoming) -> None:
        replica = self._replica
        assert replica is not None

        def done(result: Result | InfaasError) -> None:
            if isinstance(result, Result):
                call.reply(result_fields(result), result.outputs)
            else:
                call.fail(result)

        fields = call.fields
        number = replica.submit(call.arrays, fields["rows"], fields["remaining_s"], done, fields["offline"])
        call.on_taken_back(partial(replica.cancel, number))


def _load(spec: ReplicaSpec) -> LoadedModel:
    path = repository_at(spec.repository).fetch(spec.variant.artifact)
    return runtime_named(spec.variant.runtime).load(path, spec.variant, spec.architecture)
