"""Direct connections between processes of the system: multiplexed calls with tensors over a socket.

Ray does placement, lifecycle and failure detection; queries flow here. One connection carries many calls at once,
answered in any order. Both ends prove that they know the cluster's secret before anything else is read. A lost
connection fails every call on it with `ReplicaLost`, at once. This is the calling end; `listener` is the other.
"""

import asyncio
import contextlib
import hmac
import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from infaas_ray.domain import Array
from infaas_ray.errors import InfaasError, ReplicaLost, Unavailable
from infaas_ray.serving.addresses import sockets_in
from infaas_ray.serving.frames import Frame
from infaas_ray.serving.link import Link
from infaas_ray.serving.parley import BACK, HANDSHAKE_S, proof_of, rebuild
from infaas_ray.serving.shared import LEAST_BYTES, Arena, Lease, SharedArray

_SILENCE_S = 5.0  # of a peer that owes an answer
_arena = Arena()


class Reply(NamedTuple):
    """What a call came back with."""

    fields: dict[str, Any]
    arrays: dict[str, Array]


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
            async with asyncio.timeout(HANDSHAKE_S):
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
            self._link.send(number, BACK, {}, {})

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
            outcome = Reply(fields, frame.arrays()) if verb == "reply" else rebuild(fields)
            del self._pending[frame.head.call]
            _release(pending[1])
            pending[0](outcome)
        elif verb == "hello" and not link.trusted:
            link.nonce = fields["nonce"]
            proof = proof_of(self._secret, b"client", link.nonce, self._nonce)
            link.send(0, "auth", {"nonce": self._nonce, "proof": proof}, {})
        elif verb == "welcome" and not self._welcome.done():
            expected = proof_of(self._secret, b"server", self._nonce, link.nonce)
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
    ordered = sockets_in(addresses)
    for address in ordered[:-1]:
        connection = Connection(address, secret, on_lost)
        with contextlib.suppress(ReplicaLost):
            await connection.open()
            return connection
    connection = Connection(ordered[-1], secret, on_lost)
    await connection.open()
    return connection
