"""From a situation to a problem: which variants may answer which classes, what they carry, and what changes cost.

Rules: variants that another of the same target beats in everything are left out. A worker type of the catalogue can be
asked for; workers of other types are there, cost nothing more, and stay. A machine on its way costs its boot and a
replica its load, spread over `hold_s`, the time for which a plan is expected to hold. Refusing a class costs
`refusal_factor` times what serving it would. A class that accepts less accuracy, or to be late, may be answered by the
variants that cannot do better, at a price between the two. Beside the machines every row costs a small share of its
price on offer, so that on machines that are paid anyway the cheaper variant wins too.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, floor, inf
from operator import attrgetter

import msgspec

from infaas_ray.domain import OnMiss
from infaas_ray.policy.demand import LATENCY_STEP
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import ClassCount
from infaas_ray.policy.planner.capacity import Capacity, Carried, undominated
from infaas_ray.policy.planner.problem import (
    ENOUGH_USD,
    PlanClass,
    PlanOption,
    PlanPlace,
    PlanProblem,
    PlanType,
    PlanVariant,
)
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.policy.scaling.settings import PlannerSettings

_MEMORY = "memory"
_WEAR = 0.05  # of a row's price on offer, that counts even where the machine is paid anyway
_START = 1e-6  # usd/h of each start beside its machine, so that none is free where the machine is
_COLD_QPS = 1e-3  # of a class that is kept warm without demand

_ELSE = {OnMiss.REJECT: "", OnMiss.DEGRADE: "else degraded", OnMiss.LATE: "else late"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A class of queries and what is expected of it: `demand_qps` rows a second, with head room factor `z`.

    Its queries have `rows_each` rows on average, and `size` at most.
    """

    target: str
    latency_s: float | None
    min_accuracy: float | None
    max_usd_per_1k: float | None
    demand_qps: float
    z: float
    on_miss: OnMiss = OnMiss.REJECT
    size: int = 1
    rows_each: float = 1.0

    @property
    def name(self) -> str:
        """The class in words, by which a plan names it."""
        bounds = [
            f"{self.size} rows" if self.size > 1 else "",
            "" if self.latency_s is None else f"within {self.latency_s * 1e3:.4g} ms",
            "" if self.min_accuracy is None else f"accuracy {self.min_accuracy:g}",
            "" if self.max_usd_per_1k is None else f"at most {self.max_usd_per_1k:.9g} USD per 1,000",
            _ELSE[self.on_miss],
        ]
        return ", ".join([self.target, *(x for x in bounds if x)])


@dataclass(frozen=True, slots=True)
class _Option:
    """A variant (its index) that may answer a class. `shortfall`: how far from its SLO, 0 to 1; None where it meets it.

    That is the share of the asked accuracy that is missing, or of the least latency that is beyond the bound.
    """

    offer: Offer
    variant: int
    carried: Carried
    shortfall: float | None


@dataclass(slots=True)
class Known:
    """What depends on the catalogue alone, kept from plan to plan."""

    catalog: Catalog
    targets: Mapping[str, tuple[str, ...]]
    fronts: dict[str, list[Offer]] = field(default_factory=dict)
    levels: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    capacities: dict[tuple[str, int], Capacity] = field(default_factory=dict)

    def front(self, target: str) -> list[Offer]:
        """The offers behind a target that are worth planning with, cheapest first."""
        known = self.fronts.get(target)
        if known is None:
            known = self.fronts[target] = self.front_without(target, ())
        return known

    def bounds(self, count: ClassCount) -> ClassCount:
        """The same with bounds on accuracy and price that admit the same variants: those of a variant."""
        if count.min_accuracy is None and count.max_usd_per_1k is None:
            return count
        target = count.target
        known = self.levels.get(target)
        if known is None:
            offers = [self.catalog.offers[x] for x in self.targets.get(target, ())]
            least = sorted({_six_digits(x.accuracy) for x in offers})
            known = self.levels[target] = [*least, 1.0], [0.0, *sorted({x.usd_per_1k for x in offers})]
        accuracies, prices = known
        accuracy, usd = count.min_accuracy, count.max_usd_per_1k
        if accuracy is not None:
            accuracy = accuracies[min(bisect_left(accuracies, _six_digits(accuracy)), len(accuracies) - 1)]
        if usd is not None:
            usd = prices[bisect_right(prices, usd) - 1]
        return msgspec.structs.replace(count, min_accuracy=accuracy, max_usd_per_1k=usd)

    def front_without(self, target: str, lost: Sequence[Offer]) -> list[Offer]:
        """The same, if there were none of these."""
        names = {x.name for x in lost}
        offers = [self.catalog.offers[x] for x in self.targets.get(target, ()) if x not in names]
        return sorted(undominated(offers), key=attrgetter("usd_per_1k", "name"))

    def capacity(self, offer: Offer, rows_each: float) -> Capacity:
        """The capacity of a variant for queries of so many rows, to the next whole one."""
        key = offer.name, ceil(rows_each)
        known = self.capacities.get(key)
        if known is None:
            known = self.capacities[key] = Capacity(offer, key[1])
        return known


