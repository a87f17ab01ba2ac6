"""Actors that wait on each worker to become replicas, because making one takes Ray half a second.

A shell is a variant actor without a model, with frameworks imported. Rules: as many on a worker as the settings say;
one at a time, and only while the worker's processors have time; none on a worker that leaves, not even one that is not
ready yet; after a failure a pause.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

_PREPARE_LIMIT_S = 120.0
_PAUSE_S = 30.0


class ShellMaker(Protocol):
    """Makes and ends the actors, whose type is the maker's own affair."""

    def make(self, worker: str) -> Any:
        """A new actor on that worker, at once; raises ValueError where there can be none."""
        ...

    async def prepare(self, shell: Any) -> None:
        """Wait until a shell can become a replica; raises where it never will."""
        ...

    async def gone(self, shell: Any) -> None:
        """Return when the actor has ended."""
        ...

    def end(self, shell: Any) -> None:
        """End the actor; nothing happens where it has ended."""
        ...


class Shells:
    """The idle shells by worker. All methods run on one event loop."""

    def __init__(self, per_worker: int, maker: ShellMaker) -> None:
        self._per_worker = per_worker
        self._maker = maker
        self._idle: dict[str, list[Any]] = {}
        self._pause_until: dict[str, float] = {}
        self._preparing: dict[str, Any] = {}
        self._jobs: set[asyncio.Task[None]] = set()

    def count(self, worker: str) -> int:
        """How many wait there."""
        return len(self._idle.get(worker, ()))

    def take(self, worker: str) -> Any | None:
        """A shell of that worker, which is the caller's from now on; None where none waits."""
        idle = self._idle.get(worker)
        return idle.pop(0) if idle else None

    def adopt(self, worker: str, shell: Any) -> None:
        """Take over a shell that a former controller left; one too many is ended."""
        if self.count(worker) >= self._per_worker:
            self._maker.end(shell)
        else:
            self._keep(worker, shell)

    def tend(self, calm: Mapping[str, bool], now: float) -> None:
        """Make what is missing. `calm`: the workers that stay, and whether their processors have time."""
        for worker in self._idle.keys() - calm.keys():
            for shell in self._idle.pop(worker):
                self._maker.end(shell)
        for worker in self._preparing.keys() - calm.keys():
            self._maker.end(self._preparing.pop(worker))
        for worker, has_time in calm.items():
            full = self.count(worker) >= self._per_worker
            if has_time and not full and worker not in self._preparing and now >= self._pause_until.get(worker, now):
                self._pause_until[worker] = now + _PAUSE_S  # taken back when it succeeds
                self._make(worker)

    def end(self) -> None:
        """End all."""
        self.tend({}, 0.0)

    def _make(self, worker: str) -> None:
        try:
            shell = self._maker.make(worker)
        except Exception:  # whatever it was, replicas start without shells, too
            return
        self._preparing[worker] = shell
        self._spawn(self._prepare(worker, shell))

    async def _prepare(self, worker: str, shell: Any) -> None:
        try:
            await asyncio.wait_for(self._maker.prepare(shell), _PREPARE_LIMIT_S)
        except Exception:
            prepared = False
        else:
            prepared = True
        if self._preparing.get(worker) is not shell:
            return  # its worker left, and it was ended
        del self._preparing[worker]
        if prepared:
            self._pause_until.pop(worker, None)
            self._keep(worker, shell)
        else:
            self._maker.end(shell)

    def _keep(self, worker: str, shell: Any) -> None:
        self._idle.setdefault(worker, []).append(shell)
        self._spawn(self._watch(worker, shell))

    async def _watch(self, worker: str, shell: Any) -> None:
        await self._maker.gone(shell)
        with contextlib.suppress(ValueError):  # it had become a replica
            self._idle.get(worker, []).remove(shell)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
