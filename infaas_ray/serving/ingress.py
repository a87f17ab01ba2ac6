"""The HTTP door: a plain ASGI application that speaks the Open Inference Protocol in front of one router.

Every answer that is not a success is `{"error": "..."}` with the status of the error's class. Nothing here chooses
or computes; bad input ends here.
"""

import logging
import math
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

import msgspec

from infaas_ray.domain import Query
from infaas_ray.errors import InfaasError, InvalidInput, PayloadTooLarge, Unavailable, UnknownTarget, one_of
from infaas_ray.protocol import (
    JSON_LENGTH_HEADER,
    decode_request,
    encode_response,
    slo_of,
    tensor_metadata,
)
from infaas_ray.serving.metrics import Metrics
from infaas_ray.serving.router import Router

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_EXTENSIONS = ["binary_tensor_data", "model_repository", "parameters", "model_less"]


class _Response(msgspec.Struct, frozen=True):
    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


def _json(content: Any, status: int = 200) -> _Response:
    return _Response(status, _encode(content))


def _failure(error: InfaasError) -> _Response:
    response = _json(error.to_json(), error.status)
    if not isinstance(error, Unavailable):
        return response
    seconds = str(max(1, math.ceil(error.retry_after_s))).encode()
    return _Response(response.status, response.body, (*response.headers, (b"retry-after", seconds)))


class HttpApp:
    """The ASGI application of one router."""

    def __init__(self, router: Router, metrics: Metrics, max_body_bytes: int) -> None:
        self._router = router
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the application."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            response = await self._respond(scope, receive)
            length = (b"content-length", str(len(response.body)).encode())
            headers = [*response.headers, length, *_echoed(scope)]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await send({"type": "http.response.body", "body": response.body})

    @staticmethod
    async def _lifespan(receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _respond(self, scope: Scope, receive: Receive) -> _Response:
        try:
            return await self._route(scope, receive)
        except InfaasError as error:
            return _failure(error)
        except Exception as error:
            _log.exception("a request failed for a reason nobody expected")
            return _json({"error": f"internal error: {type(error).__name__}; the server's log says more"}, 500)

    async def _route(self, scope: Scope, receive: Receive) -> _Response:
        path = scope.get("raw_path") or scope["path"].encode()
        parts = [unquote(x) for x in path.split(b"?")[0].decode("latin-1").strip("/").split("/")]
        method = scope["method"]
        match parts:
            case ["v2", "models", target, *rest] if rest[:1] == ["versions"] and len(rest) >= 2:
                return await self._model(method, target, rest[2:], scope, receive)
            case ["v2", "models", target, *rest] if target != "stats" and rest[:1] != ["versions"]:
                return await self._model(method, target, rest, scope, receive)
            case ["v2"]:
                return _json({"name": "infaas_ray", "version": version("infaas_ray"), "extensions": _EXTENSIONS})
            case ["v2", "health", "live"] | ["livez"] | ["healthz"]:
                return _json({"live": True})
            case ["v2", "health", "ready"] | ["readyz"]:
                return self._ready()
            case ["v2", "repository", "index"]:
                return _json(self._index())
            case ["metrics"]:
                return _Response(200, self._metrics.text(), ((b"content-type", b"text/plain; version=0.0.4"),))
        raise UnknownTarget(f"there is nothing at {scope['path']!r}; the API starts at /v2 (see README)")

    async def _model(self, method: str, target: str, rest: list[str], scope: Scope, receive: Receive) -> _Response:
        match (method, rest):
            case ("POST", ["infer"]):
                return await self._infer(target, scope, receive)
            case ("POST", ["explain"]):
                return await self._explain(target, scope, receive)
            case ("GET", []):
                return self._metadata(target)
            case ("GET", ["ready"]):
                ready = target in self._router.targets
                return _json({"ready": ready}, 200 if ready else 404)
            case (_, ["infer"] | ["explain"]):
                return _json({"error": f"use POST for {scope['path']}"}, 405)
        raise UnknownTarget(f"there is nothing at {scope['path']!r}; use .../infer, .../explain or .../ready")

    async def _infer(self, target: str, scope: Scope, receive: Receive) -> _Response:
        headers = _headers(scope)
        request, inputs = decode_request(await self._body(headers, receive), headers.get(JSON_LENGTH_HEADER))
        slo = slo_of(request.parameters, headers)
        if not inputs:
            raise InvalidInput("the request has no inputs")
        rows = len(next(iter(inputs.values())))
        query = Query(id=request.id or uuid.uuid4().hex, target=target, slo=slo, inputs=inputs, rows=rows)
        self._check_outputs(target, [x.name for x in request.outputs])
        answer = await self._router.query(query)
        body, json_bytes = encode_response(target, request, answer)
        tell: list[tuple[bytes, bytes]] = [
            (b"x-variant", answer.variant.encode()),
            (b"x-slo-met", b"true" if answer.slo_met else b"false"),
        ]
        if json_bytes is None:
            return _Response(200, body, ((b"content-type", b"application/json"), *tell))
        length = (JSON_LENGTH_HEADER.encode(), str(json_bytes).encode())
        return _Response(200, body, ((b"content-type", b"application/octet-stream"), length, *tell))

    def _check_outputs(self, target: str, wanted: list[str]) -> None:
        known = [x.name for x in self._router.architecture_of(target).outputs]
        for name in wanted:
            if name not in known:
                raise InvalidInput(one_of("output", name, known))

    async def _explain(self, target: str, scope: Scope, receive: Receive) -> _Response:
        headers = _headers(scope)
        body = await self._body(headers, receive)
        try:
            content = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise InvalidInput(
                f'the body must be JSON such as {{"parameters": {{"latency_ms": 10}}}}: {error}'
            ) from None
        parameters = content.get("parameters", {})
        rows = content.get("rows", 1)
        if not isinstance(parameters, dict) or not isinstance(rows, int) or rows < 1:
            raise InvalidInput("'parameters' must be an object and 'rows' a whole number from 1")
        verdicts = self._router.explain(target, rows, slo_of(parameters, headers))
        return _json({"target": target, "candidates": verdicts})

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The whole body; what is beyond the limit is read and dropped, so that the client sees the answer."""
        announced = headers.get("content-length", "")
        size = 0
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidInput("the client went away before the body was complete")
            part = message.get("body", b"")
            size += len(part)
            if size <= self._max_body_bytes:
                parts.append(part)
            else:
                parts.clear()
            if not message.get("more_body", False):
                break
        if size > self._max_body_bytes:
            raise PayloadTooLarge(
                f"the body has {size} bytes, more than the {self._max_body_bytes} allowed; send fewer rows per query"
            )
        if announced.isdigit() and int(announced) != size:
            raise InvalidInput(f"the body has {size} bytes, but content-length says {announced}")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _metadata(self, target: str) -> _Response:
        architecture = self._router.architecture_of(target)
        content = {
            "name": target,
            "versions": ["1"],
            "platform": "infaas",
            "inputs": tensor_metadata(architecture.inputs),
            "outputs": tensor_metadata(architecture.outputs),
        }
        return _json(content)

    def _ready(self) -> _Response:
        ready = bool(self._router.targets)
        return _json({"ready": ready}, 200 if ready else 503)

    def _index(self) -> list[dict[str, str]]:
        ready = {x.variant for x in self._router.table.replicas}
        return [
            {"name": name, "version": "1", "state": "READY" if ready.intersection(variants) else "UNAVAILABLE"}
            for name, variants in sorted(self._router.targets.items())
        ]


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _echoed(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in scope["headers"] if name.lower() == b"x-request-id"]