class Builder:
    """Makes one problem. `pins`: replicas of a variant that are always to be there."""

    def __init__(self, fleet: Fleet, known: Known, settings: PlannerSettings, pins: Mapping[str, int], now: float):
        self._fleet = fleet
        self._known = known
        self._settings = settings
        self._pins = pins
        self._now = now
        self._types = self._worker_types()
        self._have = self._replicas()
        self._indexes: dict[str, int] = {}
        self._variants: list[PlanVariant] = []

    def build(
        self,
        wanted: Sequence[Wanted],
        saved_usd: float = ENOUGH_USD,
        regret_usd: Mapping[str, float] | None = None,
    ) -> PlanProblem:
        """The problem of serving what is wanted; classes that no variant can serve are left out.

        `saved_usd`: what may be spent on swaps that only save money (`patience`), `regret_usd`: what it may cost to
        give back a worker, by type (`regret`).
        """
        for variant in self._pins:
            self._index(self._known.catalog.offers[variant])
        classes = [found for x in wanted if (found := self._class(x)) is not None]
        return PlanProblem(
            types=tuple(replace(x, regret_usd=(regret_usd or {}).get(x.name, 0.0)) for x in self._types),
            variants=tuple(self._variants),
            classes=tuple(classes),
            utilization=self._settings.utilization,
            saved_usd=saved_usd,
        )

    # ---- machines

    def _worker_types(self) -> list[PlanType]:
        fleet, hold_s = self._fleet, self._settings.hold_s
        counts = fleet.counts()
        found = []
        for name, known in fleet.catalog.worker_types.items():
            boot_s = fleet.machines.boot_s(known)
            blocked = fleet.machines.blocks.reason(name, self._now) is not None
            found.append(
                PlanType(
                    name=name,
                    resources={**known.resources, _MEMORY: float(known.memory_bytes)},
                    usd_per_hour=known.usd_per_hour,
                    now=counts[name],
                    least=min(known.min_workers, counts[name]) if blocked else known.min_workers,
                    most=counts[name] if blocked else known.max_workers,
                    boot_usd_per_hour=known.usd_per_hour * boot_s / hold_s,
                    risk_usd_per_hour=known.usd_per_hour * (self._settings.spot_factor - 1.0) if known.spot else 0.0,
                    boot_usd=known.usd_per_hour * boot_s / 3600,
                )
            )
        others: dict[str, list[Mapping[str, float]]] = {}
        for worker in fleet.workers.values():
            if worker.worker_type not in counts and not worker.leaving:
                resources = {**worker.resources, _MEMORY: float(worker.memory_bytes)}
                others.setdefault(worker.worker_type, []).append(resources)
        for name, rows in others.items():
            least = {key: min(x.get(key, 0.0) for x in rows) for key in rows[0]}
            number = len(rows)
            found.append(PlanType(name=name, resources=least, usd_per_hour=0.0, now=number, least=number, most=number))
        return found

    # ---- variants

    def _replicas(self) -> Counter[tuple[str, str]]:
        """The replicas that stay, by variant and worker type."""
        have: Counter[tuple[str, str]] = Counter()
        for replica in self._fleet.replicas.values():
            worker = self._fleet.workers[replica.worker]
            if replica.state in (State.STARTING, State.READY) and not worker.leaving:
                have[replica.variant, worker.worker_type] += 1
        return have

    def _index(self, offer: Offer) -> int | None:
        """The index of a variant in the problem; None where no worker type can run it."""
        known = self._indexes.get(offer.name)
        if known is None:
            places = self._places(offer)
            if not places:
                return None
            known = self._indexes[offer.name] = len(self._variants)
            self._variants.append(PlanVariant(name=offer.name, places=places, least=self._pins.get(offer.name, 0)))
        return known

    def _places(self, offer: Offer) -> tuple[PlanPlace, ...]:
        fleet, profile = self._fleet, offer.profile
        blocked = fleet.blocks.failing(offer.name, self._now)
        start_s = fleet.start_s(offer.name)
        places = []
        for number, kind in enumerate(self._types):
            if not fleet.runs_on(offer.name, kind.name, kind.resources):
                continue
            here = self._have[offer.name, kind.name]
            if blocked and not here:
                continue
            needs = fleet.needs(offer.name, kind.name)
            total = kind.resources[needs.resource]
            if needs.amount > total or needs.memory_bytes > kind.resources[_MEMORY]:
                continue
            works = float(needs.threads) if needs.resource != "GPU" else 1.0
            share = max(needs.amount / total, needs.memory_bytes / kind.resources[_MEMORY])
            start = kind.usd_per_hour * share * start_s / self._settings.hold_s + _START
            places.append(
                PlanPlace(
                    worker_type=number,
                    holds={needs.resource: needs.amount, _MEMORY: float(profile.peak_memory_bytes)},
                    works={needs.resource: works},
                    now=here,
                    start_usd_per_hour=start,
                )
            )
        return tuple(places)

    # ---- classes

    def _class(self, wanted: Wanted) -> PlanClass | None:
        options = self._options(wanted) or self._options(self._at_most(wanted))
        if not options:
            return None
        serving = self._serving(wanted, [x for x in options if x.shortfall is None] or options)
        return PlanClass(
            name=wanted.name,
            demand_qps=max(_COLD_QPS, wanted.demand_qps),
            options=tuple(
                PlanOption(
                    variant=x.variant,
                    rate_qps=x.carried.rate_qps,
                    busy_s=x.carried.busy_s,
                    penalty_usd_per_1k=_WEAR * x.offer.usd_per_1k + serving * self._miss_factor(wanted, x),
                    beyond_slo=x.shortfall is not None,
                )
                for x in options
            ),
            refusal_usd_per_1k=serving * self._settings.refusal_factor,
            missed_usd_per_1k=max(x.offer.usd_per_1k for x in options) * self._settings.refusal_factor,
        )

    def _options(self, wanted: Wanted) -> list[_Option]:
        found = []
        for offer in self._front(wanted.target):
            allowed = self._allowed(wanted, offer)
            index = self._index(offer) if allowed is not None else None
            if allowed is not None and index is not None:
                bound_s, shortfall = allowed
                servers = self._servers(self._variants[index].places)
                carried = self._known.capacity(offer, wanted.rows_each).carried(
                    bound_s, wanted.demand_qps, wanted.z, servers
                )
                if carried is not None:
                    found.append(_Option(offer, index, carried, shortfall))
        return found

    def _at_most(self, wanted: Wanted) -> Wanted:
        """The class with the bound that its loosest queries have: what only some of them can be met by is there too."""
        if wanted.latency_s is None:
            return wanted
        return replace(wanted, latency_s=wanted.latency_s * LATENCY_STEP + self._settings.overhead_s)

    def _front(self, target: str) -> list[Offer]:
        """The offers that are worth planning with; what cannot be started, and is not there, hides no other."""
        known, fleet = self._known, self._fleet
        front = known.front(target)
        lost = [x for x in front if fleet.blocks.failing(x.name, self._now) and not fleet.of(x.name, *State)]
        return known.front_without(target, lost) if lost else front

    def _allowed(self, wanted: Wanted, offer: Offer) -> tuple[float, float | None] | None:
        """Within which latency an offer may answer a class, and how far that is from its SLO; None where it may not."""
        bound_s = inf if wanted.latency_s is None else wanted.latency_s - self._settings.overhead_s
        least_s = self._known.capacity(offer, wanted.rows_each).least_s
        dear = wanted.max_usd_per_1k is not None and offer.usd_per_1k > wanted.max_usd_per_1k
        poor = wanted.min_accuracy is not None and offer.accuracy < wanted.min_accuracy
        match dear, poor, least_s >= bound_s:
            case False, False, False:
                return bound_s, None
            case False, True, False if wanted.on_miss is OnMiss.DEGRADE:
                return bound_s, 1.0 - offer.accuracy / (wanted.min_accuracy or 1.0)
            case False, False, True if wanted.on_miss is OnMiss.LATE:
                return inf, 1.0 - max(0.0, bound_s) / least_s
        return None

    def _servers(self, places: Sequence[PlanPlace]) -> float:
        """How many replicas of a variant compute at a time on a machine, the fewest; infinite where they share none."""
        shared = [
            self._types[place.worker_type].resources[name] / amount
            for place in places
            for name, amount in place.works.items()
            if place.holds[name] < amount
        ]
        return min(shared, default=inf)

    def _miss_factor(self, wanted: Wanted, option: _Option) -> float:
        """What an answer beyond the SLO costs, as a multiple of serving: from its own factor to that of refusing."""
        if option.shortfall is None:
            return 0.0
        settings = self._settings
        own = settings.degrade_factor if wanted.on_miss is OnMiss.DEGRADE else settings.late_factor
        least = min(own, settings.refusal_factor)
        return least + (settings.refusal_factor - least) * option.shortfall

    def _serving(self, wanted: Wanted, options: Sequence[_Option]) -> float:
        """What serving 1,000 rows costs, be it by a machine of their own."""
        demand = max(_COLD_QPS, wanted.demand_qps)
        dearest = max(x.offer.usd_per_1k for x in options)
        alone = [
            self._types[place.worker_type].usd_per_hour * max(1.0, demand / x.carried.rate_qps) / (3.6 * demand)
            for x in options
            for place in self._variants[x.variant].places
        ]
        return max(dearest, min(alone, default=0.0))


def _six_digits(accuracy: float) -> float:
    return floor(accuracy * 1e6 + 1e-6) / 1e6
