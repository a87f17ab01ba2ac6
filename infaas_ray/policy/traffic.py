"""How much each variant is asked for, from the reports of all routers.

Rule: per router an exponentially weighted mean over about `window_s` seconds, each report weighted by the time that it
covers; the rates of the routers add up, and so do the rows that are ongoing. Refusals count only as far as the last
report still has them, so that those from before a replica was ready do not call for more. A replica is as slow as the
router says that finds it slowest. A router that was silent for `SILENT_S` counts no more. All rates are in rows per
second.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import exp
from typing import NamedTuple, TypeVar

from infaas_ray.policy.messages import TrafficReported

SILENT_S = 10.0
_NOTHING_QPS = 1e-3  # rates below are forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Rates of one variant, and its rows under way; what they count is said at `messages.TrafficReported`."""

    wanted_qps: float = 0.0
    served_qps: float = 0.0
    refused_qps: float = 0.0
    ongoing: float = 0.0


class AskedClass(NamedTuple):
    """What some queries ask for; None means "any"."""

    target: str
    latency_s: float | None
    min_accuracy: float | None


_Key = TypeVar("_Key", bound=Hashable)
_Rates = dict[str, float]


class _Router:
    """The rates that one router reports."""

    __slots__ = ("classes", "ongoing", "refused", "refused_last", "reported_at", "served", "slowdowns", "wanted")

    def __init__(self) -> None:
        self.classes: dict[AskedClass, float] = {}
        self.ongoing: _Rates = {}
        self.slowdowns: Mapping[str, float] = {}
        self.wanted: _Rates = {}
        self.served: _Rates = {}
        self.refused: _Rates = {}
        self.refused_last: _Rates = {}
        self.reported_at = 0.0


class Traffic:
    """The demand for every variant."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._routers: dict[str, _Router] = {}
        self._seen: dict[str, float] = {}
        self._demands: dict[str, Demand] = {}  # as far as they were asked for since the last report

    def report(self, event: TrafficReported, now: float) -> None:
        """Take in the last window of a router; one without a length says nothing."""
        if event.window_s <= 0:
            return
        self._demands.clear()
        router = self._routers.setdefault(event.router, _Router())
        router.reported_at = now
        weight = 1.0 - exp(-event.window_s / self._window_s)
        router.wanted = _mixed(router.wanted, _rates(event.wanted, event.window_s), weight)
        router.served = _mixed(router.served, _rates(event.served, event.window_s), weight)
        router.refused_last = _rates(event.refused, event.window_s)
        router.refused = _mixed(router.refused, router.refused_last, weight)
        router.ongoing = _mixed(router.ongoing, event.ongoing, weight)
        router.slowdowns = event.slowdowns
        asked: Counter[AskedClass] = Counter()
        for x in event.classes:
            asked[AskedClass(x.target, x.latency_s, x.min_accuracy)] += x.rows
        router.classes = _mixed(router.classes, _rates(asked, event.window_s), weight)
        for counts in (event.wanted, event.served):
            for variant, rows in counts.items():
                if rows > 0:
                    self._seen[variant] = now

    def forget_silent(self, now: float) -> None:
        """Leave out of account the routers that have not reported lately."""
        for name in [name for name, x in self._routers.items() if now - x.reported_at > SILENT_S]:
            del self._routers[name]
            self._demands.clear()

    def demand(self, variant: str) -> Demand:
        """The rates of a variant over all routers."""
        known = self._demands.get(variant)
        if known is None:
            known = self._demands[variant] = self._count(variant)
        return known

    def _count(self, variant: str) -> Demand:
        routers = self._routers.values()
        return Demand(
            wanted_qps=sum(x.wanted.get(variant, 0.0) for x in routers),
            served_qps=sum(x.served.get(variant, 0.0) for x in routers),
            refused_qps=sum(min(x.refused.get(variant, 0.0), x.refused_last.get(variant, 0.0)) for x in routers),
            ongoing=sum(x.ongoing.get(variant, 0.0) for x in routers),
        )

    def classes(self) -> dict[AskedClass, float]:
        """What is asked for, and how much of it, whatever became of it; in a fixed order."""
        total: dict[AskedClass, float] = {}
        for router in self._routers.values():
            for asked, rate in router.classes.items():
                total[asked] = total.get(asked, 0.0) + rate
        return dict(sorted(total.items(), key=lambda x: (x[0].target, x[0].latency_s or 0.0, x[0].min_accuracy or 0.0)))

    def slowdown(self, replica: str) -> float:
        """How much longer a replica takes than profiled; 1 where no router finds it slow."""
        return max((x.slowdowns.get(replica, 1.0) for x in self._routers.values()), default=1.0)

    def wanted(self) -> list[str]:
        """The variants that are wanted, by name."""
        return sorted({name for x in self._routers.values() for name in x.wanted})

    def last_seen(self, variant: str) -> float | None:
        """When a report last had a query that wanted the variant or was served by it; None if none ever did."""
        return self._seen.get(variant)


def _rates(counts: Mapping[_Key, int], window_s: float) -> dict[_Key, float]:
    return {name: rows / window_s for name, rows in counts.items()}


def _mixed(old: Mapping[_Key, float], new: Mapping[_Key, float], weight: float) -> dict[_Key, float]:
    values = {name: value * (1.0 - weight) for name, value in old.items()}
    for name, value in new.items():
        values[name] = values.get(name, 0.0) + value * weight
    return {name: value for name, value in values.items() if value >= _NOTHING_QPS}
