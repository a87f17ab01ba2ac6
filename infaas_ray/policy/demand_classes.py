"""The classes of queries that are asked for, with the demand to expect of each and the head room that it needs.

Rules: every target, SLO and size that routers report is a class of its own, as far as `bounds` tells SLOs apart; it is
forgotten when it was silent for long enough. Of more than `_MOST` those are left out that came last, until others were
silent for a while. A class whose queries miss their SLO although its replicas are as planned gets more head room, one
that hardly misses gets less again: the factor moves slowly, between 1 and `_MOST_ROOM`, towards `_MISSES` of its
queries. Never below 1: that nothing is missed on machines with room to spare says nothing of when demand fills them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from infaas_ray.domain import OnMiss
from infaas_ray.policy.demand import size_of
from infaas_ray.policy.forecast import Forecast
from infaas_ray.policy.messages import ClassCount, TrafficReported

_MISSES = 0.003
_MOST_ROOM = 4.0
_JUDGED = 500  # queries after which head room is judged
_MOST = 2_000  # classes
_QUIET_S = 10.0  # of silence, after which a class makes room for another
_ROWS_EACH_MEMORY = 0.05  # weight of a report in the mean rows of a query

Bounds = Callable[[ClassCount], ClassCount]


class Key(NamedTuple):
    """What tells classes apart; None means "any". `size` as in `demand.size_of`."""

    target: str
    latency_s: float | None
    min_accuracy: float | None
    max_usd_per_1k: float | None
    on_miss: OnMiss
    size: int


@dataclass(slots=True)
class Demanded:
    """A class and what is known of it: the mean `rows_each` of its queries, and `room`, the factor of its head room."""

    key: Key
    forecast: Forecast
    rows_each: float
    room: float = 1.0
    queries: float = 0.0
    missed: float = 0.0
    missed_rows: float = 0.0  # since they were last taken

    def judge(self) -> None:
        """Move the head room by what was missed since the last time, where enough came to tell."""
        if self.queries < _JUDGED:
            return
        share = self.missed / self.queries
        factor = 0.98 if share <= _MISSES else 1.0 + min(0.5, 0.1 * share / _MISSES)
        self.room = min(_MOST_ROOM, max(1.0, self.room * factor))
        self.forget()

    def forget(self) -> None:
        """Judge anew from here."""
        self.queries = self.missed = 0.0

    def take_missed_rows(self) -> float:
        """The rows that missed their SLO since the last call."""
        rows, self.missed_rows = self.missed_rows, 0.0
        return rows


class DemandClasses:
    """The classes by key."""

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._classes: dict[Key, Demanded] = {}
        self._full_at = -inf  # when no class was silent for long enough to make room

    def __iter__(self) -> Iterator[Demanded]:
        """The classes, in the order in which they were first seen."""
        return iter(self._classes.values())

    def take(self, reports: Iterable[TrafficReported], now: float, bounds: Bounds = lambda x: x) -> None:
        """Take in what routers report; `bounds` makes bounds that come to the same the same."""
        for report in reports:
            for count in map(bounds, report.classes):
                if count.rows <= 0:
                    continue
                known = self._class(count, now)
                if known is None:
                    continue
                known.forecast.add(count.rows, now)
                known.rows_each += _ROWS_EACH_MEMORY * (count.rows_each - known.rows_each)
                known.queries += count.rows / count.rows_each
                known.missed += count.missed / count.rows_each
                known.missed_rows += count.missed
        for known in self._classes.values():
            known.forecast.advance(now)

    def drop(self, key: Key) -> None:
        """Forget a class."""
        self._classes.pop(key, None)

    def _class(self, count: ClassCount, now: float) -> Demanded | None:
        size = size_of(count.rows_each)
        key = Key(count.target, count.latency_s, count.min_accuracy, count.max_usd_per_1k, count.on_miss, size)
        known = self._classes.get(key)
        if known is None:
            if len(self._classes) >= _MOST and not self._make_room(now):
                return None
            known = self._classes[key] = Demanded(key, Forecast(self._quantile, now), count.rows_each)
        return known

    def _make_room(self, now: float) -> bool:
        """Forget the class that was silent longest, if that was a while; nothing is looked for twice in a turn."""
        if now == self._full_at:
            return False
        quiet = min(self._classes.values(), key=lambda x: x.forecast.last_seen)
        if now - quiet.forecast.last_seen < _QUIET_S:
            self._full_at = now
            return False
        self.drop(quiet.key)
        return True
