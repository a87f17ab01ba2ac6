"""Direct connections between processes of the system: multiplexed calls with tensors over a socket.

Ray does placement, lifecycle and failure detection; queries flow here. One connection carries many calls at once,
answered in any order. Both ends prove that they know the cluster's secret before anything else is read. A lost
connection fails every call on it with `ReplicaLost`, at once. An address is `host:port` or `unix:/path`.
"""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from infaas_ray import errors
from infaas_ray.domain import Array
from infaas_ray.errors import ConfigError, InfaasError, ReplicaLost, Unavailable, told
from infaas_ray.serving.frames import Frame
from infaas_ray.serving.link import Link
from infaas_ray.serving.shared import LEAST_BYTES, Arena, Lease, SharedArray

ACTOR = "actor:"  # before the name of a Ray actor among addresses: another way to the same replica
_HANDSHAKE_S = 5.0
_SILENCE_S = 5.0  # of a peer that owes an answer
_BACK = "back"  # the verb of a frame that takes a call back
_arena = Arena()
_ERROR_TYPES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, InfaasError)
}


def _proof(secret: bytes, side: bytes, *nonces: bytes) -> bytes:
    return hmac.digest(secret, side + b"".join(nonces), hashlib.sha256)


class Reply(NamedTuple):
    """What a call came back with."""

    fields: dict[str, Any]
    arrays: dict[str, Array]


_Open = dict[int, Callable[[], None]]  # calls of a link that are not answered: what to do when they are taken back


