"""The strategy of Proteus: on the machines that are there, accuracy gives way to load.

Rules: every `proteus.period_s`, and when machines or what is asked for change, the integer program of
`proteus_program` says which variants run where; replicas follow (`toward`). A family is a target that is asked for at
some least accuracy; its demand is what routers report, smoothed; a replica's rate is that at the largest batch whose
latency is below half of the family's latency objective. Variants that are not planned cannot be loaded. Proteus itself
has no machine scaling; here machines follow their use as Kubernetes would have it (`utilization`).
"""

from collections import Counter
from math import inf

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State, Worker
from infaas_ray.policy.scaling.capacity import rate_within
from infaas_ray.policy.scaling.fixed import BETWEEN_TURNS_S, only_until
from infaas_ray.policy.scaling.objectives import Family, Objectives
from infaas_ray.policy.scaling.proteus_program import Program, ProgramFamily, ProgramSpot, Solution, solve
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.slots import slots, units_of
from infaas_ray.policy.scaling.strategy import Orders, Situation
from infaas_ray.policy.scaling.toward import Spot, follow
from infaas_ray.policy.scaling.utilization import Utilization


class Proteus:
    """Plans accuracy for the machines that are there."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._machines = Utilization(settings.utilization)
        self._solution = Solution(replicas={}, beta=settings.proteus.head_room)
        self._shape: object = None
        self._next = -inf

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        fleet, now = situation.fleet, situation.now
        families = Objectives(situation).families()
        shape = _shape(fleet, families)
        if now >= self._next or shape != self._shape:
            self._next, self._shape = now + self._settings.proteus.period_s, shape
            self._plan(families, situation)
        desired = self._desired(situation)
        chosen = {variant for variant, _ in desired} | set(situation.pins)
        only_until(chosen, fleet, now + BETWEEN_TURNS_S, "it is not in the plan")
        follow(desired, situation, orders, f"the plan for {self._solution.beta:.2f} of the demand")
        if fleet.catalog.worker_types:
            excess = self._settings.proteus.head_room / self._solution.beta
            homeless = _homeless(families, situation)
            least = len(families) > 0 or bool(situation.pins)
            self._machines.decide(situation, orders, homeless, excess, int(least))

    def _desired(self, situation: Situation) -> dict[Spot, int]:
        """What is planned, and what is pinned beyond it, where it runs."""
        desired = dict(self._solution.replicas)
        planned = Counter[str]()
        for (variant, _), count in desired.items():
            planned[variant] += count
        for variant, count in situation.pins.items():
            kinds = [x.worker_type for x in _staying(situation.fleet) if slots(variant, x, situation.fleet)]
            if kinds and planned[variant] < count:
                spot = (variant, min(kinds))
                desired[spot] = desired.get(spot, 0) + count - planned[variant]
        return desired

    def _plan(self, families: list[Family], situation: Situation) -> None:
        """Solve the program; the last plan stays where there is no better one."""
        proteus = self._settings.proteus
        asked = [x for x in (_family(x, situation) for x in families) if x.rates_qps]
        spots = _spots({variant for x in asked for variant in x.rates_qps}, situation)
        able = {x.variant for x in spots}
        asked = [x for x in asked if x.demand_qps > 0 and able & x.rates_qps.keys()]
        if not asked:
            self._solution = Solution(replicas={}, beta=proteus.head_room)
            return
        program = Program(spots=spots, families=asked, has=_has(situation.fleet))
        found = solve(program, proteus.head_room, proteus.head_room_step, proteus.head_room_least)
        self._solution = found or Solution(replicas=self._solution.replicas, beta=proteus.head_room_least)


def _shape(fleet: Fleet, families: list[Family]) -> object:
    """What makes a plan stale at once when it changes."""
    here = Counter(x.worker_type for x in _staying(fleet))
    return fleet.catalog_changes, dict(here), tuple(x.name for x in families)


def _staying(fleet: Fleet) -> list[Worker]:
    return [x for x in fleet.workers.values() if not x.leaving]


def _family(family: Family, situation: Situation) -> ProgramFamily:
    offers, blocks = situation.fleet.catalog.offers, situation.fleet.blocks
    best = max(offers[x].accuracy for x in family.variants)
    rates = {x: rate_within(offers[x], family.latency_s / 2) for x in family.variants if not blocks.permanent(x)}
    return ProgramFamily(
        name=family.name,
        demand_qps=family.rate_qps,
        rates_qps={x: rate for x, rate in rates.items() if rate > 0},
        accuracies={x: offers[x].accuracy / best if best > 0 else 1.0 for x in family.variants},
    )


def _spots(variants: set[str], situation: Situation) -> list[ProgramSpot]:
    fleet = situation.fleet
    most: Counter[Spot] = Counter()
    for worker in _staying(fleet):
        for variant in sorted(variants):
            most[variant, worker.worker_type] += slots(variant, worker, fleet)
    now: Counter[Spot] = Counter()
    for replica in fleet.replicas.values():
        if replica.state in (State.STARTING, State.READY) and not fleet.workers[replica.worker].leaving:
            now[replica.variant, fleet.workers[replica.worker].worker_type] += 1
    return [
        ProgramSpot(
            variant=variant,
            kind=kind,
            keeps=_keeps(variant, kind, fleet),
            most=count,
            now=now[variant, kind],
        )
        for (variant, kind), count in most.items()
        if count > 0
    ]


def _keeps(variant: str, kind: str, fleet: Fleet) -> dict[str, float]:
    needs = fleet.needs(variant, kind)
    return {needs.resource: float(units_of(variant, fleet)), "memory": float(needs.memory_bytes)}


def _has(fleet: Fleet) -> dict[str, dict[str, float]]:
    """The resources of all workers of each type."""
    found: dict[str, Counter[str]] = {}
    for worker in _staying(fleet):
        amounts = Counter({x: int(amount) for x, amount in worker.resources.items()})
        found.setdefault(worker.worker_type, Counter()).update(amounts)
        found[worker.worker_type]["memory"] += worker.memory_bytes
    return {kind: {x: float(amount) for x, amount in amounts.items()} for kind, amounts in found.items()}


def _homeless(families: list[Family], situation: Situation) -> dict[str, int]:
    """For each family that no worker here can serve, its variant that costs least to run at all."""
    fleet = situation.fleet
    offers = fleet.catalog.offers
    found: dict[str, int] = {}
    for family in families:
        able = [x for x in family.variants if rate_within(offers[x], family.latency_s / 2) > 0]
        if able and not any(slots(x, worker, fleet) for worker in _staying(fleet) for x in able):
            found[min(able, key=lambda x: (offers[x].usd_per_1k, x))] = 1
    return found
