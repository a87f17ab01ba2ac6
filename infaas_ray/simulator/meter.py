"""Counts what becomes of queries and what machines cost, in memory that does not grow with the number of queries.

Latencies go into a histogram whose bins are 1 % wide; what changes over time goes into bins of a fixed width.
Only queries that arrive, and machine time that passes, from `from_s` to `until_s` count.
"""

from collections import Counter
from collections.abc import Sequence
from math import exp, log

from infaas_ray.simulator.flights import Flight, Kind

_SHORTEST_S = 1e-6
_WIDTH = log(1.01)
_BINS = int(log(1e11) / _WIDTH) + 1  # up to about a day


class Histogram:
    """Durations by logarithmic bins; quantiles are right within half a percent. Also their exact mean."""

    __slots__ = ("_counts", "count", "total_s")

    def __init__(self) -> None:
        self._counts = [0] * _BINS
        self.count = 0
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.total_s += seconds
        at = int(log(seconds / _SHORTEST_S) / _WIDTH) if seconds > _SHORTEST_S else 0
        self._counts[at if at < _BINS else _BINS - 1] += 1

    @property
    def mean_s(self) -> float | None:
        """The mean; None where nothing was counted."""
        return self.total_s / self.count if self.count else None

    def quantile_s(self, share: float) -> float | None:
        """The duration that the share of all does not exceed; None where nothing was counted."""
        left = share * self.count
        for at, count in enumerate(self._counts):
            left -= count
            if left <= 0 and count:
                return _SHORTEST_S * exp((at + 0.5) * _WIDTH)
        return None


class Tally:
    """What became of the queries of one kind."""

    __slots__ = ("accuracy_in_time", "answered", "arrived", "degraded", "expired", "late", "met", "refused")

    def __init__(self) -> None:
        self.arrived = 0
        self.answered = 0
        self.met = 0  # the whole SLO
        self.late = 0
        self.degraded = 0  # less accurate than asked
        self.refused = 0
        self.expired = 0
        self.accuracy_in_time = 0.0  # sum over those that were not late


class Meter:
    """The account of one run. `bins` of equal width cover `from_s` to `until_s`."""

    def __init__(self, kinds: Sequence[Kind], from_s: float, until_s: float, bins: int) -> None:
        self.kinds = kinds
        self.from_s = from_s
        self.until_s = until_s
        self.bin_s = (until_s - from_s) / bins
        self.tallies = [Tally() for _ in kinds]
        self.latency = Histogram()
        self.queue_s = 0.0
        self.compute_s = 0.0
        self.arrived_in = [0] * bins
        self.met_in = [0] * bins
        self.by_variant: Counter[str] = Counter()
        self.left = 0  # all queries, outside of the time too
        self.counts: Counter[str] = Counter()
        self.machines = Levels(from_s, until_s, bins)
        self.replicas = Levels(from_s, until_s, bins)

    # ---- queries

    def arrived(self, kind: Kind, now: float) -> None:
        """A query came in."""
        if self.from_s <= now < self.until_s:
            self.tallies[kind.number].arrived += 1
            self.arrived_in[int((now - self.from_s) / self.bin_s)] += 1

    def answered(self, flight: Flight, latency_s: float, queue_s: float, compute_s: float, accuracy: float) -> bool:
        """A query was answered; whether its SLO was met."""
        kind = flight.kind
        in_time = latency_s <= kind.latency_s
        met = in_time and not flight.degraded
        self.left += 1
        at = flight.arrived_s
        if not self.from_s <= at < self.until_s:
            return met
        tally = self.tallies[kind.number]
        tally.answered += 1
        self.latency.add(latency_s)
        self.queue_s += queue_s
        self.compute_s += compute_s
        self.by_variant[flight.variant] += 1
        if in_time:
            tally.accuracy_in_time += accuracy
        else:
            tally.late += 1
        if flight.degraded:
            tally.degraded += 1
        if met:
            tally.met += 1
            self.met_in[int((at - self.from_s) / self.bin_s)] += 1
        return met

    def refused(self, flight: Flight) -> None:
        """A query was refused."""
        self.left += 1
        if self.from_s <= flight.arrived_s < self.until_s:
            self.tallies[flight.kind.number].refused += 1

    def expired(self, flight: Flight) -> None:
        """The bound of a query passed before it could run."""
        self.left += 1
        if self.from_s <= flight.arrived_s < self.until_s:
            self.tallies[flight.kind.number].expired += 1


class Levels:
    """How many of what there are over time, as time passes: a level by name, and its integral, in all and by bin."""

    def __init__(self, from_s: float, until_s: float, bins: int) -> None:
        self._from_s = from_s
        self._until_s = until_s
        self._bin_s = (until_s - from_s) / bins
        self._bins = bins
        self._level: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._by_bin: dict[str, list[float]] = {}

    def change(self, name: str, by: int, now: float) -> None:
        """There are so many more, from now on."""
        self._pass(name, now)
        self._level[name] += by

    def level(self, name: str) -> int:
        """How many there are."""
        return self._level[name]

    def lump(self, name: str, seconds: float) -> None:
        """Count time that did not pass here."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def end(self, now: float) -> None:
        """Count what is there up to now."""
        for name in list(self._level):
            self._pass(name, now)

    def hours(self) -> dict[str, float]:
        """The integral by name, in hours."""
        return {name: seconds / 3600.0 for name, seconds in self._seconds.items()}

    def series(self) -> dict[str, list[float]]:
        """The mean level by name and bin."""
        return {name: [x / self._bin_s for x in values] for name, values in self._by_bin.items()}

    def _pass(self, name: str, now: float) -> None:
        begin, end = max(self._from_s, self._since.get(name, self._from_s)), min(self._until_s, now)
        self._since[name] = now
        level = self._level[name]
        values = self._by_bin.setdefault(name, [0.0] * self._bins)
        if level == 0 or end <= begin:
            return
        self.lump(name, level * (end - begin))
        first = int((begin - self._from_s) / self._bin_s)
        for at in range(first, min(self._bins, int((end - self._from_s) / self._bin_s) + 1)):
            low, high = self._from_s + at * self._bin_s, self._from_s + (at + 1) * self._bin_s
            values[at] += level * max(0.0, min(end, high) - max(begin, low))
