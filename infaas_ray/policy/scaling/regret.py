"""What it cost that machines had to be waited for, which is what machines that are too many are worth keeping for.

Rule: rows that miss their SLO while machines of a type are planned and not there are counted, and priced when these
have come or are planned no more; the last such time counts. A machine of the type that is too many then stays until its
rent is that price (ski rental, as in `patience`), for `_MOST_S` at most: who keeps it pays at most twice what hindsight
would have paid. Half of the price is forgotten in `_HALF_S`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp2

_HALF_S = 3600.0
_MOST_S = 600.0  # as long as Kubernetes' cluster autoscaler keeps what is not needed


@dataclass(slots=True)
class _Waiting:
    workers: int = 0  # the most that were missing
    rows: dict[str, float] = field(default_factory=dict)  # missed by class


class Regret:
    """What was missed, by worker type."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._usd: dict[str, tuple[float, float]] = {}  # a worker, and when that was learned

    def note(
        self,
        missing: Mapping[str, int],
        missed_rows: Mapping[str, float],
        usd_per_1k: Mapping[str, float],
        now: float,
    ) -> None:
        """Take in a turn: workers planned and not there, and what was missed since the last turn, by class."""
        for name, count in missing.items():
            waiting = self._waiting.setdefault(name, _Waiting())
            waiting.workers = max(waiting.workers, count)
            for x, rows in missed_rows.items():
                waiting.rows[x] = waiting.rows.get(x, 0.0) + rows / len(missing)
        for name in self._waiting.keys() - missing.keys():
            waiting = self._waiting.pop(name)
            usd = sum(rows / 1000 * usd_per_1k.get(x, 0.0) for x, rows in waiting.rows.items())
            self._usd[name] = usd / waiting.workers, now

    def worth_usd(self, name: str, usd_per_hour: float, now: float) -> float:
        """What a worker of that type is worth keeping for at that rent."""
        usd, learned_at = self._usd.get(name, (0.0, now))
        return min(usd * exp2((learned_at - now) / _HALF_S), usd_per_hour * _MOST_S / 3600.0)

    def keep_s(self, name: str, usd_per_hour: float, now: float) -> float:
        """For how many seconds a worker of that type is worth keeping at that rent."""
        return 3600.0 * self.worth_usd(name, usd_per_hour, now) / usd_per_hour if usd_per_hour > 0 else 0.0
