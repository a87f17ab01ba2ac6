"""The router's own HTTP port: HTTP/1.1 straight to the application, for those who want the last microsecond.

The same application stands behind Ray Serve's proxy; this door leaves out the proxy, its queue and the second process.
The parsing is httptools'. One connection carries one request at a time; what a client pipelines waits its turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple

import httptools

Headers = dict[str, str]

_IDLE_S = 75.0
_REASONS = {x.value: x.phrase.encode() for x in HTTPStatus}


class Request(NamedTuple):
    """A whole request. Header names are in lower case; `too_large` is the body's size where it was not kept."""

    method: str
    path: bytes
    headers: Headers
    body: bytes
    too_large: int = 0


class Response(NamedTuple):
    """A whole answer; the content length is added when it is sent."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


Respond = Callable[[Request], Awaitable[Response]]


class _Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, respond: Respond, max_body_bytes: int, open_connections: "set[_Connection]") -> None:
        self._respond = respond
        self._max_body_bytes = max_body_bytes
        self._open = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self.active_at = 0.0

    # -- from asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._open.add(self)
        self.active_at = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self.active_at = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(b'{"error": "this port speaks HTTP/1.1 only"}')
        except httptools.HttpParserError:
            self._refuse(b'{"error": "this is not HTTP/1.1"}')

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        if self._task is not None:
            self._task.cancel()

    # -- from the parser

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: Headers = {}
        self._body: list[bytes] = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= self._max_body_bytes:
            self._body.append(body)
        else:
            self._body.clear()

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        too_large = self._size if self._size > self._max_body_bytes else 0
        request = Request(self._parser.get_method().decode(), self._path, self._headers, body, too_large)
        self._waiting.append((request, self._parser.should_keep_alive()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    # -- answers

    async def _answer(self) -> None:
        while self._waiting and self._transport is not None:
            request, keep_alive = self._waiting.popleft()
            response = await self._respond(request)
            self._transport.write(_encode(response, request.headers.get("x-request-id"), keep_alive))
            if not keep_alive:
                self._transport.close()
                break
        self._task = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._task is not None

    def _refuse(self, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(_encode(Response(400, body), None, False))
            self._transport.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.close()


def _encode(response: Response, request_id: str | None, keep_alive: bool) -> bytes:
    status = response.status
    lines = [b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b"")), b"content-length: %d" % len(response.body)]
    lines += [b"%s: %s" % header for header in response.headers]
    if request_id is not None:
        lines.append(b"x-request-id: " + request_id.encode("latin-1"))
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join((*lines, b"", response.body))


class HttpDoor:
    """A listening port."""

    def __init__(self, respond: Respond, max_body_bytes: int) -> None:
        self._respond = respond
        self._max_body_bytes = max_body_bytes
        self._connections: set[_Connection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int) -> int:
        """Listen; port 0 picks one, which is returned. Several routers of a machine may share a port."""
        loop = asyncio.get_running_loop()
        self._server = server = await loop.create_server(
            lambda: _Connection(self._respond, self._max_body_bytes, self._connections),
            host,
            port,
            reuse_port=port != 0,
        )
        self._sweeper = loop.create_task(self._sweep())
        actual: int = server.sockets[0].getsockname()[1]
        return actual

    async def _sweep(self) -> None:
        """Close connections that are silent for long."""
        while True:
            await asyncio.sleep(_IDLE_S / 5)
            silent_since = time.monotonic() - _IDLE_S
            for connection in list(self._connections):
                if connection.active_at < silent_since and not connection.busy:
                    connection.close()

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.close()
