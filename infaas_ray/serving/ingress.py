"""The HTTP door: a plain ASGI application that speaks the Open Inference Protocol in front of one router.

Every answer that is not a success is `{"error": "..."}` with the status of the error's class. Nothing here chooses
or computes; bad input ends here.
"""

import itertools
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
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
from infaas_ray.serving.http_door import Request, Response
from infaas_ray.serving.metrics import Metrics
from infaas_ray.serving.router import Router

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_EXTENSIONS = ["binary_tensor_data", "model_repository", "parameters", "model_less"]


def _json(content: Any, status: int = 200) -> Response:
    return Response(status, _encode(content))


def _failure(error: InfaasError) -> Response:
    response = _json(error.to_json(), error.status)
    if not isinstance(error, Unavailable):
        return response
    seconds = str(max(1, math.ceil(error.retry_after_s))).encode()
    return response._replace(headers=(*response.headers, (b"retry-after", seconds)))


@lru_cache(maxsize=4096)
def _parts(path: bytes) -> tuple[str, ...]:
    return tuple(unquote(x) for x in path.partition(b"?")[0].decode("latin-1").strip("/").split("/"))


class HttpApp:
    """The application of one router: an ASGI callable for Ray Serve, `respond` for the router's own port."""

    def __init__(self, router: Router, metrics: Metrics, max_body_bytes: int) -> None:
        self._router = router
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._prefix = uuid.uuid4().hex[:12]
        self._ids = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request over ASGI, or the life of the application."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            body, too_large = await _read_body(receive, self._max_body_bytes)
            path = scope.get("raw_path") or scope["path"].encode()
            response = await self.respond(Request(scope["method"], path, headers, body, too_large))
            tell = [*response.headers, (b"content-length", b"%d" % len(response.body))]
            if "x-request-id" in headers:
                tell.append((b"x-request-id", headers["x-request-id"].encode("latin-1")))
            await send({"type": "http.response.start", "status": response.status, "headers": tell})
            await send({"type": "http.response.body", "body": response.body})

    @staticmethod
    async def _lifespan(receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def respond(self, request: Request) -> Response:
        """Answer one request; never raises."""
        try:
            self._check_body(request)
            return await self._route(request)
        except InfaasError as error:
            return _failure(error)
        except Exception as error:
            _log.exception("a request failed for a reason nobody expected")
            return _json({"error": f"internal error: {type(error).__name__}; the server's log says more"}, 500)

    def _check_body(self, request: Request) -> None:
        if request.too_large:
            raise PayloadTooLarge(
                f"the body has {request.too_large} bytes, more than the {self._max_body_bytes} allowed; "
                "send fewer rows per query"
            )
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) != len(request.body):
            raise InvalidInput(f"the body has {len(request.body)} bytes, but content-length says {announced}")

    async def _route(self, request: Request) -> Response:
        match _parts(request.path):
            case ("v2", "models", target, "versions", _, *rest):
                return await self._model(request, target, rest)
            case ("v2", "models", target, *rest):
                return await self._model(request, target, rest)
            case ("v2",):
                return _json({"name": "infaas_ray", "version": version("infaas_ray"), "extensions": _EXTENSIONS})
            case ("v2", "health", "live") | ("livez",) | ("healthz",):
                return _json({"live": True})
            case ("v2", "health", "ready") | ("readyz",):
                return self._ready()
            case ("v2", "repository", "index"):
                return _json(self._index())
            case ("metrics",):
                return Response(200, self._metrics.text(), ((b"content-type", b"text/plain; version=0.0.4"),))
        raise UnknownTarget(f"there is nothing at {_shown(request)}; the API starts at /v2 (see README)")

    async def _model(self, request: Request, target: str, rest: list[str]) -> Response:
        match (request.method, rest):
            case ("POST", ["infer"]):
                return await self._infer(target, request)
            case ("POST", ["explain"]):
                return self._explain(target, request)
            case ("GET", []):
                return self._metadata(target)
            case ("GET", ["ready"]):
                ready = target in self._router.targets
                return _json({"ready": ready}, 200 if ready else 404)
            case (_, ["infer"] | ["explain"]):
                return _json({"error": f"use POST for {_shown(request)}"}, 405)
        raise UnknownTarget(f"there is nothing at {_shown(request)}; use .../infer, .../explain or .../ready")

    async def _infer(self, target: str, request: Request) -> Response:
        asked, inputs = decode_request(request.body, request.headers.get(JSON_LENGTH_HEADER))
        slo = slo_of(asked.parameters, request.headers)
        if not inputs:
            raise InvalidInput("the request has no inputs")
        rows = len(next(iter(inputs.values())))
        query = Query(
            id=asked.id or f"{self._prefix}{next(self._ids):x}", target=target, slo=slo, inputs=inputs, rows=rows
        )
        self._check_outputs(target, [x.name for x in asked.outputs])
        answer = await self._router.query(query)
        body, json_bytes = encode_response(target, asked, answer)
        tell = ((b"x-variant", answer.variant.encode()), (b"x-slo-met", b"true" if answer.slo_met else b"false"))
        if json_bytes is None:
            return Response(200, body, ((b"content-type", b"application/json"), *tell))
        length = (JSON_LENGTH_HEADER.encode(), b"%d" % json_bytes)
        return Response(200, body, ((b"content-type", b"application/octet-stream"), length, *tell))

    def _check_outputs(self, target: str, wanted: list[str]) -> None:
        known = [x.name for x in self._router.architecture_of(target).outputs]
        for name in wanted:
            if name not in known:
                raise InvalidInput(one_of("output", name, known))

    def _explain(self, target: str, request: Request) -> Response:
        try:
            content = msgspec.json.decode(request.body or b"{}", type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise InvalidInput(
                f'the body must be JSON such as {{"parameters": {{"latency_ms": 10}}}}: {error}'
            ) from None
        parameters = content.get("parameters", {})
        rows = content.get("rows", 1)
        if not isinstance(parameters, dict) or not isinstance(rows, int) or rows < 1:
            raise InvalidInput("'parameters' must be an object and 'rows' a whole number from 1")
        verdicts = self._router.explain(target, rows, slo_of(parameters, request.headers))
        return _json({"target": target, "candidates": verdicts})

    def _metadata(self, target: str) -> Response:
        architecture = self._router.architecture_of(target)
        content = {
            "name": target,
            "versions": ["1"],
            "platform": "infaas",
            "inputs": tensor_metadata(architecture.inputs),
            "outputs": tensor_metadata(architecture.outputs),
        }
        return _json(content)

    def _ready(self) -> Response:
        ready = bool(self._router.targets)
        return _json({"ready": ready}, 200 if ready else 503)

    def _index(self) -> list[dict[str, str]]:
        ready = {x.variant for x in self._router.table.replicas}
        return [
            {"name": name, "version": "1", "state": "READY" if ready.intersection(variants) else "UNAVAILABLE"}
            for name, variants in sorted(self._router.targets.items())
        ]


async def _read_body(receive: Receive, most_bytes: int) -> tuple[bytes, int]:
    """The whole body, and 0; or, for one beyond the limit, nothing and its size.

    What is beyond the limit is read and dropped, so that the client sees the answer.
    """
    size = 0
    parts: list[bytes] = []
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= most_bytes:
            parts.append(part)
        else:
            parts.clear()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    return b"".join(parts), size if size > most_bytes else 0


def _shown(request: Request) -> str:
    return request.path.partition(b"?")[0].decode("latin-1")
