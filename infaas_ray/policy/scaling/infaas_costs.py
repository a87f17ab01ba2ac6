"""What INFaaS compares when a variant has too little or too much capacity, by the cost of its integer program.

Rule: a change of d_j replicas of each variant j costs the sum of C_j (d_j + lambda T_j max(d_j, 0)), with C the dollars
a second that a replica's share of a machine costs and T its load time. INFaaS's greedy looks at one variant at a time:
replicate it, or let another variant of the same alternatives take over all that it serves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.scaling.capacity import Capacity, rate_within
from infaas_ray.policy.scaling.objectives import Objectives
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Situation


@dataclass(frozen=True, slots=True, order=True)
class Option:
    """Have `count` replicas of `variant`, `more` than now; where `takes_over`, those of the other variant leave."""

    cost: float
    variant: str
    count: int
    more: int
    takes_over: bool


class Costs:
    """Rates, loads and options of one turn; rates in rows a second."""

    def __init__(self, situation: Situation, capacity: Capacity, settings: ScalingSettings) -> None:
        self._situation = situation
        self._capacity = capacity
        self._settings = settings
        self._objectives = Objectives(situation)

    def rate_qps(self, variant: str) -> float:
        """What a replica carries within the variant's objective; 0 where it keeps none."""
        within = rate_within(self._situation.fleet.catalog.offers[variant], self._objectives.of(variant).latency_s)
        return min(within, self._capacity.rate_qps(variant, self._situation))

    def load_qps(self, variant: str) -> float:
        """What the variant serves while it is there (on a worker that leaves, too), and refused what wants it."""
        demand = self._situation.traffic.demand(variant)
        there = self._situation.fleet.of(variant, State.STARTING, State.READY)
        return (demand.served_qps if there else 0.0) + demand.refused_qps

    def have(self, variant: str) -> int:
        """Replicas that are there or starting, and stay."""
        return len(self._situation.fleet.staying(variant, State.STARTING, State.READY))

    def needed(self, load_qps: float, rate_qps: float) -> int:
        """Replicas that carry a load with slack."""
        return ceil(load_qps * self._settings.slack / rate_qps - 1e-9)

    def more(self, variant: str) -> list[Option]:
        """The ways to carry what loads the variant, cheapest first: replicate it, or one that does more takes over.

        Where it has no replica, any alternative may carry its load besides its own.
        """
        load, rate, have = self.load_qps(variant), self.rate_qps(variant), self.have(variant)
        most = self._settings.max_replicas_per_variant
        found: list[Option] = []
        if rate > 0:
            count = min(self.needed(load, rate), most)
            if count > have:
                found.append(Option(self._start_cost(variant, count - have), variant, count, count - have, False))
        for other in self._objectives.of(variant).alternatives:
            if other != variant and (not have or self.rate_qps(other) > rate):
                found += self._take_over(variant, other, most)
        return sorted(found)

    def cheaper(self, variant: str) -> Option | None:
        """The cheapest way to have another variant carry what loads this one, where that saves."""
        if self.load_qps(variant) <= 0:
            return None
        most = self._settings.max_replicas_per_variant
        found = [
            option
            for other in self._objectives.of(variant).alternatives
            if other != variant
            for option in self._take_over(variant, other, most)
            if option.cost < 0
        ]
        return min(found, default=None)

    def _take_over(self, variant: str, other: str, most: int) -> list[Option]:
        """That `other` carries what loads `variant` besides its own, as the only element, if that can be."""
        fleet, now = self._situation.fleet, self._situation.now
        rate, here = self.rate_qps(other), self.have(other)
        if rate <= 0 or fleet.blocks.reason(other, now) is not None:
            return []
        count = self.needed(self.load_qps(variant) + self.load_qps(other), rate)
        if not 0 < count <= most:
            return []
        leaving = max(0, self.have(variant) - self._situation.pins.get(variant, 0))
        more = max(0, count - here)
        cost = self._start_cost(other, more) - self._usd_per_s(variant) * leaving
        return [Option(cost, other, max(count, here), more, leaving > 0)]

    def _start_cost(self, variant: str, more: int) -> float:
        weight = self._settings.infaas.load_weight_per_s
        return self._usd_per_s(variant) * more * (1.0 + weight * self._situation.fleet.start_s(variant))

    def _usd_per_s(self, variant: str) -> float:
        """A replica's share of a machine: what its rows cost while it is saturated."""
        offer = self._situation.fleet.catalog.offers[variant]
        return offer.usd_per_1k * offer.profile.saturation_qps / 1000.0


def loaded(situation: Situation, costs: Costs) -> Mapping[str, float]:
    """The variants that have replicas or are wanted, and what loads them, by name."""
    names = {*situation.fleet.variants(), *situation.traffic.wanted()} & situation.fleet.catalog.offers.keys()
    return {name: costs.load_qps(name) for name in sorted(names)}
