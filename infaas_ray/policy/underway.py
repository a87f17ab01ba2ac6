"""Queries under way: how long one may wait, what it counts for, and what its answer teaches about the replica.

Rule: a router knows its own rows at a replica exactly, those of other routers from the last answer. How much slower
than profiled a replica is, and how long the way takes, is learned from every answer and forgotten in silence, so that
refusals because of it do not last.
"""

from collections.abc import Mapping

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.candidates import ReplicaLoad

MAX_WAIT_S = 60.0  # for a query without a latency bound, while its variant loads
_FORGIVING = 0.05  # how much of an idle replica's slowdown is forgotten with each report
_WAY_SMOOTHING = 0.05
_MARKEDLY_SLOW = 1.2  # times the profiled latency, from which a replica's slowdown is reported
_SMOOTHING = 0.1  # weight of one answer in a replica's measured slowdown


class Way:
    """How long a query is under way outside queue and compute: to the replica and back, and through this process.

    Learned from every answer; `high_s` is what few exceed.
    """

    __slots__ = ("_deviation_s", "_mean_s")

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


def hold(load: ReplicaLoad, slo: SLO, rows: int) -> None:
    """Count rows into a load, or out of it where negative."""
    if slo.offline:
        load.rows_offline += rows
    else:
        load.rows_in_flight += rows


def learn(load: ReplicaLoad, queued_rows: int, compute_s: float, profiled_s: float) -> None:
    """Note an answer: the rows queued at its replica, and how long its batch took, measured and profiled (p99)."""
    load.rows_elsewhere = max(0, queued_rows - load.rows_in_flight - load.rows_offline)
    load.slowdown += _SMOOTHING * (max(0.5, min(10.0, compute_s / profiled_s)) - load.slowdown)


def forget(load: ReplicaLoad) -> None:
    """With each report: a replica from which no answers come is trusted anew by and by, so that it is tried again."""
    if load.ahead(offline=True) - load.rows_elsewhere == 0:
        load.slowdown += _FORGIVING * (1.0 - load.slowdown)
        load.rows_elsewhere //= 2


def ongoing(loads: Mapping[str, ReplicaLoad]) -> dict[str, int]:
    """Online rows of a router that are not answered, by variant; those that wait for a load too."""
    found: dict[str, int] = {}
    for name, load in loads.items():
        if load.rows_in_flight > 0:
            variant = name.partition("#")[0]
            found[variant] = found.get(variant, 0) + load.rows_in_flight
    return found


def slowdowns(loads: Mapping[str, ReplicaLoad]) -> dict[str, float]:
    """The replicas that are markedly slower than profiled, and how many times."""
    return {name: round(load.slowdown, 3) for name, load in loads.items() if load.slowdown > _MARKEDLY_SLOW}
