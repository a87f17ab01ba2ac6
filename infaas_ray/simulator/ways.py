"""How long queries are under way between routers and replicas, and what that takes of the replica's machine.

A way that computes (`way_loop_s`, `way_work_s`) does so on the machine of its replica: in one event loop, a way after
the other, and then beside all else. What it waits for beyond that is half for certain and half exponential, there and
back alike; or, where quantiles are given, drawn through them as a whole.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from infaas_ray.simulator.engine import Engine
from infaas_ray.simulator.flights import Flight
from infaas_ray.simulator.jitter import exponentials, normals, through
from infaas_ray.simulator.settings import WorldSettings
from infaas_ray.simulator.workers import Machine

_BACK = 0.25  # the way back, as a share of the median way without computing, where ways are drawn through quantiles


def _drawn(settings: WorldSettings, rng: np.random.Generator) -> Iterator[float] | None:
    """Whole ways through the quantiles of the settings; None where there are none."""
    if settings.way_p95_s is None or settings.way_p99_s is None:
        return None
    return through(settings.way_s, settings.way_p95_s, settings.way_p99_s, normals(rng))


class Ways:
    """All ways of a world. `deliver` takes a query that has reached its replica's machine."""

    def __init__(
        self, engine: Engine, settings: WorldSettings, rng: np.random.Generator, deliver: Callable[[Flight], None]
    ) -> None:
        self._engine = engine
        self._deliver = deliver
        self._loop_s, self._work_s = settings.way_loop_s, settings.way_work_s
        self._computed_s = self._loop_s + self._work_s
        self._waits_s = settings.way_s - self._computed_s
        self._back_s = _BACK * self._waits_s
        self._exponentials = exponentials(rng)
        self._drawn = _drawn(settings, rng)

    def out(self, flight: Flight, machine: Machine | None) -> None:
        """Take a query from its router to its replica on that machine; None where it is gone already."""
        if machine is None or not self._computed_s:
            self._routed((flight, 0.0))
            return
        machine.ways.append(flight)
        if len(machine.ways) == 1:
            self._loop(machine)

    def _loop(self, machine: Machine) -> None:
        """The event loop computes one way after another."""
        machine.cpu.start(self._loop_s, 1.0, self._looped, machine)

    def _looped(self, machine: Machine) -> None:
        """What else a way computes, others compute beside it."""
        flight = machine.ways.popleft()
        if machine.ways:
            self._loop(machine)
        machine.cpu.start(self._work_s, 1.0, self._routed, (flight, self._computed_s))

    def _routed(self, sent: tuple[Flight, float]) -> None:
        flight, computed_s = sent
        if self._drawn is None:
            self.back(self._deliver, flight)
        else:  # what is drawn is the whole way, of which some is the way back
            left_s = next(self._drawn) - computed_s - self._back_s
            self._engine.after(max(0.0, left_s), self._deliver, flight)

    def back(self, act: Callable[[Any], None], subject: object) -> None:
        """Have `act(subject)` happen after a way that computes nothing."""
        if self._drawn is not None:
            self._engine.after(self._back_s, act, subject)
        elif self._waits_s > 0:
            self._engine.after(self._waits_s * 0.25 * (1.0 + next(self._exponentials)), act, subject)
        else:
            act(subject)
