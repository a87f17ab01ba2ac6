"""The HTTP door: a plain ASGI application that speaks the Open Inference Protocol in front of one router.

Every answer that is not a success is `{"error": "..."}` with the status of the error's class. Nothing here chooses
or computes; bad input ends here.
"""

import asyncio
import itertools
import logging
import math
import uuid
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from infaas_ray.domain import Answer, Query
from infaas_ray.errors import InfaasError, InvalidInput, PayloadTooLarge, Unavailable, UnknownTarget, one_of
from infaas_ray.protocol import (
    JSON_LENGTH_HEADER,
    InferRequest,
    application_of,
    decode_explain,
    decode_request,
    encode_response,
    slo_of,
    tensor_metadata,
    whole_number,
)
from infaas_ray.serving.http_door import Answered, Request, Response, begin_with
from infaas_ray.serving.metrics import Metrics
from infaas_ray.serving.router import Router

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")
_EXTENSIONS = ["binary_tensor_data", "model_repository", "parameters", "model_less"]


def _json(content: Any, status: int = 200) -> Response:
    return Response(status, _encode(content))


def _failure(error: InfaasError) -> Response:
    response = _json(error.to_json(), error.status)
    if not isinstance(error, Unavailable):
        return response
    seconds = str(max(1, math.ceil(error.retry_after_s))).encode()
    return response._replace(headers=(*response.headers, (b"retry-after", seconds)))


class _WrongMethod(Exception):
    """The path exists, but not for this method. Its one argument is the methods it takes."""


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise _WrongMethod(methods)


def _wrong_method(request: Request, methods: tuple[str, ...]) -> Response:
    allow = ", ".join(("GET", "HEAD", *methods[1:]) if methods[0] == "GET" else methods).encode()
    response = _json({"error": f"use {' or '.join(methods)} for {_shown(request)}"}, 405)
    return response._replace(headers=(*response.headers, (b"allow", allow)))


def _split(path: bytes) -> tuple[str, ...]:
    text = path.partition(b"?")[0].decode("latin-1")
    if not text.startswith("/"):  # the absolute form, as to a proxy
        text = urlsplit(text).path
    return tuple(unquote(x) for x in text.strip("/").split("/"))


_split_often = lru_cache(maxsize=4096)(_split)


def _parts(path: bytes) -> tuple[str, ...]:
    return _split_often(path) if len(path) <= 512 else _split(path)


@lru_cache(maxsize=4096)
def _often_inferred(path: bytes) -> str | None:
    match _split(path):
        case ("v2", "models", target, "infer"):
            return target
    return None


def _infer_target(path: bytes) -> str | None:
    """The target of an inference without a version; None for every other path, and for very long ones."""
    return _often_inferred(path) if len(path) <= 512 else None


