"""The Ray actor around one replica: loads the artifact, opens the channel, and can be watched, drained and asked.

Ray pins it to resources and notices its death; queries come over the channel, or by `infer` where no direct
connection is possible.
"""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import ray

from infaas_ray.domain import Architecture, Array, Profile, Variant
from infaas_ray.errors import InfaasError
from infaas_ray.serving.channel import Incoming, Server, socket_folder
from infaas_ray.serving.replica import Replica, Result
from infaas_ray.storage.repository import repository_at
from infaas_ray.variants.runtime import runtime_named


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a variant actor needs to become a replica."""

    replica: str
    variant: Variant
    architecture: Architecture
    profile: Profile
    repository: str
    secret: bytes


def result_fields(result: Result) -> dict[str, Any]:
    """The numbers of a result, as they travel beside its tensors."""
    return {
        "queue_s": result.queue_s,
        "compute_s": result.compute_s,
        "batch_rows": result.batch_rows,
        "queued_rows": result.queued_rows,
    }


class VariantActor:
    """One replica of one variant."""

    def __init__(self, spec: ReplicaSpec) -> None:
        self._spec = spec
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._replica: Replica | None = None
        self._server: Server | None = None
        self._address = ""
        self._load_s = 0.0

    async def start(self) -> dict[str, Any]:
        """Load the model and listen; return `describe()`. Raises the load's error."""
        if self._replica is None:
            started = time.monotonic()
            spec = self._spec
            model = await asyncio.get_running_loop().run_in_executor(self._executor, self._load)
            self._load_s = time.monotonic() - started
            self._replica = Replica(model, spec.variant, spec.architecture, spec.profile, self._executor)
            self._server = Server(self._on_call, spec.secret)
            host = ray.util.get_node_ip_address()
            remote = await self._server.listen(f"{host}:0")
            local = await self._server.listen(f"unix:{socket_folder() / f'{os.getpid()}.sock'}")
            self._address = f"{remote},{local}"
        return self.describe()

    def _load(self) -> Any:
        spec = self._spec
        path = repository_at(spec.repository).fetch(spec.variant.artifact)
        return runtime_named(spec.variant.runtime).load(path, spec.variant, spec.architecture)

    def describe(self) -> dict[str, Any]:
        """Who this is and where it listens; `address` is empty until it has started."""
        context = ray.get_runtime_context()
        return {
            "replica": self._spec.replica,
            "variant": self._spec.variant.name,
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
        if self._replica is not None:
            await self._replica.drain()

    async def stop(self) -> None:
        """Unload and stop listening."""
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
            if isinstance(result, Result):
                future.set_result(result)
            else:
                future.set_exception(result)

        self._replica.submit(inputs, rows, remaining_s, done, offline)
        result = await future
        return result_fields(result), result.outputs

    def _on_call(self, call: Incoming) -> None:
        assert self._replica is not None

        def done(result: Result | InfaasError) -> None:
            if isinstance(result, Result):
                call.reply(result_fields(result), result.outputs)
            else:
                call.fail(result)

        fields = call.fields
        self._replica.submit(call.arrays, fields["rows"], fields["remaining_s"], done, fields["offline"])
