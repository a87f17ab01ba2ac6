"""How much each variant is asked for, from the reports of all routers.

Rule: per router an exponentially weighted mean over about `window_s` seconds, each report weighted by the time that it
covers; the rates of the routers add up. Refusals count only as far as the last report still has them, so that those
from before a replica was ready do not call for more. A router that was silent for `SILENT_S` counts no more. All rates
are in rows per second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from infaas_ray.policy.messages import TrafficReported

SILENT_S = 10.0
_NOTHING_QPS = 1e-3  # rates below are forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Rates of one variant; what they count is said at `messages.TrafficReported`."""

    wanted_qps: float = 0.0
    served_qps: float = 0.0
    refused_qps: float = 0.0


_Rates = dict[str, float]


class _Router:
    """The rates that one router reports."""

    __slots__ = ("refused", "refused_last", "reported_at", "served", "wanted")

    def __init__(self) -> None:
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

    def report(self, event: TrafficReported, now: float) -> None:
        """Take in the last window of a router; one without a length says nothing."""
        if event.window_s <= 0:
            return
        router = self._routers.setdefault(event.router, _Router())
        router.reported_at = now
        weight = 1.0 - exp(-event.window_s / self._window_s)
        router.wanted = _mixed(router.wanted, event.wanted, event.window_s, weight)
        router.served = _mixed(router.served, event.served, event.window_s, weight)
        router.refused = _mixed(router.refused, event.refused, event.window_s, weight)
        router.refused_last = {name: rows / event.window_s for name, rows in event.refused.items()}
        for counts in (event.wanted, event.served):
            for variant, rows in counts.items():
                if rows > 0:
                    self._seen[variant] = now

    def forget_silent(self, now: float) -> None:
        """Leave out of account the routers that have not reported lately."""
        for name in [name for name, x in self._routers.items() if now - x.reported_at > SILENT_S]:
            del self._routers[name]

    def demand(self, variant: str) -> Demand:
        """The rates of a variant over all routers."""
        routers = self._routers.values()
        return Demand(
            wanted_qps=sum(x.wanted.get(variant, 0.0) for x in routers),
            served_qps=sum(x.served.get(variant, 0.0) for x in routers),
            refused_qps=sum(min(x.refused.get(variant, 0.0), x.refused_last.get(variant, 0.0)) for x in routers),
        )

    def wanted(self) -> list[str]:
        """The variants that are wanted, by name."""
        return sorted({name for x in self._routers.values() for name in x.wanted})

    def last_seen(self, variant: str) -> float | None:
        """When a report last had a query that wanted the variant or was served by it; None if none ever did."""
        return self._seen.get(variant)


def _mixed(old: _Rates, counts: Mapping[str, int], window_s: float, weight: float) -> _Rates:
    rates = {name: rate * (1.0 - weight) for name, rate in old.items()}
    for name, rows in counts.items():
        rates[name] = rates.get(name, 0.0) + rows / window_s * weight
    return {name: rate for name, rate in rates.items() if rate >= _NOTHING_QPS}