class Incoming:
    """A call that arrived at a server; exactly one of `reply` and `fail` must be called, once."""

    __slots__ = ("_link", "_open", "_over", "arrays", "fields", "id", "verb")

    def __init__(self, link: "Link", frame: Frame, open_calls: _Open) -> None:
        self._link = link
        self._open = open_calls
        self._over = False
        self.id = frame.head.call
        self.verb = frame.head.verb
        self.fields = frame.head.fields
        self.arrays = frame.arrays()

    def on_taken_back(self, act: Callable[[], None]) -> None:
        """Have `act` called, once, when the caller takes the call back or is gone, if that is before its answer.

        It must still be answered: what it leased is kept until then.
        """
        if not self._over:
            self._open[self.id] = act

    def reply(self, fields: dict[str, Any], arrays: Mapping[str, Array]) -> None:
        """Answer the call; with an error, where the arrays cannot be sent."""
        try:
            self._link.send(self.id, "reply", fields, arrays)
            self._end()
        except Exception as error:  # of outputs that are no arrays, too: whoever waits must hear of it
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Answer the call with an error; the caller sees the same class and message."""
        self._link.send(self.id, "error", _describe(error), {})
        self._end()

    def _end(self) -> None:
        self._over = True
        self._open.pop(self.id, None)


def _describe(error: Exception) -> dict[str, Any]:
    known = isinstance(error, InfaasError)
    return {
        "type": type(error).__name__ if known else "VariantFailed",
        "args": list(error.args) if known else [told(error)],
    }


def _rebuild(fields: Mapping[str, Any]) -> InfaasError:
    kind = _ERROR_TYPES.get(str(fields.get("type")), InfaasError)
    return kind(*fields.get("args", ()))


class Server:
    """Listens for channel connections and hands each call to `handler`, on the event loop."""

    def __init__(self, handler: Callable[[Incoming], None], secret: bytes) -> None:
        self._handler = handler
        self._secret = secret
        self._servers: list[asyncio.AbstractServer] = []
        self._links: dict[Link, _Open] = {}

    async def listen(self, address: str) -> str:
        """Listen at `address` (`host:0` picks a port, `unix:/path` a socket file) and return the actual one."""
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            server: asyncio.Server = await loop.create_unix_server(self._link, path)
            os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        else:
            host, _, port = address.rpartition(":")
            server = await loop.create_server(self._link, host, int(port))
            address = f"{host}:{server.sockets[0].getsockname()[1]}"
        self._servers.append(server)
        return address

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        for server in self._servers:
            server.close()
        for link in list(self._links):
            link.close()

    def _link(self) -> Link:
        link = Link(self._on_frame, self._on_closed, server=True)
        self._links[link] = {}
        asyncio.get_running_loop().call_later(_HANDSHAKE_S, self._drop_stranger, link)
        return link

    @staticmethod
    def _drop_stranger(link: Link) -> None:
        if not link.trusted:
            link.close()

    def _on_frame(self, link: Link, frame: Frame) -> None:
        if not link.trusted:
            self._greet(link, frame)
            return
        open_calls = self._links[link]
        if frame.head.verb == _BACK:
            act = open_calls.pop(frame.head.call, None)
            if act is not None:
                act()
            return
        try:
            call = Incoming(link, frame, open_calls)
        except InfaasError as error:
            link.send(frame.head.call, "error", _describe(error), {})
            return
        self._handler(call)

    def _on_closed(self, link: Link) -> None:
        """Whoever asked through this link is gone."""
        open_calls = self._links.pop(link)
        while open_calls:
            open_calls.popitem()[1]()

    def _greet(self, link: Link, frame: Frame) -> None:
        fields = frame.head.fields
        nonce, proof = fields.get("nonce"), fields.get("proof")
        if not (isinstance(nonce, bytes) and isinstance(proof, bytes)) or not hmac.compare_digest(
            proof, _proof(self._secret, b"client", link.nonce, nonce)
        ):
            link.close()
            return
        link.trust()
        link.send(0, "welcome", {"proof": _proof(self._secret, b"server", nonce, link.nonce)}, {})


# What to do with the outcome, what to release with it, and when (in the loop's time) the peer is taken for gone.
_Call = tuple[Callable[[Reply | InfaasError], None], Sequence[Lease], float]


def _ignore(outcome: Reply | InfaasError) -> None:
    """Nobody waits for this outcome."""


def _release(leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.release()


class Connection:
    """The calling end of a channel. Make it with `connect`."""

    def __init__(self, address: str, secret: bytes, on_lost: Callable[["Connection"], None] | None = None) -> None:
        self.address = address
        self._local = address.startswith("unix:")
        self._secret = secret
        self._on_lost = on_lost
        self._link = Link(self._on_frame, self._on_closed, server=False)
        self._calls = itertools.count(1)
        self._pending: dict[int, _Call] = {}
        self._nonce = secrets.token_bytes(16)
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._welcome: asyncio.Future[None] = self._loop.create_future()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._link.closed

    @property
    def full(self) -> bool:
        """Whether the peer has not taken enough of what was sent; wait for `writable` before sending more."""
        return self._link.full

    async def writable(self) -> None:
        """Wait until the peer has taken enough, or is gone."""
        await self._link.writable()

    async def open(self) -> None:
        """Connect and shake hands. Raises ReplicaLost where nobody listens or the secret is not the same."""
        loop = self._loop
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                if self.address.startswith("unix:"):
                    await loop.create_unix_connection(lambda: self._link, self.address.removeprefix("unix:"))
                else:
                    host, _, port = self.address.rpartition(":")
                    await loop.create_connection(lambda: self._link, host, int(port))
                await self._welcome
        except (OSError, TimeoutError) as error:
            self._link.close()
            raise ReplicaLost(f"no channel to {self.address}: {error or 'timed out'}") from None

    def ask(
        self,
        verb: str,
        fields: dict[str, Any],
        arrays: Mapping[str, Array],
        done: Callable[[Reply | InfaasError], None],
        patience_s: float = inf,
    ) -> int:
        """Send a call and return its number; `done` is called once, later: with the reply, an error, or the loss.

        A call that is not answered within `patience_s` seconds ends by Unavailable; by ReplicaLost where the peer has
        said nothing at all lately, which is then taken for gone (`drop_silent` looks). Raises ReplicaLost where it is
        gone already, and PayloadTooLarge or InvalidInput where the arrays cannot be sent.
        """
        link = self._link
        if link.closed:
            raise ReplicaLost(f"the connection to {self.address} is closed")
        number = next(self._calls)
        segments, leases = self._share(arrays) if self._local else ({}, ())
        try:
            link.send(number, verb, fields, arrays, segments)
        except InfaasError:
            _release(leases)
            raise
        self._pending[number] = (done, leases, self._loop.time() + patience_s)
        return number

    def take_back(self, number: int) -> None:
        """Nobody waits for that call's reply any more; the peer need not do what it has not begun."""
        pending = self._pending.get(number)
        if pending is not None:  # what it leased is read until the reply comes
            self._pending[number] = (_ignore, *pending[1:])
            self._link.send(number, _BACK, {}, {})

    async def call(
        self, verb: str, fields: dict[str, Any], arrays: Mapping[str, Array], patience_s: float = inf
    ) -> Reply:
        """Send a call and wait for its reply, as `ask` does, and before that until the peer takes more.

        Raises the peer's error, or ReplicaLost where the peer is gone.
        """
        if self._link.full:
            await self._link.writable()
        future: asyncio.Future[Reply | InfaasError] = self._loop.create_future()

        def done(outcome: Reply | InfaasError) -> None:
            if not future.done():
                future.set_result(outcome)

        number = self.ask(verb, fields, arrays, done, patience_s)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self.take_back(number)
            raise
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    @staticmethod
    def _share(arrays: Mapping[str, Array]) -> tuple[dict[str, str], Sequence[Lease]]:
        """Put large arrays into shared memory, unless they lie there already; segment names, and what to release."""
        segments: dict[str, str] = {}
        leases: list[Lease] = []
        for name, array in arrays.items():
            if array.nbytes < LEAST_BYTES:
                continue
            if isinstance(array, SharedArray) and array.segment is not None:
                segments[name] = array.segment
            elif (lease := _arena.put(array)) is not None:
                leases.append(lease)
                segments[name] = lease.name
        return segments, leases

    def drop_silent(self) -> None:
        """End the calls that were not answered within their patience; with a peer that is silent, all of them."""
        now = self._loop.time()
        overdue = [number for number, x in self._pending.items() if x[2] < now]
        if overdue and now - self._heard_at > _SILENCE_S:
            self.drop()
            return
        for number in overdue:
            done, leases, _ = self._pending[number]
            self.take_back(number)
            self._pending[number] = (_ignore, leases, inf)
            done(Unavailable("no answer came in time, as others go before; try again when there is less to do", 1.0))

    def drop(self) -> None:
        """Begin to close the connection; calls that wait fail with ReplicaLost."""
        self._link.close()

    async def close(self) -> None:
        """Close the connection and wait until it is closed."""
        self._link.close()
        if self._welcome.done() and not self._welcome.exception():
            await self._ended.wait()

    def _on_frame(self, link: Link, frame: Frame) -> None:
        self._heard_at = self._loop.time()
        verb, fields = frame.head.verb, frame.head.fields
        if verb in ("reply", "error"):
            pending = self._pending.get(frame.head.call)
            if pending is None:
                return
            outcome = Reply(fields, frame.arrays()) if verb == "reply" else _rebuild(fields)
            del self._pending[frame.head.call]
            _release(pending[1])
            pending[0](outcome)
        elif verb == "hello" and not link.trusted:
            link.nonce = fields["nonce"]
            proof = _proof(self._secret, b"client", link.nonce, self._nonce)
            link.send(0, "auth", {"nonce": self._nonce, "proof": proof}, {})
        elif verb == "welcome" and not self._welcome.done():
            expected = _proof(self._secret, b"server", self._nonce, link.nonce)
            if hmac.compare_digest(fields["proof"], expected):
                link.trust()
                self._welcome.set_result(None)
            else:
                link.close()

    def _on_closed(self, link: Link) -> None:
        lost = ReplicaLost(f"the connection to {self.address} was lost")
        if not self._welcome.done():
            self._welcome.set_exception(lost)
        pending, self._pending = self._pending, {}
        for done, leases, _ in pending.values():
            _release(leases)
            done(lost)
        if not self._welcome.cancelled():
            self._welcome.exception()  # seen, even where nobody waited for it
        self._ended.set()
        if self._on_lost is not None:
            self._on_lost(self)


