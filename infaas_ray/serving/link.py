"""One end of one connection between processes of the system: what is sent becomes bytes, and bytes become frames.

Knows nothing of calls and answers; who speaks to whom, and whom they trust, is in `channel` and `listener`.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from infaas_ray.domain import Array
from infaas_ray.errors import InfaasError
from infaas_ray.serving.frames import MAX_FRAME_BYTES, Frame, FrameReader, encode

_HANDSHAKE_BYTES = 4096
_TOGETHER_BYTES = 64 * 1024  # up to here frames are joined before they are written


class Link(asyncio.BufferedProtocol):
    """One end of one connection: frames in, frames out, and whether the socket takes more.

    Small frames that are sent in one turn of the event loop leave together, by one call of the system.
    """

    def __init__(
        self, on_frame: Callable[["Link", Frame], None], on_closed: Callable[["Link"], None], *, server: bool
    ) -> None:
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._server = server
        self.reader = FrameReader(max_frame_bytes=_HANDSHAKE_BYTES)
        self.closed = False
        self.full = False
        self.nonce = secrets.token_bytes(16)
        self.trusted = False
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes | memoryview] = []
        self._unsent_bytes = 0
        self._call_soon = asyncio.get_running_loop().call_soon
        self._writable = asyncio.Event()
        self._writable.set()

    def trust(self) -> None:
        """The peer has proved itself: accept frames of full size."""
        self.trusted = True
        self.reader.max_frame_bytes = MAX_FRAME_BYTES

    def send(
        self,
        call: int,
        verb: str,
        fields: dict[str, Any],
        arrays: Mapping[str, Array],
        segments: Mapping[str, str] | None = None,
    ) -> None:
        """Send a frame, or nothing where the connection is gone. Raises what `frames.encode` raises."""
        if self._transport is None or self.closed:
            return
        buffers, size = encode(call, verb, fields, arrays, segments)
        if not self._unsent:
            self._call_soon(self._flush)
        self._unsent += buffers
        self._unsent_bytes += size
        if self._unsent_bytes > _TOGETHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write what was sent since the last time."""
        unsent, size = self._unsent, self._unsent_bytes
        if not unsent or self._transport is None or self.closed:
            return
        self._unsent, self._unsent_bytes = [], 0
        if size > _TOGETHER_BYTES:
            self._transport.writelines(unsent)
        else:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    async def writable(self) -> None:
        """Wait until the peer has taken enough of what was sent."""
        await self._writable.wait()

    def close(self) -> None:
        """Close the connection, once what was sent is written."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    # -- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport, but acts as one
        if self._server:
            self.send(0, "hello", {"nonce": self.nonce}, {})

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where received bytes go."""
        return self.reader.writable()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come: pass on the frames that are complete."""
        try:
            for frame in self.reader.received(nbytes):
                self._on_frame(self, frame)
        except InfaasError:
            self.close()  # a peer that breaks the framing cannot be answered

    def pause_writing(self) -> None:
        """The peer takes too little of what was sent."""
        self.full = True
        self._writable.clear()
        if self._server and self._transport is not None:
            self._transport.pause_reading()  # a peer that does not take its answers may not ask for more

    def resume_writing(self) -> None:
        """The peer takes more again."""
        self.full = False
        self._writable.set()
        if self._server and self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self.closed = True
        self._writable.set()
        self._on_closed(self)
