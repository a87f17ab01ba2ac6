"""Follows a plan: brings the fleet to where the plan has it, without leaving queries unanswered on the way.

Rules:
- Machines come and go as `planned_machines` says.
- Replicas are started at once where there is room, evenly on the machines; where they would share cores or a device
  while machines are on their way that are planned too, those are waited for, unless nothing of the variant is there.
- Replicas are drained when they were too many for a while, new before old: not before those are ready that are planned
  to answer instead.
- Where there is no room for a planned one, one that is too many drains at once, unless it became ready just now: the
  one by which the least demand is left without any replica. Where that is some, what is starting now is waited for,
  and machines that boot are, unless more demand waits for the room. Where nothing comes, planned and surplus ones wait
  for each other, and one must go.
- Where nothing is too many and all planned machines are there, what is free is there in pieces: others move (`moves`).
- Spare replicas are started last, one at a time, and make room for any other.
- Replicas that are too many cost little while nobody needs their room: they stay for a while, against swapping.
"""

from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence

from infaas_ray.domain import HardwareKind
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.planner.problem import Plan, Spot, counts_of
from infaas_ray.policy.scaling.moves import Moves
from infaas_ray.policy.scaling.planned_machines import (
    Able,
    PlannedMachines,
    heirs,
    missing_workers,
    unready,
)
from infaas_ray.policy.scaling.regret import Regret
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation

_SURPLUS_SHARE = 0.2  # of the time for which a plan is expected to hold, that surplus replicas stay
_FRESH_S = 1.0  # for which one that became ready keeps its room: those who waited for it are sent there first


