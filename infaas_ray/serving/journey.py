"""What a router remembers of a query under way, and of how long ways take.

Rule: a query that was admitted leaves once, and whoever asked hears of it once, unless they cancelled it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from infaas_ray.domain import SLO, Answer, OnMiss, Query
from infaas_ray.policy.candidates import ReplicaLoad
from infaas_ray.policy.selection import Dispatch, SelectionIndex
from infaas_ray.serving.channel import Connection

Done = Callable[[Answer | Exception], None]

MAX_WAIT_S = 60.0  # for a query without a latency bound, while its variant loads
_WAY_SMOOTHING = 0.05


@dataclass(slots=True, eq=False)
class Asked:
    """A query that was admitted at `arrived`. `done` hears of its answer or its error."""

    query: Query
    arrived: float
    done: Done
    counted: bool = False  # as wanted traffic
    left: bool = False
    trip: "Trip | None" = None
    task: "asyncio.Task[None] | None" = None  # what it waits for, where that is no answer of a replica's


@dataclass(slots=True, eq=False)
class Trip:
    """One attempt to have a query answered: where it goes, under which index, and the load that it counts in."""

    to: Dispatch
    load: ReplicaLoad
    index: SelectionIndex
    sent: float
    connection: Connection | None = field(default=None)
    call: int = 0


class Way:
    """How long a query is under way outside queue and compute: to the replica and back, and through this process.

    Learned from every answer; `high_s` is what few exceed. It is forgotten while nothing is answered, so that refusals
    because of it do not last.
    """

    def __init__(self) -> None:
        self._mean_s = 0.0005
        self._deviation_s = 0.0001

    @property
    def high_s(self) -> float:
        """The mean and three mean deviations."""
        return self._mean_s + 3 * self._deviation_s

    def learn(self, took_s: float) -> None:
        """Note one answer."""
        off = max(0.0, took_s) - self._mean_s
        self._mean_s += _WAY_SMOOTHING * off
        self._deviation_s += _WAY_SMOOTHING * (abs(off) - self._deviation_s)

    def forget(self) -> None:
        """Nothing was answered for a while."""
        self._mean_s *= 0.8
        self._deviation_s *= 0.8


def patience_s(slo: SLO) -> float:
    """How long a query may wait for its answer: its bound, unless it has none or accepts to be late."""
    return MAX_WAIT_S if slo.latency_s is None or slo.on_miss is OnMiss.LATE else slo.latency_s


def remaining_s(slo: SLO, waited_s: float) -> float | None:
    """What is left of the bound after which the query expires; None where it never does."""
    if slo.latency_s is None or slo.on_miss is OnMiss.LATE:
        return None
    return slo.latency_s - waited_s


def hold(load: ReplicaLoad, query: Query, rows: int) -> None:
    """Count rows into a load, or out of it where negative."""
    if query.slo.offline:
        load.rows_offline += rows
    else:
        load.rows_in_flight += rows