def _inflated(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """A compressed body as it was; stops at `most_bytes`, whatever the body would grow to."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise InvalidInput(f"content-encoding {encoding!r:.80} is not supported; send gzip, deflate (zlib) or none")
    inflater = zlib.decompressobj(zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS + 16)
    try:
        whole = inflater.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not {encoding}, as content-encoding says: {error}") from None
    if len(whole) > most_bytes:
        raise PayloadTooLarge(f"the body inflates to more than the {most_bytes} bytes allowed; send fewer rows")
    if not inflater.eof or inflater.unused_data:
        raise InvalidInput(f"the body must be one whole {encoding} stream; this one is cut short or goes on behind it")
    return whole


class HttpApp:
    """The application of one router: an ASGI callable for Ray Serve, `begin` for the router's own port."""

    def __init__(self, router: Router, metrics: Metrics, max_body_bytes: int) -> None:
        self._router = router
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._prefix = uuid.uuid4().hex[:12]
        self._ids = itertools.count()
        self._begin = begin_with(self.respond)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request over ASGI, or the life of the application."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003, "reason": "this is HTTP only; POST to /v2/models"})
        elif scope["type"] == "http":
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            body, too_large = await _read_body(receive, self._max_body_bytes)
            path = scope.get("raw_path") or scope["path"].encode()
            response = await self.respond(Request(scope["method"], path, headers, body, too_large))
            tell = [*response.headers, (b"content-length", b"%d" % len(response.body))]
            if "x-request-id" in headers:
                tell.append((b"x-request-id", headers["x-request-id"].encode("latin-1")))
            await send({"type": "http.response.start", "status": response.status, "headers": tell})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})

    @staticmethod
    async def _lifespan(receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def begin(self, request: Request, answered: Answered) -> Callable[[], object]:
        """Answer one request: `answered` is called once, unless what this returns is called before.

        The shortest way is that of an inference: nothing waits for it but the replica's answer.
        """
        target = _infer_target(request.path)
        if target is None or request.method != "POST" or "content-encoding" in request.headers:
            return self._begin(request, answered)
        try:
            self._check_body(request)
            return self._begin_inference(target, request, answered)
        except Exception as error:
            answered(self._failed(request, error))
            return _nothing

    async def respond(self, request: Request) -> Response:
        """Answer one request; never raises."""
        try:
            self._check_body(request)
            encoding = request.headers.get("content-encoding", "identity").lower()
            if encoding != "identity":
                whole = await asyncio.to_thread(_inflated, request.body, encoding, self._max_body_bytes)
                request = request._replace(body=whole)
            if request.method == "HEAD":  # answered as GET; whoever sends the answer leaves its body out
                request = request._replace(method="GET")
            return await self._route(request)
        except Exception as error:
            return self._failed(request, error)

    @staticmethod
    def _failed(request: Request, error: Exception) -> Response:
        match error:
            case _WrongMethod():
                return _wrong_method(request, error.args[0])
            case InfaasError():
                return _failure(error)
        _log.error("a request failed for a reason nobody expected", exc_info=error)
        return _json({"error": f"internal error: {type(error).__name__}; the server's log says more"}, 500)

    def _check_body(self, request: Request) -> None:
        if request.too_large:
            raise PayloadTooLarge(
                f"the body has {request.too_large} bytes, more than the {self._max_body_bytes} allowed; "
                "send fewer rows per query"
            )
        announced = whole_number(request.headers.get("content-length", ""))
        if announced not in (None, len(request.body)):
            raise InvalidInput(f"the body has {len(request.body)} bytes, but content-length says {announced}")

    async def _route(self, request: Request) -> Response:
        match _parts(request.path):
            case ("v2", "models", target, "versions", number, *rest):
                if whole_number(number) is None:
                    raise InvalidInput(f"version {number!r:.80} is not a whole number; use versions/1 or leave it out")
                return await self._model(request, target, rest)
            case ("v2", "models", target, *rest):
                return await self._model(request, target, rest)
            case ("v2", "repository", "index"):
                _only(request, "GET", "POST")
                return _json(self._index())
            case parts:
                return self._server(request, parts)

    def _server(self, request: Request, parts: tuple[str, ...]) -> Response:
        match parts:
            case ("v2",):
                answer = self._about
            case ("v2", "health", "live") | ("livez",) | ("healthz",):
                answer = self._live
            case ("v2", "health", "ready") | ("readyz",):
                answer = self._ready
            case ("metrics",):
                answer = self._counted
            case _:
                raise UnknownTarget(f"there is nothing at {_shown(request)}; the API starts at /v2 (see README)")
        _only(request, "GET")
        return answer()

    async def _model(self, request: Request, target: str, rest: list[str]) -> Response:
        match rest:
            case ["infer"]:
                _only(request, "POST")
                return await self._infer(target, request)
            case ["explain"]:
                _only(request, "POST")
                return self._explain(target, request)
            case []:
                _only(request, "GET")
                return self._metadata(target)
            case ["ready"]:
                _only(request, "GET")
                return self._model_ready(target)
        raise UnknownTarget(f"there is nothing at {_shown(request)}; use .../infer, .../explain or .../ready")

    async def _infer(self, target: str, request: Request) -> Response:
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def answered(response: Response) -> None:
            if not future.done():
                future.set_result(response)

        cancel = self._begin_inference(target, request, answered)
        try:
            return await future
        except asyncio.CancelledError:
            cancel()
            raise

    def _begin_inference(self, target: str, request: Request, answered: Answered) -> Callable[[], object]:
        """Ask the router; raises where the query is not admitted."""
        asked, inputs = decode_request(request.body, request.headers.get(JSON_LENGTH_HEADER))
        slo = slo_of(asked.parameters, request.headers)
        if not inputs:
            raise InvalidInput("the request has no inputs")
        query = Query(
            id=asked.id or f"{self._prefix}{next(self._ids):x}",
            target=target,
            slo=slo,
            inputs=inputs,
            rows=len(next(iter(inputs.values()))),
            application=application_of(asked.parameters, request.headers),
        )
        if asked.outputs:
            self._check_outputs(target, [x.name for x in asked.outputs])

        def done(outcome: Answer | Exception) -> None:
            try:
                response = _answer(target, asked, outcome) if isinstance(outcome, Answer) else None
            except Exception as error:
                outcome, response = error, None
            answered(self._failed(request, outcome) if response is None else response)  # type: ignore[arg-type]

        return partial(self._router.cancel, self._router.submit(query, done))

    def _check_outputs(self, target: str, wanted: list[str]) -> None:
        known = [x.name for x in self._router.targets.architecture_of(target).outputs]
        for name in wanted:
            if name not in known:
                raise InvalidInput(one_of("output", name, known))

    def _explain(self, target: str, request: Request) -> Response:
        asked = decode_explain(request.body)
        verdicts = self._router.explain(target, asked.rows, slo_of(asked.parameters, request.headers))
        return _json({"target": target, "candidates": verdicts})

    def _metadata(self, target: str) -> Response:
        architecture = self._router.targets.architecture_of(target)
        content = {
            "name": target,
            "versions": ["1"],
            "platform": "infaas",
            "inputs": tensor_metadata(architecture.inputs),
            "outputs": tensor_metadata(architecture.outputs),
        }
        return _json(content)

    def _model_ready(self, target: str) -> Response:
        if target in self._router.targets.variants:
            return _json({"ready": True})
        return _json({"ready": False, "error": one_of("target", target, list(self._router.targets.variants))}, 404)

    @staticmethod
    def _about() -> Response:
        return _json({"name": "infaas_ray", "version": version("infaas_ray"), "extensions": _EXTENSIONS})

    @staticmethod
    def _live() -> Response:
        return _json({"live": True})

    def _counted(self) -> Response:
        return Response(200, self._metrics.text(), ((b"content-type", b"text/plain; version=0.0.4"),))

    def _ready(self) -> Response:
        ready = bool(self._router.targets.variants)
        return _json({"ready": ready}, 200 if ready else 503)

    def _index(self) -> list[dict[str, str]]:
        ready = {x.variant for x in self._router.table.replicas}
        return [
            {"name": name, "version": "1", "state": "READY" if ready.intersection(variants) else "UNAVAILABLE"}
            for name, variants in sorted(self._router.targets.variants.items())
        ]


def _answer(target: str, asked: InferRequest, answer: Answer) -> Response:
    body, json_bytes = encode_response(target, asked, answer)
    tell = ((b"x-variant", answer.variant.encode()), (b"x-slo-met", b"true" if answer.slo_met else b"false"))
    if json_bytes is None:
        return Response(200, body, (_JSON, *tell))
    length = (JSON_LENGTH_HEADER.encode(), b"%d" % json_bytes)
    return Response(200, body, ((b"content-type", b"application/octet-stream"), length, *tell))


def _nothing() -> None:
    """There is nothing to cancel."""


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