class PlanFollower:
    """Remembers since when what was too many."""

    def __init__(self, settings: ScalingSettings, regret: Regret | None = None) -> None:
        self._settings = settings
        self._machines = PlannedMachines(settings, regret or Regret())
        self._surplus_since: dict[Spot, float] = {}
        self._plan = Plan()
        self._able: Able = {}
        self._asked_for: Collection[str] = ()
        self._moves = Moves()

    def follow(self, plan: Plan, able: Able, situation: Situation, orders: Orders, asked_for: Collection[str]) -> None:
        """Give the orders of this turn. `asked_for`: variants of which a query needs one, planned or not."""
        self._plan, self._able, self._asked_for = plan, able, asked_for
        fleet, targets, spare = situation.fleet, counts_of(plan.replicas), counts_of(plan.spare)
        all_of_it = Counter(targets) + Counter(spare)
        self._machines.follow(plan, able, situation, orders)
        self._moves.advance(situation, orders)
        by_spot, leaving = _spots(fleet)
        coming = missing_workers(plan, fleet)
        twice = self._moves.under_way(fleet)
        counts = {spot: len(have) - twice[spot] for spot, have in by_spot.items()}
        beyond = [spot for spot, have in counts.items() if have > self._needed(spot, targets, situation)]
        roomy = {x[1] for x in beyond if x in spare and not _on_gpu(x[0], fleet)}
        short = self._start_missing(targets, by_spot, coming, roomy, situation, orders)
        awaited = unready(plan, fleet)
        for spot, have in counts.items():
            count = self._surplus(spot, have, all_of_it, situation)
            if count and spot[1] not in short:
                self._retire(spot, by_spot[spot], count, awaited, situation, orders)
        if not short and not awaited and not coming:
            self._start_spare(spare, all_of_it, counts, situation, orders)
        for kind, starved in short.items():
            here = {spot: by_spot[spot] for spot in beyond if spot[1] == kind}
            if leaving[kind] < starved.total() and here:
                self._evict(kind, here, starved, situation, orders)
            elif not leaving[kind] and kind not in coming:
                for variant in starved:
                    self._moves.make_room(variant, kind, situation, orders)

    def _start_missing(
        self,
        targets: Mapping[Spot, int],
        by_spot: Mapping[Spot, Sequence[Replica]],
        coming: Container[str],
        roomy: Container[str],
        situation: Situation,
        orders: Orders,
    ) -> dict[str, Counter[str]]:
        """Start what is planned and not there; what has no room: by worker type, how many of which variants.

        On the worker types that are `roomy` others can go, so what would share cores has no room there.
        """
        fleet = situation.fleet
        short: dict[str, Counter[str]] = {}
        for (variant, kind), count in targets.items():
            if variant not in fleet.catalog.offers or fleet.blocks.failing(variant, situation.now):
                continue
            have = len(by_spot.get((variant, kind), ()))
            for at in range(have, count):
                because = f"planned: {count} on {kind}, there are {have}"
                placement = fleet.place(variant, kind, evenly=True)
                waits = placement.shares and fleet.staying(variant, State.STARTING, State.READY)
                if waits and kind in coming:
                    break
                if (waits and kind in roomy) or orders.start_placed(placement, variant, because) is not None:
                    short.setdefault(kind, Counter())[variant] = count - at
                    break
        return short

    def _start_spare(
        self,
        spare: Mapping[Spot, int],
        wanted: Mapping[Spot, int],
        counts: Mapping[Spot, int],
        situation: Situation,
        orders: Orders,
    ) -> None:
        """Start one spare replica, while nothing else starts or waits for room.

        It may share a GPU with others, and cores with nobody.
        """
        fleet = situation.fleet
        waiting = any(not fleet.staying(x, State.STARTING, State.READY) for x in self._asked_for)
        if waiting or any(x.state is State.STARTING for x in fleet.replicas.values()):
            return
        for (variant, kind), count in spare.items():
            missing = counts.get((variant, kind), 0) < wanted[variant, kind]
            if not missing or variant not in fleet.catalog.offers or fleet.blocks.failing(variant, situation.now):
                continue
            placement = fleet.place(variant, kind, evenly=True)
            because = f"{kind} has room for {count} more"
            in_the_way = placement.with_own if _on_gpu(variant, fleet) else placement.shares
            if not in_the_way and orders.start_placed(placement, variant, because) is None:
                return

    def _needed(self, spot: Spot, targets: Mapping[Spot, int], situation: Situation) -> int:
        """How many replicas of a variant must stay on a worker type."""
        variant = spot[0]
        asked_for = 1 if variant in self._asked_for else 0
        return max(targets.get(spot, 0), asked_for, situation.pins.get(variant, 0))

    def _surplus(self, spot: Spot, have: int, targets: Mapping[Spot, int], situation: Situation) -> int:
        """By how many replicas a variant has too many on a worker type; notes since when."""
        keep = self._needed(spot, targets, situation)
        if have <= keep or spot[0] not in situation.fleet.catalog.offers:
            self._surplus_since.pop(spot, None)
            return 0
        self._surplus_since.setdefault(spot, situation.now)
        return have - keep

    def _retire(
        self, spot: Spot, have: list[Replica], count: int, awaited: set[str], situation: Situation, orders: Orders
    ) -> None:
        """Drain replicas that were too many for long enough, once those that are to answer instead are ready."""
        fleet, now = situation.fleet, situation.now
        variant, kind = spot
        held_s = now - self._surplus_since[spot]
        stay_s = _SURPLUS_SHARE * self._settings.planner.hold_s
        if held_s < max(self._settings.downscale_delay_s, fleet.start_s(variant), stay_s):
            return
        if heirs(variant, self._plan, self._able) & awaited:
            return
        here = Counter(x.worker for x in have)
        ready = [x for x in have if x.state is State.READY]
        ready.sort(key=lambda x: (len(fleet.workers[x.worker].replicas), -here[x.worker], x.id))
        for replica in ready[:count]:
            because = f"planned: {len(have) - count} on {kind}, there are {len(have)}, for {held_s:.0f} s"
            orders.drain(replica.id, because)
        del self._surplus_since[spot]

    def _evict(
        self,
        kind: str,
        surplus: Mapping[Spot, Sequence[Replica]],
        starved: Mapping[str, int],
        situation: Situation,
        orders: Orders,
    ) -> None:
        """Drain one of the replicas that are too many on a worker type, as planned ones have no room there."""
        fleet, since = situation.fleet, situation.now - _FRESH_S
        ready = Counter(x.variant for x in fleet.replicas.values() if x.state is State.READY)
        newest = (have[-1] for have in surplus.values())
        able = [x for x in newest if x.state is State.READY and x.since <= since]
        if not able:
            return
        losses = {x.id: self._alone_qps(x.variant, ready) for x in able}
        victim = min(able, key=lambda x: (losses[x.id], kind not in self._plan.spare.get(x.variant, ()), x.id))
        if losses[victim.id] > 0:
            if any(x.state is State.STARTING for x in fleet.replicas.values()):
                return
            gain = sum(x.rate_qps for x in self._plan.flows if x.variant in starved)
            if losses[victim.id] >= gain and any(fleet.machines.booting(x) for x in fleet.catalog.worker_types):
                return
        orders.drain(victim.id, f"planned: fewer on {kind}; others need its room")

    def _alone_qps(self, variant: str, ready: Counter[str]) -> float:
        """Demand that only one replica of this variant can answer now."""
        if ready[variant] > 1:
            return 0.0
        others = {x for x in ready if x != variant}
        return sum(
            x.rate_qps
            for x in self._plan.flows
            if variant in (able := self._able.get(x.query_class, frozenset())) and not able & others
        )


def spare_there(plan: Plan, fleet: Fleet) -> dict[Spot, int]:
    """How many replicas are there that a plan has as spare ones."""
    planned, spare = counts_of(plan.replicas), counts_of(plan.spare)
    return {
        spot: min(spare[spot], len(have) - planned.get(spot, 0))
        for spot, have in _spots(fleet)[0].items()
        if spot in spare and len(have) > planned.get(spot, 0)
    }


def _on_gpu(variant: str, fleet: Fleet) -> bool:
    """Whether a variant computes on GPUs, which are shared anyway."""
    offer = fleet.catalog.offers.get(variant)
    return offer is not None and offer.variant.hardware is HardwareKind.GPU


def _spots(fleet: Fleet) -> tuple[dict[Spot, list[Replica]], Counter[str]]:
    """The replicas that stay, by variant and worker type; how many leave, by worker type."""
    by_spot: dict[Spot, list[Replica]] = {}
    leaving: Counter[str] = Counter()
    for replica in fleet.replicas.values():
        worker = fleet.workers[replica.worker]
        if worker.leaving:
            continue
        if replica.state in (State.STARTING, State.READY):
            by_spot.setdefault((replica.variant, worker.worker_type), []).append(replica)
        else:
            leaving[worker.worker_type] += 1
    return by_spot, leaving
