"""Processors that batches share: how neighbours slow each other down.

Rule: batches that compute at the moment need some units (threads, or a share of a device) of a pool. While they need
no more than there are, each runs at full speed; while they need more, all run slower in proportion (processor
sharing). Speeds change when a batch starts or ends, so a slowdown lasts exactly as long as its cause.

All batches of a pool run at the same speed, so progress is one number, the pool's own time: a batch that needs `w`
seconds alone ends when that time has grown by `w`. One event at a time is arranged, that of the batch that ends first.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from infaas_ray.simulator.engine import Engine

_Job = tuple[float, int, float, Callable[[Any], None], Any]  # end in the pool's time, order, units, act, subject


class Pool:
    """One worker's processors, or one device."""

    __slots__ = (
        "_armed",
        "_busy_s",
        "_capacity",
        "_demand",
        "_engine",
        "_jobs",
        "_progress",
        "_since",
        "_speed",
        "_started",
        "_version",
    )

    def __init__(self, engine: Engine, capacity: float) -> None:
        self._engine = engine
        self._capacity = capacity
        self._demand = 0.0
        self._speed = 1.0
        self._progress = 0.0
        self._since = engine.now
        self._busy_s = 0.0
        self._jobs: list[_Job] = []
        self._started = 0
        self._version = 0
        self._armed: tuple[int, float] | None = None  # which batch is waited for, at what speed

    def start(self, work_s: float, units: float, act: Callable[[Any], None], subject: Any) -> None:
        """Compute what takes `work_s` seconds alone, on `units` of the pool; `act(subject)` when it is done."""
        self._advance()
        self._started += 1
        heappush(self._jobs, (self._progress + work_s, self._started, units, act, subject))
        self._need(units)
        self._arm()

    def drop(self, subject: Any) -> None:
        """Give up what computes for `subject`."""
        self._advance()
        for job in [x for x in self._jobs if x[4] is subject]:
            self._jobs.remove(job)
            self._need(-job[2])
        heapify(self._jobs)
        self._arm()

    def busy_s(self) -> float:
        """Unit seconds used so far."""
        self._advance()
        return self._busy_s

    @property
    def demand(self) -> float:
        """The units that are needed now."""
        return self._demand

    def _advance(self) -> None:
        passed = self._engine.now - self._since
        if passed > 0.0:
            self._progress += passed * self._speed
            self._busy_s += passed * self._demand * self._speed
            self._since = self._engine.now

    def _need(self, units: float) -> None:
        self._demand += units
        if not self._jobs:
            self._demand = 0.0  # fractions do not add up exactly
        self._speed = 1.0 if self._demand <= self._capacity else self._capacity / self._demand

    def _arm(self) -> None:
        """Arrange the end of the batch that ends first, unless it is arranged already."""
        if not self._jobs:
            self._armed = None
            self._version += 1
            return
        first = self._jobs[0]
        armed = (first[1], self._speed)
        if armed != self._armed:
            self._armed = armed
            self._version += 1
            left_s = max(0.0, first[0] - self._progress) / self._speed
            self._engine.after(left_s, self._end, self._version)

    def _end(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        job = heappop(self._jobs)
        self._progress = job[0]
        self._armed = None
        self._need(-job[2])
        job[3](job[4])  # often starts the next batch here, which arms
        if self._armed is None:
            self._arm()
