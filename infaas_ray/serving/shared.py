"""Large tensors between processes of one machine: written once into shared memory, read in place.

The sender leases a segment, copies the tensor in, and names it in the frame; the receiver maps it for reading. A
segment goes back to its pool when the call has ended, and to the system when the sender ends. Rule: a name that comes
over a channel is only ever a random name of ours in the folder of shared memory, of a file that this user owns.
"""

import contextlib
import mmap
import os
import re
import secrets
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np

from infaas_ray.domain import Array
from infaas_ray.errors import InvalidInput

LEAST_BYTES = 64 * 1024  # below this a copy through the socket is as quick
_FOLDER = "/dev/shm"  # noqa: S108 - files are made with O_EXCL and mode 0600 under random names
_NAME = re.compile(r"infaas-[0-9a-f]{32}")
_KEPT = 64  # mapped segments of other processes


class SharedArray(np.ndarray[Any, np.dtype[Any]]):
    """An array that lies in a segment, as a whole; what is cut from it is no longer `segment`'s."""

    segment: str | None = None


class _Segment:
    """A file in shared memory, mapped for writing."""

    def __init__(self, capacity: int) -> None:
        self.name = f"infaas-{secrets.token_hex(16)}"
        path = f"{_FOLDER}/{self.name}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, capacity)  # fails here, and not as a crash when written, where memory is short
            self.memory = mmap.mmap(fd, capacity)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        weakref.finalize(self, _unlink, path)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Arena:
    """The segments that one process sends with, reused by size (powers of two)."""

    def __init__(self, most_bytes: int = 2**30) -> None:
        self._free: dict[int, list[_Segment]] = {}
        self._left = most_bytes

    def put(self, array: Array) -> "Lease | None":
        """Copy an array into a segment; None where there is no room, so that it must travel otherwise."""
        capacity = 1 << (array.nbytes - 1).bit_length()
        free = self._free.setdefault(capacity, [])
        if free:
            segment = free.pop()
        elif capacity <= self._left:
            try:
                segment = _Segment(capacity)
            except OSError:
                return None
            self._left -= capacity
        else:
            return None
        np.copyto(np.frombuffer(segment.memory, array.dtype, array.size).reshape(array.shape), array)
        return Lease(segment, free)


class Lease:
    """A segment in use. `name` goes into the frame."""

    def __init__(self, segment: _Segment, home: list[_Segment]) -> None:
        self._segment = segment
        self._home = home
        self.name = segment.name

    def release(self) -> None:
        """Give the segment back; nobody reads it any more."""
        self._home.append(self._segment)


_mapped: OrderedDict[str, mmap.mmap] = OrderedDict()


def view(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> SharedArray:
    """The array in a segment of another process, read-only and in place. Raises InvalidInput where there is none."""
    memory = _mapped.get(name)
    if memory is None:
        memory = _mapped[name] = _map(name)
        if len(_mapped) > _KEPT:
            _mapped.popitem(last=False)  # unmapped once no array looks at it
    else:
        _mapped.move_to_end(name)
    count = 1
    for length in shape:
        count *= length
    if count < 0 or count * dtype.itemsize > len(memory):
        raise InvalidInput("a tensor does not fit the shared memory that it names")
    array = np.frombuffer(memory, dtype, count).reshape(shape).view(SharedArray)
    array.segment = name
    return array


def _map(name: str) -> mmap.mmap:
    if not _NAME.fullmatch(name):
        raise InvalidInput("that is not the name of a segment of shared memory")
    try:
        fd = os.open(f"{_FOLDER}/{name}", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise InvalidInput(f"the shared memory of a tensor cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.getuid():
            raise InvalidInput("the shared memory of a tensor belongs to somebody else")
        return mmap.mmap(fd, status.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)
