"""The listening end of channels: takes connections of who knows the secret, and hands their calls on.

A frame of the verb `BACK` takes a call back; so does the end of the connection.
"""

import asyncio
import hmac
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from infaas_ray.domain import Array
from infaas_ray.errors import InfaasError
from infaas_ray.serving.frames import Frame
from infaas_ray.serving.link import Link
from infaas_ray.serving.parley import BACK, HANDSHAKE_S, describe, proof_of

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
        self._link.send(self.id, "error", describe(error), {})
        self._end()

    def _end(self) -> None:
        self._over = True
        self._open.pop(self.id, None)


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
        asyncio.get_running_loop().call_later(HANDSHAKE_S, self._drop_stranger, link)
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
        if frame.head.verb == BACK:
            act = open_calls.pop(frame.head.call, None)
            if act is not None:
                act()
            return
        try:
            call = Incoming(link, frame, open_calls)
        except InfaasError as error:
            link.send(frame.head.call, "error", describe(error), {})
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
            proof, proof_of(self._secret, b"client", link.nonce, nonce)
        ):
            link.close()
            return
        link.trust()
        link.send(0, "welcome", {"proof": proof_of(self._secret, b"server", nonce, link.nonce)}, {})
