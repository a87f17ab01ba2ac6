"""Follows a plan: brings the fleet to where the plan has it, without leaving queries unanswered on the way.

Rules:
- Machines are asked for at once, and given back when they were too many for `release_s` and their boot; not before
  those are ready that are planned to answer instead of their replicas (for `_SUCCESSION_S` at most).
- Replicas are started at once where there is room, evenly on the machines; where they would share cores or a device
  while machines are on their way that are planned too, those are waited for, unless nothing of the variant is there.
- Replicas are drained when they were too many for a while, new before old: not before those are ready that are planned
  to answer instead.
- Where there is no room for a planned one, one that is too many drains at once: the one by which the least demand is
  left without any replica. Where that is some, what is starting now is waited for, and machines that boot are, unless
  more demand waits for the room. Where nothing comes, planned and surplus ones wait for each other, and one must go.
- Where nothing is too many and all planned machines are there, what is free is there in pieces: others move (`moves`).
- Replicas that are too many cost little while nobody needs their room: they stay for a while, against swapping.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State, Worker
from infaas_ray.policy.planner.problem import Plan
from infaas_ray.policy.scaling.moves import Moves
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation

_SUCCESSION_S = 120.0  # a start that takes longer has failed
_SURPLUS_SHARE = 0.2  # of the time for which a plan is expected to hold, that surplus replicas stay

Spot = tuple[str, str]  # a variant on a worker type
Able = Mapping[str, frozenset[str]]  # by class of queries, the variants that may answer it


class PlanFollower:
    """Remembers since when what was too many."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._surplus_since: dict[Spot, float] = {}
        self._idle: dict[str, tuple[float, int]] = {}  # since when machines were too many, and how many at least
        self._plan = Plan()
        self._able: Able = {}
        self._asked_for: Container[str] = ()
        self._moves = Moves()

    def follow(self, plan: Plan, able: Able, situation: Situation, orders: Orders, asked_for: Container[str]) -> None:
        """Give the orders of this turn. `asked_for`: variants of which a query needs one, planned or not."""
        self._plan, self._able, self._asked_for = plan, able, asked_for
        fleet, targets = situation.fleet, targets_of(plan)
        self._follow_machines(plan, situation, orders)
        self._moves.advance(situation, orders)
        by_spot, leaving = _spots(fleet)
        coming = _coming(plan, fleet)
        short = self._start_missing(targets, by_spot, coming, situation, orders)
        awaited, twice = unready(plan, fleet), self._moves.under_way(fleet)
        counts = {spot: len(have) - twice[spot] for spot, have in by_spot.items()}
        surplus = {spot: n for spot, have in counts.items() if (n := self._surplus(spot, have, targets, situation))}
        for spot, count in surplus.items():
            if spot[1] not in short:
                self._retire(spot, by_spot[spot], count, awaited, situation, orders)
        for kind, starved in short.items():
            here = {spot: by_spot[spot] for spot in surplus if spot[1] == kind}
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
        situation: Situation,
        orders: Orders,
    ) -> dict[str, Counter[str]]:
        """Start what is planned and not there; what has no room: by worker type, how many of which variants."""
        fleet = situation.fleet
        short: dict[str, Counter[str]] = {}
        for (variant, kind), count in targets.items():
            if variant not in fleet.catalog.offers or fleet.blocks.failing(variant, situation.now):
                continue
            have = len(by_spot.get((variant, kind), ()))
            for at in range(have, count):
                because = f"planned: {count} on {kind}, there are {have}"
                placement = fleet.place(variant, kind, evenly=True)
                if placement.shares and kind in coming and fleet.staying(variant, State.STARTING, State.READY):
                    break
                if orders.start_placed(placement, variant, because) is not None:
                    short.setdefault(kind, Counter())[variant] = count - at
                    break
        return short

    def _surplus(self, spot: Spot, have: int, targets: Mapping[Spot, int], situation: Situation) -> int:
        """By how many replicas a variant has too many on a worker type; notes since when."""
        variant = spot[0]
        needed = 1 if variant in self._asked_for else 0
        keep = max(targets.get(spot, 0), needed, situation.pins.get(variant, 0))
        if have <= keep or variant not in situation.fleet.catalog.offers:
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
        if self._heirs(variant) & awaited:
            return
        here = Counter(x.worker for x in have)
        ready = [x for x in have if x.state is State.READY]
        ready.sort(key=lambda x: (len(fleet.workers[x.worker].replicas), -here[x.worker], x.id))
        for replica in ready[:count]:
            because = f"planned: {len(have) - count} on {kind}, there are {len(have)}, for {held_s:.0f} s"
            orders.drain(replica.id, because)
        del self._surplus_since[spot]

    def _heirs(self, variant: str) -> set[str]:
        """The variants that are planned to answer what this one can."""
        return {x.variant for x in self._plan.flows if variant in self._able.get(x.query_class, ())} - {variant}

    def _evict(
        self,
        kind: str,
        surplus: Mapping[Spot, Sequence[Replica]],
        starved: Mapping[str, int],
        situation: Situation,
        orders: Orders,
    ) -> None:
        """Drain one of the replicas that are too many on a worker type, as planned ones have no room there."""
        fleet = situation.fleet
        ready = Counter(x.variant for x in fleet.replicas.values() if x.state is State.READY)
        able = [x for have in surplus.values() for x in list(have)[-1:] if x.state is State.READY]
        if not able:
            return
        losses = {x.id: self._alone_qps(x.variant, ready) for x in able}
        victim = min(able, key=lambda x: (losses[x.id], x.id))
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

    def _follow_machines(self, plan: Plan, situation: Situation, orders: Orders) -> None:
        fleet = situation.fleet
        have = fleet.counts()
        more = {name: count for name, count in plan.workers.items() if count > have.get(name, count)}
        if more:
            orders.workers(more, f"planned: {', '.join(f'{count} x {name}' for name, count in more.items())}")
        for name, here in have.items():
            wanted = plan.workers.get(name, 0)
            if wanted >= here:
                self._idle.pop(name, None)
                continue
            since, least = self._idle.get(name, (situation.now, here - wanted))
            least = min(least, here - wanted)
            self._idle[name] = since, least
            held_s = situation.now - since
            kind = fleet.catalog.worker_types[name]
            least_s = max(self._settings.planner.release_s, fleet.machines.boot_s(kind))
            if held_s >= least_s:
                awaited = unready(plan, fleet) if held_s < least_s + _SUCCESSION_S else set()
                self._give_back(name, least, held_s, awaited, fleet, orders)

    def _give_back(self, name: str, count: int, held_s: float, awaited: set[str], fleet: Fleet, orders: Orders) -> None:
        """Release so many workers of a type: those on their way first, then the emptiest.

        Those whose replicas answer for `awaited` variants stay.
        """
        because = f"planned: {count} fewer of {name}, for {held_s:.0f} s"
        coming = min(count, fleet.machines.booting(name))
        if coming:
            orders.workers({name: fleet.counts()[name] - coming}, because)
        here = [x for x in fleet.workers.values() if x.worker_type == name and not x.leaving]
        free = [x for x in here if not awaited or not any(self._heirs(v) & awaited for v in _serving(x))]
        going = sorted(free, key=lambda x: (len(x.replicas), -x.joined_at, x.name))[: count - coming]
        for worker in going:
            orders.leave(worker.name, because)
        if len(going) == count - coming:
            self._idle.pop(name, None)


def unready(plan: Plan, fleet: Fleet) -> set[str]:
    """The variants of which not all planned replicas are ready, without those on workers that leave."""
    kinds = {name: x.worker_type for name, x in fleet.workers.items() if not x.leaving}
    replicas = (x for x in fleet.replicas.values() if x.state is State.READY and x.worker in kinds)
    ready = Counter((x.variant, kinds[x.worker]) for x in replicas)
    return {spot[0] for spot, count in targets_of(plan).items() if ready[spot] < count}


def _coming(plan: Plan, fleet: Fleet) -> set[str]:
    """The worker types of which more are planned than are there."""
    there = Counter(x.worker_type for x in fleet.workers.values() if not x.leaving)
    return {name for name, count in plan.workers.items() if count > there[name]}


def _serving(worker: Worker) -> set[str]:
    return {x.variant for x in worker.replicas.values() if x.state is State.READY}


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


def targets_of(plan: Plan) -> dict[Spot, int]:
    """How many replicas of which variant a plan has on which worker type."""
    return {
        (variant, kind): count
        for variant, places in plan.replicas.items()
        for kind, count in places.items()
        if count > 0
    }
