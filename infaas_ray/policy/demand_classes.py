"""The classes of queries that are asked for, with the demand to expect of each and the head room that it needs.

Rules: every target and SLO that routers report is a class of its own; it is forgotten when it was silent for long
enough. A class whose queries miss their SLO although its replicas are as planned gets more head room, one that hardly
misses gets less: the factor moves slowly between `_LEAST_ROOM` and `_MOST_ROOM`, towards `_MISSES` of its rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from infaas_ray.domain import OnMiss
from infaas_ray.policy.forecast import Forecast
from infaas_ray.policy.messages import ClassCount, TrafficReported

_MISSES = 0.003
_LEAST_ROOM, _MOST_ROOM = 0.5, 4.0
_JUDGED_ROWS = 500  # rows after which head room is judged

Key = tuple[str, float | None, float | None, float | None, OnMiss]


@dataclass(slots=True)
class Demanded:
    """A class and what is known of it. `room`: the factor of its head room."""

    key: Key
    forecast: Forecast
    room: float = 1.0
    rows: int = 0
    missed: int = 0

    def judge(self) -> None:
        """Move the head room by what was missed since the last time, where enough came to tell."""
        if self.rows < _JUDGED_ROWS:
            return
        share = self.missed / self.rows
        factor = 0.98 if share <= _MISSES else 1.0 + min(0.5, 0.1 * share / _MISSES)
        self.room = min(_MOST_ROOM, max(_LEAST_ROOM, self.room * factor))
        self.forget()

    def forget(self) -> None:
        """Judge anew from here."""
        self.rows = self.missed = 0


class DemandClasses:
    """The classes by key."""

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._classes: dict[Key, Demanded] = {}

    def __iter__(self) -> Iterator[Demanded]:
        """The classes, in the order in which they were first seen."""
        return iter(self._classes.values())

    def take(self, reports: Iterable[TrafficReported], now: float) -> None:
        """Take in what routers report."""
        for report in reports:
            for count in report.classes:
                if count.rows <= 0:
                    continue
                known = self._class(count, now)
                known.forecast.add(count.rows, now)
                known.rows += count.rows
                known.missed += count.missed
        for known in self._classes.values():
            known.forecast.advance(now)

    def drop(self, key: Key) -> None:
        """Forget a class."""
        self._classes.pop(key, None)

    def _class(self, count: ClassCount, now: float) -> Demanded:
        key = (count.target, count.latency_s, count.min_accuracy, count.max_usd_per_1k, count.on_miss)
        known = self._classes.get(key)
        if known is None:
            known = self._classes[key] = Demanded(key, Forecast(self._quantile, now))
        return known
