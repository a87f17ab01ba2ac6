"""The router's own HTTP port: HTTP/1.1 straight to the application, for those who want the last microsecond.

The same application stands behind Ray Serve's proxy; this door leaves out the proxy, its queue and the second process.
The parsing is httptools'. One connection carries one request at a time; what a client pipelines waits its turn, and
while much waits, or the client does not take its answers, nothing more is read from it. What cannot be parsed is
refused in its turn too, so that good requests before it are still answered.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, NamedTuple

import httptools

Headers = dict[str, str]

_MOST_WAITING = 8  # pipelined requests of a connection before reading pauses
_PIECE_BYTES = 8192  # parsed at once; bounds how many requests one read can hold
_MOST_HEAD_BYTES = 64 * 1024
_MOST_URL_BYTES = 8 * 1024
_LINGER_S = 2.0  # how long what a refused client still sends is dropped, lest a reset overtake the answer
_NAMES = {
    name.encode(): name.lower()
    for name in ("Host", "Accept", "Accept-Encoding", "Connection", "Content-Length", "Content-Type", "User-Agent")
}
_NAMES |= {name.encode(): name for name in _NAMES.values()}


def _head(status: int, reason: str = "") -> bytes:
    """All that stands before the length of the body."""
    return f"HTTP/1.1 {status} {reason}\r\ncontent-length: ".encode()


_HEADS = {x.value: _head(x.value, x.phrase) for x in HTTPStatus}


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


Answered = Callable[[Response], None]
# Begins to answer a request: calls the second argument once, now or later, unless what it returns is called before.
Begin = Callable[[Request, Answered], Callable[[], object]]


def begin_with(respond: Callable[[Request], Coroutine[Any, Any, Response]]) -> Begin:
    """A coroutine function that answers requests and never raises, as a door calls it: each in a task."""

    def begin(request: Request, answered: Answered) -> Callable[[], object]:
        def tell(task: asyncio.Task[Response]) -> None:
            if not task.cancelled():
                answered(task.result())

        task = asyncio.get_running_loop().create_task(respond(request))
        task.add_done_callback(tell)
        return task.cancel

    return begin


class _Refused(Exception):
    """The request will not be taken whole. Its one argument is the answer that says why."""


def _refusal(status: int, message: str) -> Response:
    return Response(status, json.dumps({"error": message}).encode())


_CONTINUE = Response(100)
_NOT_HTTP = _refusal(400, "this is not HTTP/1.1")
_NO_TUNNEL = _refusal(400, "CONNECT is not supported; send HTTP/1.1 requests")
_LONG_URL = _refusal(414, f"the URL is longer than the {_MOST_URL_BYTES} bytes allowed")
_LARGE_HEAD = _refusal(431, f"the headers are larger than the {_MOST_HEAD_BYTES} bytes allowed")
_TOO_SLOW = _refusal(408, "the request took too long to arrive; send it faster or in smaller parts")


class _Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, begin: Begin, max_body_bytes: int, open_connections: "set[_Connection]") -> None:
        self._begin = begin
        self._max_body_bytes = max_body_bytes
        self._open = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._unread = memoryview(b"")
        self._waiting: deque[tuple[Request | Response, bool]] = deque()  # each with whether the connection stays
        self._turn: Request | Response | None = None  # what is being answered
        self._keep_alive = True
        self._cancel: Callable[[], object] | None = None
        self._paused = False
        self._writable = True
        self._ended = False  # nothing more is taken from the client
        self._sent_all = False  # the client has closed its side
        self._linger: asyncio.TimerHandle | None = None
        self._active_at = time.monotonic()
        self._began_at: float | None = None  # when the request that now arrives began
        self._size = 0
        self._overhead = 0

    # -- from asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._active_at = time.monotonic()
        self._unread = memoryview(bytes(self._unread) + data if self._unread else data)
        self._go_on()

    def eof_received(self) -> bool:
        self._ended = self._sent_all = True
        return self._busy  # the client may be done sending, yet wait for its answers

    def pause_writing(self) -> None:
        self._writable = False
        self._flow()

    def resume_writing(self) -> None:
        self._writable = True
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._ended = True
        self._waiting.clear()
        if self._cancel is not None:
            self._cancel()
        if self._linger is not None:
            self._linger.cancel()

    # -- reading

    @property
    def _busy(self) -> bool:
        return self._turn is not None or bool(self._waiting)

    @property
    def _full(self) -> bool:
        return len(self._waiting) > _MOST_WAITING or not self._writable

    def _go_on(self) -> None:
        """Read what there is, and answer what comes first."""
        self._parse()
        self._answer()

    def _flow(self) -> None:
        """Stop reading while much waits."""
        pause = self._full and not self._ended
        if pause == self._paused or self._transport.is_closing():
            return
        self._paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _parse(self) -> None:
        """Parse what was read, as long as few requests wait."""
        while self._unread and not self._ended and len(self._waiting) <= _MOST_WAITING:
            try:
                self._unread = self._unread[self._feed(self._unread[:_PIECE_BYTES]) :]
            except httptools.HttpParserError as error:
                known = error.__context__
                self._end(known.args[0] if isinstance(known, _Refused) else _NOT_HTTP)
        self._flow()

    def _feed(self, piece: memoryview) -> int:
        """Parse a piece and return how much of it was used."""
        size = self._size
        used = len(piece)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            used = upgrade.args[0]
            self._ignore_upgrade()
        # Neither head, trailers nor chunk extensions may grow without end: bytes since the last ones of a body.
        self._overhead = self._overhead + used if self._size == size else 0
        if self._overhead > _MOST_HEAD_BYTES:
            self._end(_LARGE_HEAD)
        return used

    def _ignore_upgrade(self) -> None:
        """Start the request over without its wish for another protocol, before its body."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._end(_NO_TUNNEL)
            return
        lines = [b"%s %s HTTP/%s" % (method, self._path, self._parser.get_http_version().encode())]
        lines += [f"{k}: {v}".encode("latin-1") for k, v in self._headers.items() if k != "upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"\r\n".join((*lines, b"", b"")))

    def _end(self, refusal: Response) -> None:
        """Take no more from this client; the refusal is sent in its turn."""
        self._ended = True
        self._unread = memoryview(b"")
        self._began_at = None
        self._waiting.append((refusal, False))

    # -- from the parser

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: Headers = {}
        self._body: list[bytes] = []
        self._size = 0
        self._overhead = 0
        self._in_head = True
        self._began_at = self._active_at

    def on_url(self, url: bytes) -> None:
        self._path += url
        if len(self._path) > _MOST_URL_BYTES:
            raise _Refused(_LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer
            self._headers[_NAMES.get(name) or name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_head = False
        if "expect" not in self._headers or self._parser.should_upgrade():
            return
        if self._headers["expect"].lower() == "100-continue":
            size = int(self._headers.get("content-length", "0"))  # the parser let only digits pass
            if size > self._max_body_bytes:
                raise _Refused(
                    _refusal(413, f"the body has {size} bytes, more than the {self._max_body_bytes} allowed")
                )
            self._waiting.append((_CONTINUE, True))

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= self._max_body_bytes:
            self._body.append(body)
        else:
            self._body.clear()

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        too_large = self._size if self._size > self._max_body_bytes else 0
        request = Request(self._parser.get_method().decode(), self._path, self._headers, body, too_large)
        self._began_at = None
        self._waiting.append((request, self._parser.should_keep_alive()))

    # -- answers

    def _answer(self) -> None:
        """Begin with what waits first, one at a time, while the client takes its answers."""
        if self._turn is not None or not self._waiting or not self._writable:
            return
        self._turn, self._keep_alive = turn, _ = self._waiting.popleft()
        if isinstance(turn, Response):
            self._answered(turn)
            return
        cancel = self._begin(turn, self._answered)
        if self._turn is turn:
            self._cancel = cancel

    def _answered(self, response: Response) -> None:
        request = self._turn
        self._turn = self._cancel = None
        self._transport.write(
            _encode(response, request if isinstance(request, Request) else None, keep_alive=self._keep_alive)
        )
        if not self._keep_alive:
            self._finish()
        elif self._waiting or (self._unread and not self._ended):
            self._loop.call_soon(self._go_on)  # a pile of one client must not hold up the others
        elif self._ended:
            self._finish()

    def _finish(self) -> None:
        if self._sent_all or not self._ended:
            self._transport.close()
            return
        self._waiting.clear()
        self._unread = memoryview(b"")
        self._transport.write_eof()
        self._flow()
        self._linger = self._loop.call_later(_LINGER_S, self._transport.close)

    def sweep(self, now: float, idle_s: float, receive_s: float) -> None:
        """Refuse a request that arrives too slowly; drop a client that is silent, or deaf, for long."""
        stuck = not self._busy or not self._writable
        if stuck and now - self._active_at > idle_s:
            self._transport.abort()
        elif self._full:
            self._began_at = self._began_at and now  # while nothing is read, nothing can arrive
        elif self._began_at is not None and now - self._began_at > receive_s:
            self._end(_TOO_SLOW)
            self._answer()

    def close(self) -> None:
        """Drop the connection."""
        self._transport.close()


def _encode(response: Response, request: Request | None = None, *, keep_alive: bool) -> bytes:
    status, body = response.status, response.body
    if status == 100:
        return b"HTTP/1.1 100 Continue\r\n\r\n"
    head = _HEADS.get(status) or _head(status)
    lines = [b"%b%d" % (head, len(body)), *[b"%b: %b" % header for header in response.headers]]
    if request is not None:
        request_id = request.headers.get("x-request-id")
        if request_id is not None:
            lines.append(b"x-request-id: " + request_id.encode("latin-1"))
        if request.method == "HEAD":
            body = b""
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join((*lines, b"", body))


class HttpDoor:
    """A listening port. `idle_s` bounds a client's silence, `receive_s` the time for one whole request to arrive."""

    def __init__(self, begin: Begin, max_body_bytes: int, *, idle_s: float = 75.0, receive_s: float = 60.0) -> None:
        self._begin = begin
        self._max_body_bytes = max_body_bytes
        self._idle_s = idle_s
        self._receive_s = receive_s
        self._connections: set[_Connection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int) -> int:
        """Listen; port 0 picks one, which is returned. Several routers of a machine may share a port."""
        loop = asyncio.get_running_loop()
        self._server = server = await loop.create_server(
            lambda: _Connection(self._begin, self._max_body_bytes, self._connections),
            host,
            port,
            reuse_port=port != 0,
        )
        self._sweeper = loop.create_task(self._sweep())
        actual: int = server.sockets[0].getsockname()[1]
        return actual

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle_s, self._receive_s) / 10)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.sweep(now, self._idle_s, self._receive_s)

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.close()