async def connect(addresses: str, secret: bytes, on_lost: Callable[[Connection], None] | None = None) -> Connection:
    """Open a connection to the first of the comma-separated `addresses` that answers, socket files first.

    `on_lost` is called once, when the connection is gone. Raises ReplicaLost where none answers.
    """
    places = [x for x in addresses.split(",") if not x.startswith(ACTOR)]
    ordered = sorted(places, key=lambda x: not x.startswith("unix:"))
    for address in ordered[:-1]:
        connection = Connection(address, secret, on_lost)
        with contextlib.suppress(ReplicaLost):
            await connection.open()
            return connection
    connection = Connection(ordered[-1], secret, on_lost)
    await connection.open()
    return connection


def actor_in(addresses: str) -> str:
    """The name of the actor behind comma-separated addresses; empty where none is named."""
    return next((x.removeprefix(ACTOR) for x in addresses.split(",") if x.startswith(ACTOR)), "")


def socket_folder() -> Path:
    """A folder for socket files, this user's alone, with a name short enough for the limit of 107 bytes."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR", tempfile.gettempdir()))
    folder = base / f"infaas-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own")
    return folder


def sweep_sockets() -> None:
    """Remove the socket files of processes that are gone; their names are process ids."""
    for file in socket_folder().glob("*.sock"):
        if file.stem.isdigit() and not psutil.pid_exists(int(file.stem)):
            file.unlink(missing_ok=True)
