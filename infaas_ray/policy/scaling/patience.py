"""When machines that would only save money are worth their boot: the ski-rental rule, with patience that is learned.

Rules:
- What other machines would have saved is added up from plan to plan, as long as they would without a break. When it is
  the price of their boot, they come. Who buys then pays at most twice what hindsight would have paid (Karlin,
  Manasse, Rudolph and Sleator, "Competitive Snoopy Caching", Algorithmica 1988).
- How long such savings last differs: on noise about the border between two machines they end soon, in a wave of demand
  they last. A swap saves from when the machines go that it was to replace. One that demand undid before it had paid
  for its boots doubles the price from which one is made, one that had paid halves it, between `_LEAST` and `_MOST`
  times what the boots cost. Of what was learned half is forgotten in `_HALF_S`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp2, inf

from infaas_ray.policy.planner.problem import Plan

_LEAST, _MOST = 0.25, 16.0
_HALF_S = 3600.0
_LONGEST_S = 30.0  # between two plans, that savings are counted for


@dataclass(slots=True)
class _Swap:
    usd_per_hour: float  # what it saves
    price_usd: float
    shed: Mapping[str, int]  # the worker types that there were to be fewer of, and how many were to stay
    saves_since: float = inf


class Patience:
    """What was saved up for a swap."""

    def __init__(self) -> None:
        self._factor = 1.0  # times the price of boots; as of `_learned_at`
        self._learned_at = 0.0
        self._at = 0.0  # when the last plan came
        self._forgone_usd = 0.0
        self._usd_per_hour = 0.0
        self._swap: _Swap | None = None

    @property
    def saved_usd(self) -> float:
        """What may be spent on a boot that only saves money."""
        return self._forgone_usd / self._factor_now()

    def note(self, plan: Plan, there: Mapping[str, int], now: float) -> None:
        """Take in a plan; `there` counts workers by type, those on their way too."""
        since_s, self._at = min(now - self._at, _LONGEST_S), now
        if plan.forgone_usd_per_hour > 0:
            self._usd_per_hour = plan.forgone_usd_per_hour
            self._forgone_usd += self._usd_per_hour * since_s / 3600
            return
        swap = self._swap
        if swap is not None and all(there.get(name, 0) <= count for name, count in swap.shed.items()):
            swap.saves_since = min(swap.saves_since, now)
        more = {name for name, count in plan.workers.items() if count > there.get(name, count)}
        if swap is not None and any(plan.workers[x] > swap.shed[x] for x in more & swap.shed.keys()):
            self._judge(swap, now)
        elif more and self._forgone_usd > 0:
            shed = {name: kept for name, count in there.items() if count > (kept := plan.workers.get(name, 0))}
            self._swap = _Swap(self._usd_per_hour, self.saved_usd, shed)
        self._forgone_usd = 0.0

    def _judge(self, swap: _Swap, now: float) -> None:
        """Demand undid a swap."""
        paid = swap.usd_per_hour * max(0.0, now - swap.saves_since) / 3600 >= swap.price_usd
        factor, self._learned_at = self._factor_now(), now
        self._factor = max(_LEAST, factor / 2) if paid else min(_MOST, factor * 2)
        self._swap = None

    def _factor_now(self) -> float:
        kept = exp2((self._learned_at - self._at) / _HALF_S)
        return 1.0 + (self._factor - 1.0) * kept
