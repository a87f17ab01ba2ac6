"""The frames of a channel: how one message with tensors becomes bytes, and bytes become messages again.

A frame is `head_bytes u32 | body_bytes u32 | head (MessagePack) | body`, little-endian. The head names a call, a
verb, plain fields, and the tensors whose raw buffers follow one after the other in the body. Nothing is ever
unpickled. Pure: bytes in, frames out; the sockets are in `channel`.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from infaas_ray.domain import DATATYPES, Array, datatype_of
from infaas_ray.errors import InvalidInput, PayloadTooLarge
from infaas_ray.serving.shared import view

_DTYPES = {name: np.dtype(dtype) for name, dtype in DATATYPES.items()}
_VOID = np.dtype("void")
_PREFIX = struct.Struct("<II")
PREFIX_BYTES = _PREFIX.size
MAX_FRAME_BYTES = 256 * 2**20
_COPIED_BYTES = 4096  # below this a copy is cheaper than a view


class TensorHead(msgspec.Struct, frozen=True, array_like=True):
    """Name, datatype and shape of one tensor, in the body or in a named segment of shared memory."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    segment: str = ""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The head of a frame. `call` pairs a reply with its request."""

    call: int
    verb: str
    fields: dict[str, Any]
    tensors: list[TensorHead]


class Frame(msgspec.Struct, frozen=True):
    """A received frame; arrays are views of its body."""

    head: Head
    body: memoryview

    def arrays(self) -> dict[str, Array]:
        """The tensors by name, without copying. Raises InvalidInput where the body does not match the head."""
        found: dict[str, Array] = {}
        offset = 0
        for tensor in self.head.tensors:
            dtype = _DTYPES.get(tensor.datatype, _VOID)
            if tensor.segment:
                found[tensor.name] = view(tensor.segment, dtype, tensor.shape)
                continue
            count = 1
            for length in tensor.shape:
                count *= length
            end = offset + count * dtype.itemsize
            if dtype.itemsize == 0 or count < 0 or end > len(self.body):
                raise InvalidInput(f"tensor {tensor.name!r} does not fit the body of its frame")
            found[tensor.name] = np.frombuffer(self.body[offset:end], dtype=dtype).reshape(tensor.shape)
            offset = end
        return found


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode


def encode(
    call: int,
    verb: str,
    fields: dict[str, Any],
    arrays: Mapping[str, Array],
    segments: Mapping[str, str] | None = None,
) -> tuple[list[bytes | memoryview], int]:
    """The frame as buffers to write in order, and the bytes of all of them.

    Data of large arrays is referenced, not copied, where it is contiguous. `segments` names the segment of shared
    memory of those arrays that lie in one. Raises PayloadTooLarge.
    """
    tensors: list[TensorHead] = []
    buffers: list[bytes | memoryview] = [b""]
    body_bytes = 0
    for name, array in arrays.items():
        segment = segments.get(name, "") if segments else ""
        tensors.append(TensorHead(name, datatype_of(array), array.shape, segment))
        if segment or not array.nbytes:
            continue
        body_bytes += array.nbytes
        if array.nbytes < _COPIED_BYTES:
            buffers.append(array.tobytes())
        else:
            buffers.append(np.ascontiguousarray(array).data.cast("B"))
    head = _encode(Head(call, verb, fields, tensors))
    if body_bytes + len(head) > MAX_FRAME_BYTES:
        raise PayloadTooLarge(f"{body_bytes} bytes of tensors exceed the {MAX_FRAME_BYTES} that one query may carry")
    buffers[0] = _PREFIX.pack(len(head), body_bytes) + head
    return buffers, PREFIX_BYTES + len(head) + body_bytes


class FrameReader:
    """Collects received bytes and cuts them into frames.

    Small frames share one scratch buffer and are copied out of it; a frame that does not fit gets a buffer of its
    own, into which the socket writes directly.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, scratch_bytes: int = 128 * 1024) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._scratch = bytearray(scratch_bytes)
        self._buffer = self._scratch
        self._end = 0

    def writable(self) -> memoryview:
        """Where the next received bytes go."""
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> Iterable[Frame]:
        """Note that `count` bytes were written into `writable()`; return the frames now complete.

        Raises PayloadTooLarge for a frame beyond the limit and InvalidInput for a head that does not parse.
        """
        self._end += count
        frames: list[Frame] = []
        start = 0
        while self._end - start >= PREFIX_BYTES:
            head_bytes, body_bytes = _PREFIX.unpack_from(self._buffer, start)
            total = PREFIX_BYTES + head_bytes + body_bytes
            if total > self.max_frame_bytes + PREFIX_BYTES:
                raise PayloadTooLarge(f"a frame of {total} bytes exceeds the limit of {self.max_frame_bytes}")
            if self._end - start < total:
                self._make_room(start, total)
                return frames
            frames.append(self._cut(start, head_bytes, body_bytes))
            start += total
        self._make_room(start, 0)
        return frames

    def _cut(self, start: int, head_bytes: int, body_bytes: int) -> Frame:
        view = memoryview(self._buffer)
        head_end = start + PREFIX_BYTES + head_bytes
        try:
            head = _decode(view[start + PREFIX_BYTES : head_end])
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"the head of a frame does not parse: {error}") from None
        body = view[head_end : head_end + body_bytes]
        return Frame(head, memoryview(bytes(body)) if self._buffer is self._scratch else body)

    def _make_room(self, start: int, total: int) -> None:
        """Keep the unread tail from `start`, in a buffer that holds `total` bytes."""
        tail = bytes(memoryview(self._buffer)[start : self._end])
        if total > len(self._scratch):
            if start == 0 and self._buffer is not self._scratch:
                return  # the large frame is still arriving into its own buffer
            self._buffer = bytearray(total)
        else:
            self._buffer = self._scratch
        self._buffer[: len(tail)] = tail
        self._end = len(tail)
