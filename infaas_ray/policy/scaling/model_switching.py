"""The strategy of Model-Switching: each target is served by one variant at a time, the best for its load.

Rules, every `model_switching.period_s`: a family (a target that is asked for at some least accuracy) has an equal share
of the slots of the machines that are there; `switching` says which of its variants has the best effective accuracy on
it. A less accurate variant takes over at once, a more accurate one when it was right for `back_delay_s`. The chosen one
has as many replicas as carry the load with slack, within the share, and fewer only when that was right for
`back_delay_s`; others cannot be loaded. The original has no machine scaling; here machines follow their use as
Kubernetes would have it (`utilization`).
"""

from collections import Counter
from math import ceil, inf

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.scaling.capacity import rate_within
from infaas_ray.policy.scaling.delays import Delays
from infaas_ray.policy.scaling.fixed import BETWEEN_TURNS_S, only_until
from infaas_ray.policy.scaling.objectives import Family, Objectives
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.slots import slots
from infaas_ray.policy.scaling.strategy import Orders, Situation
from infaas_ray.policy.scaling.switching import SwitchingTable
from infaas_ray.policy.scaling.toward import Spot, follow
from infaas_ray.policy.scaling.utilization import Utilization


class ModelSwitching:
    """Has one variant per target at a time."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._machines = Utilization(settings.utilization)
        self._table = SwitchingTable()
        self._changes = 0
        self._chosen: dict[str, str] = {}
        self._better_since: dict[str, tuple[str, float]] = {}
        self._counts: dict[str, int] = {}
        self._fewer = Delays(0.0, settings.model_switching.back_delay_s)
        self._desired: dict[Spot, int] = {}
        self._excess = 1.0
        self._homeless: dict[str, int] = {}
        self._next = -inf

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        fleet, now = situation.fleet, situation.now
        if fleet.catalog_changes != self._changes:
            self._changes = fleet.catalog_changes
            self._table.forget()
            self._chosen.clear()
            self._next = -inf
        if now >= self._next:
            self._next = now + self._settings.model_switching.period_s
            self._look(Objectives(situation).families(), situation)
        chosen = {variant for variant, _ in self._desired} | set(situation.pins)
        only_until(chosen, fleet, now + BETWEEN_TURNS_S, "another variant is right for the load")
        follow(self._desired, situation, orders, "the variant that is right for the load")
        if fleet.catalog.worker_types:
            self._machines.decide(situation, orders, self._homeless, self._excess, int(bool(chosen)))

    def _look(self, families: list[Family], situation: Situation) -> None:
        """Choose for each family, and say what is to be had where."""
        fleet = situation.fleet
        self._desired, self._homeless, self._excess = {}, {}, 1.0
        self._chosen = {x: name for x, name in self._chosen.items() if any(x == f.name for f in families)}
        self._counts = {x: count for x, count in self._counts.items() if x in self._chosen}
        for family in families:
            variants = [x for x in family.variants if not fleet.blocks.permanent(x)]
            room = {x: _room(x, len(families), fleet) for x in variants}
            best = self._table.best(fleet.catalog.offers, room, family.latency_s, family.rate_qps)
            if best is None:
                self._miss(family, situation)
                continue
            variant = self._choose(family.name, best, situation)
            self._have(variant, family, room.get(variant, 0), situation)
        for variant, count in situation.pins.items():
            missing = count - sum(n for (name, _), n in self._desired.items() if name == variant)
            if missing > 0:
                self._place(variant, missing, fleet)

    def _choose(self, family: str, best: str, situation: Situation) -> str:
        """The variant to serve a family: the best, but not yet where it is better than need be."""
        offers, now = situation.fleet.catalog.offers, situation.now
        current = self._chosen.get(family)
        if current is None or current not in offers or offers[best].accuracy < offers[current].accuracy:
            self._chosen[family] = best
            self._better_since.pop(family, None)
            return best
        if best == current:
            self._better_since.pop(family, None)
            return current
        known = self._better_since.get(family)
        if known is None or known[0] != best:
            known = self._better_since[family] = (best, now)
        if now - known[1] < self._settings.model_switching.back_delay_s:
            return current
        self._chosen[family] = best
        del self._better_since[family]
        return best

    def _have(self, variant: str, family: Family, room: int, situation: Situation) -> None:
        fleet = situation.fleet
        rate = rate_within(fleet.catalog.offers[variant], family.latency_s)
        needed = max(1, ceil(family.rate_qps * self._settings.slack / rate - 1e-9)) if rate > 0 else 1
        if needed > room > 0:
            self._excess = max(self._excess, needed / room)
        count = min(needed, max(1, room), self._settings.max_replicas_per_variant)
        if self._fewer.may(family.name, count - self._counts.get(family.name, 0), situation.now):
            self._counts[family.name] = count
        self._place(variant, min(self._counts[family.name], max(1, room)), fleet)

    def _place(self, variant: str, count: int, fleet: Fleet) -> None:
        """Want replicas on worker types: first where the variant is, then where one fits, in order of price."""
        here = Counter(fleet.workers[x.worker].worker_type for x in fleet.staying(variant, State.STARTING, State.READY))
        free: Counter[str] = Counter()
        for worker in fleet.workers.values():
            if not worker.leaving:
                free[worker.worker_type] += slots(variant, worker, fleet)
        types = fleet.catalog.worker_types
        prices = {kind: types[kind].usd_per_hour if kind in types else 0.0 for kind in free}
        for kind in sorted(free, key=lambda x: (-here[x], prices[x], x)):
            taken = min(count, free[kind])
            if taken > 0:
                self._desired[variant, kind] = self._desired.get((variant, kind), 0) + taken
                count -= taken

    def _miss(self, family: Family, situation: Situation) -> None:
        """No worker here can serve the family: one is to come for its variant that costs least to run."""
        offers = situation.fleet.catalog.offers
        able = [x for x in family.variants if rate_within(offers[x], family.latency_s) > 0]
        if able:
            self._homeless[min(able, key=lambda x: (offers[x].usd_per_1k, x))] = 1


def _room(variant: str, families: int, fleet: Fleet) -> int:
    """How many replicas a family's share of the workers holds: an equal share, at least one where any fits."""
    in_all = sum(slots(variant, x, fleet) for x in fleet.workers.values() if not x.leaving)
    return max(min(1, in_all), in_all // families)
