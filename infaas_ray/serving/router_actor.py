"""A router as a Ray Serve ingress replica: the HTTP door, the door for drivers, and the lines to the controller."""

import asyncio
import contextlib
import dataclasses
import os
import time
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError

from infaas_ray.config import Settings
from infaas_ray.domain import SLO, Answer, OnMiss, Query, application_name
from infaas_ray.errors import InfaasError, ReplicaLost, Unavailable
from infaas_ray.policy.rhythm import REPORT_S, SAME_LOAD_S
from infaas_ray.policy.routing import ReadyReplica
from infaas_ray.serving.addresses import actor_in, socket_folder
from infaas_ray.serving.channel import Reply
from infaas_ray.serving.http_door import HttpDoor
from infaas_ray.serving.ingress import HttpApp
from infaas_ray.serving.interpreter import settle
from infaas_ray.serving.journey import Asked
from infaas_ray.serving.listener import Incoming, Server
from infaas_ray.serving.metrics import Metrics
from infaas_ray.serving.router import Router
from infaas_ray.serving.workers import CONTROLLER

_ANSWER_FIELDS = [
    "variant",
    "replica",
    "accuracy",
    "usd_per_1k",
    "queue_s",
    "compute_s",
    "latency_s",
    "batch_rows",
    "slo_met",
]


class RouterActor:
    """One router with its two doors."""

    async def __init__(self, settings: Settings, secret: bytes) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        self._name = serve.get_replica_context().replica_id.unique_id
        self._asked: dict[str, float] = {}
        self._router = Router(self._name, secret, self._request_load, self._call_by_ray)
        self._app = HttpApp(self._router, Metrics(self._router), settings.http.max_body_bytes)
        self._server = Server(self._on_call, secret)
        host = "127.0.0.1" if settings.local else ray.util.get_node_ip_address()
        remote = await self._server.listen(f"{host}:0")
        local = await self._server.listen(f"unix:{socket_folder() / f'{os.getpid()}.sock'}")
        self._address = f"{remote},{local}"
        self._direct_url = await self._open_door()
        loop = asyncio.get_running_loop()
        await self._take_table(-1)
        self._jobs = {loop.create_task(self._listen()), loop.create_task(self._report())}

    async def _open_door(self) -> str:
        """Open the router's own HTTP port, where the settings want it; returns its URL."""
        http = self._settings.http
        if http.direct_port is None:
            return ""
        self._door = HttpDoor(self._app.begin, http.max_body_bytes)
        port = await self._door.listen(http.host, http.direct_port)
        return f"http://{http.host}:{port}"

    def __serve_build_asgi_app__(self) -> HttpApp:
        """The application that Ray Serve puts behind its proxy."""
        return self._app

    # -- lines to the controller

    def _controller(self) -> Any:
        return ray.get_actor(CONTROLLER, self._settings.cluster.namespace)

    async def _take_table(self, version: int) -> int:
        table = await self._controller().listen.remote(version)
        if table is None:
            return version
        fresh = table.catalog.revision != self._router.table.catalog.revision
        self._router.update(table)
        if fresh:
            settle()
        return int(table.version)

    async def _listen(self) -> None:
        version = self._router.table.version
        while True:
            try:
                version = await self._take_table(version)
            except (RayError, ValueError):  # a controller that restarts is found again by its name
                await asyncio.sleep(REPORT_S)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            about = {
                "counts": dict(self._router.status()),
                "conditions": self._router.conditions(),
                "address": self._address,
                "direct_url": self._direct_url,
            }
            with contextlib.suppress(RayError, ValueError):
                await self._controller().report_traffic.remote(self._router.traffic(), about)

    def _request_load(self, variant: str, within_s: float | None) -> None:
        now = time.monotonic()
        if now - self._asked.get(variant, 0.0) >= SAME_LOAD_S:
            self._asked[variant] = now
            with contextlib.suppress(ValueError):
                self._controller().request_load.remote(variant, within_s)

    async def _call_by_ray(self, replica: ReadyReplica, query: Query, remaining_s: float | None) -> Reply:
        """Ask a replica that the channel cannot reach through its actor."""
        try:
            actor = ray.get_actor(actor_in(replica.address), self._settings.cluster.namespace)
            fields, arrays = await actor.infer.remote(dict(query.inputs), query.rows, remaining_s, query.slo.offline)
        except (RayActorError, ValueError) as error:
            raise ReplicaLost(f"replica {replica.id} is gone: {error}") from None
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, InfaasError) else error from None
        return Reply(fields, arrays)

    # -- the drivers' door

    def _on_call(self, call: Incoming) -> None:
        try:
            self._answer(call)
        except Exception as error:
            call.fail(error)

    def _answer(self, call: Incoming) -> None:
        fields = call.fields
        target, rows, slo = fields["target"], fields["rows"], slo_from(fields["slo"])
        if call.verb == "explain":
            verdicts = self._router.explain(target, rows, slo)
            call.reply({"candidates": [dataclasses.asdict(x) for x in verdicts]}, {})
            return
        bundle = fields["bundle"]
        if bundle > 1 and not self._router.takes(target, rows, slo):
            call.reply({"split": True}, {})  # too much at once, perhaps; its parts are asked on their own
            return
        query = Query(
            id=fields["id"],
            target=target,
            slo=slo,
            inputs=call.arrays,
            rows=rows,
            bundle=bundle,
            application=application_name(fields.get("application", "")),
        )
        asked = self._router.submit(query, partial(_tell, call))
        call.on_taken_back(partial(self._take_back, asked, call))

    def _take_back(self, asked: Asked, call: Incoming) -> None:
        self._router.cancel(asked)
        call.fail(Unavailable("whoever asked has gone", 0.0))


def _tell(call: Incoming, outcome: Answer | Exception) -> None:
    if isinstance(outcome, Answer):
        call.reply({name: getattr(outcome, name) for name in _ANSWER_FIELDS}, outcome.outputs)
    else:
        call.fail(outcome)


def slo_from(fields: dict[str, Any]) -> SLO:
    """An SLO from the fields in which it travels."""
    return SLO(**{**fields, "on_miss": OnMiss(fields["on_miss"])})
