"""The planner strategy: the whole fleet as the solution of one integer program, made anew as demand moves.

Rules:
- Demand is expected per class of queries (`demand_classes`), up to the time in which a machine can come.
- A plan is asked for every `interval_s`, and at once when demand outgrows the plan, a class is new, or machines or the
  catalogue changed. It is made beside the control loop; until it comes, the last one is followed.
- Following: machines are asked for at once, and given back when they were too many for `release_s` and their boot.
  Replicas are started at once where there is room, and drained when they were too many for a while, new before old:
  not before those are ready that are planned to answer instead. Where there is no room for a planned one, one that is
  too many drains at once, first one whose queries others answer already.
- A load that a query asks for is started at once where nothing of its architecture is there, coming or planned; else
  the plan decides, which knows what all queries ask for.
- Replicas that are too many cost little while nobody needs their room: they stay for a while, against swapping.
- A plan that is far from proven the best (the solver had no time) is not followed if there is another.
- A class that fell silent is kept warm for as long as that is cheaper than letting its next query wait for a start.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infaas_ray.policy.demand_classes import DemandClasses, Demanded
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State, Worker
from infaas_ray.policy.messages import PlanMade
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.problem import Plan
from infaas_ray.policy.routing import Catalog
from infaas_ray.policy.scaling.room import make_room
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation

_SOONEST_S = 1.0  # between two plans
_OUTGROWN = 1.1  # times what was planned for
_OUTGROWN_QPS = 1.0  # and at least so much more
_LOST_S = 30.0  # after which a plan that did not come is not waited for
_REPLICA_HORIZON_S = 5.0  # to look ahead where no machine can be asked for
_LOOSE_GAP = 0.1  # a plan that may be dearer than the best by more than this share is not trusted
_SURPLUS_SHARE = 0.2  # of the time for which a plan is expected to hold, that surplus replicas stay
_KEEP_LEAST_S, _KEEP_MOST_S = 10.0, 3600.0

Spot = tuple[str, str]  # a variant on a worker type


@dataclass(frozen=True, slots=True)
class _Asked:
    number: int
    at: float
    demand: Mapping[str, float]
    wanted: Sequence[Wanted] = ()


class Planned:
    """Has plans made, and follows the last one."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._classes = DemandClasses(settings.planner.quantile)
        self._known = Known(Catalog(), {})
        self._asked = _Asked(0, -_LOST_S, {})
        self._waiting = False
        self._plan: Plan | None = None
        self.followed = 0  # the number of the plan that is followed; 0 where there is none
        self._planned: Mapping[str, float] = {}
        self._shape: object = None
        self._pending: dict[str, tuple[str, float]] = {}
        self._surplus_since: dict[Spot, float] = {}
        self._idle_since: dict[str, float] = {}
        self._booked: Mapping[str, int] | None = None
        self._unasked = 0
        self._able: dict[str, frozenset[str]] = {}  # by class of the plan, the variants that may answer it

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        fleet, now = situation.fleet, situation.now
        if self._known.catalog is not fleet.catalog:
            self._known = Known(fleet.catalog, fleet.targets)
        self._classes.take(situation.reports, now)
        self._note_machines(fleet)
        for made in situation.plans:
            self._take(made)
        self._answer(situation, orders)
        if self._plan is not None:
            self._follow(self._plan, situation, orders)
        self._ask(situation, orders)
        self._booked = fleet.counts()

    @property
    def wanted(self) -> Sequence[Wanted]:
        """What the last plan was asked for."""
        return self._asked.wanted

    # ---- plans

    def _take(self, made: PlanMade) -> None:
        if made.number != self._asked.number:
            return
        self._waiting = False
        if made.plan is not None and (self._plan is None or made.plan.gap <= _LOOSE_GAP):
            self._plan, self._planned = made.plan, self._asked.demand
            self.followed = made.number

    def _ask(self, situation: Situation, orders: Orders) -> None:
        fleet, now = situation.fleet, situation.now
        since = now - self._asked.at
        if since < _SOONEST_S or (self._waiting and since < _LOST_S):
            return
        shape = self._shape_of(fleet, now)
        because = self._why(since, shape)
        if because is None:
            return
        wanted = self._wanted(situation)
        problem = Builder(fleet, self._known, self._settings.planner, situation.pins, now).build(wanted)
        self._shape = shape
        self._asked = _Asked(self._asked.number + 1, now, {x.name: x.demand_qps for x in wanted}, wanted)
        names = [x.name for x in problem.variants]
        self._able = {x.name: frozenset(names[o.variant] for o in x.options) for x in problem.classes}
        self._waiting = True
        orders.plan(self._asked.number, problem, because)

    def _shape_of(self, fleet: Fleet, now: float) -> object:
        """What makes a plan stale at once when it changes; machines that were asked for and come were planned."""
        catalogued = fleet.counts()
        others = Counter(x.worker_type for x in fleet.workers.values() if x.worker_type not in catalogued)
        gone = tuple(sorted(x.name for x in fleet.workers.values() if x.leaving))
        failing = tuple(x for x in fleet.blocks.at(now) if fleet.blocks.failing(x, now))
        return fleet.catalog_changes, tuple(fleet.machines.blocks.at(now)), failing, gone, self._unasked, dict(others)

    def _note_machines(self, fleet: Fleet) -> None:
        """Count how often there were other machines, booting ones too, than after the last turn's orders."""
        counts = fleet.counts()
        if self._booked is not None and counts != self._booked:
            self._unasked += 1

    def _why(self, since: float, shape: object) -> str | None:
        if self._plan is None:
            return "there is no plan yet"
        if shape != self._shape:
            return "machines, variants or what can be had of them changed"
        for known in self._classes:
            name = _wanted_of(known, 0.0, 0.0).name
            planned = self._planned.get(name)
            rate = known.forecast.rate_qps
            if planned is None:
                return f"new: {name}"
            if rate > max(_OUTGROWN * planned, planned + _OUTGROWN_QPS):
                return f"{name}: {rate:.3g} rows/s, planned for {planned:.3g}"
        return f"the last is {since:.0f} s old" if since >= self._settings.planner.interval_s else None

    def _wanted(self, situation: Situation) -> list[Wanted]:
        """What to plan for, class by class; classes silent for too long are forgotten."""
        fleet, now, planner = situation.fleet, situation.now, self._settings.planner
        horizon_s = planner.interval_s + max(
            (fleet.machines.boot_s(x) for x in fleet.catalog.worker_types.values() if x.max_workers > x.min_workers),
            default=_REPLICA_HORIZON_S,
        )
        settled = self._settled(fleet)
        wanted = []
        for known in list(self._classes):
            silent_s = now - known.forecast.last_seen
            if known.key[0] not in fleet.targets or silent_s > self._keep_s(known, fleet):
                self._classes.drop(known.key)
                continue
            if settled:
                known.judge()
            else:
                known.forget()
            demand = known.forecast.expect(now, horizon_s)
            wanted.append(_wanted_of(known, demand, planner.head_room * known.room))
        return wanted

    def _settled(self, fleet: Fleet) -> bool:
        """Whether the fleet is as planned, so that what is missed is not for want of what is coming."""
        if self._plan is None:
            return False
        ready: Counter[Spot] = Counter()
        for replica in fleet.replicas.values():
            if replica.state is State.READY:
                ready[replica.variant, fleet.workers[replica.worker].worker_type] += 1
        return all(ready[spot] >= count for spot, count in _targets(self._plan).items())

    def _keep_s(self, known: Demanded, fleet: Fleet) -> float:
        """For how long a silent class is kept warm: what a wait for its start is worth over the price of keeping it."""
        able = [x for x in self._known.front(known.key[0]) if x.accuracy >= (known.key[2] or 0.0)]
        if not able:
            return 0.0
        offer = able[0]
        price_per_s = offer.usd_per_1k * offer.profile.saturation_qps / 1000
        worth = self._settings.planner.waiting_usd_per_s * fleet.start_s(offer.name)
        return min(_KEEP_MOST_S, max(_KEEP_LEAST_S, worth / price_per_s if price_per_s > 0 else _KEEP_MOST_S))

    # ---- loads that were asked for

    def _answer(self, situation: Situation, orders: Orders) -> None:
        fleet, now = situation.fleet, situation.now
        for variant, because in situation.requests.items():
            if self._plan is None or not self._served(variant, fleet):
                self._pending.setdefault(variant, (because, now + self._settings.request_ttl_s))
        for variant, (because, until) in list(self._pending.items()):
            if now >= until or variant not in fleet.catalog.offers:
                del self._pending[variant]
            elif not fleet.staying(variant, State.STARTING, State.READY):
                self._start(variant, because, None, situation, orders)

    def _served(self, variant: str, fleet: Fleet) -> bool:
        """Whether anything of the variant's architecture is there, coming or planned."""
        offers = fleet.catalog.offers
        architecture = offers[variant].variant.architecture
        planned = () if self._plan is None else self._plan.replicas
        return any(
            x in offers
            and offers[x].variant.architecture == architecture
            and (x in planned or fleet.staying(x, State.STARTING, State.READY))
            for x in {*planned, *fleet.variants()}
        )

    def _start(
        self, variant: str, because: str, worker_type: str | None, situation: Situation, orders: Orders
    ) -> str | None:
        """Start one replica; why there is no room, None where it starts (or is blocked)."""
        fleet, now = situation.fleet, situation.now
        if fleet.blocks.failing(variant, now):
            return None
        reason = orders.start(variant, because, worker_type)
        if (
            reason is not None
            and worker_type is None
            and not make_room(variant, situation, orders, self._settings.preempt_idle_s)
        ):
            fleet.blocks.add(variant, reason, now + self._settings.block_s)
        return reason

    # ---- following a plan

    def _follow(self, plan: Plan, situation: Situation, orders: Orders) -> None:
        fleet, targets = situation.fleet, _targets(plan)
        self._follow_machines(plan, situation, orders)
        by_spot, leaving = _spots(fleet)
        short = self._start_missing(targets, by_spot, situation, orders)
        unready = {
            variant
            for (variant, kind), count in targets.items()
            if sum(x.state is State.READY for x in by_spot.get((variant, kind), ())) < count
        }
        surplus = {spot: n for spot, have in by_spot.items() if (n := self._surplus(spot, have, targets, situation))}
        for spot, count in surplus.items():
            if spot[1] not in short:
                self._retire(spot, by_spot[spot], count, unready, situation, orders)
        for kind, starved in short.items():
            if leaving[kind] < starved.total():
                here = {spot: by_spot[spot] for spot in surplus if spot[1] == kind}
                self._evict(kind, here, starved, situation, orders)

    def _start_missing(
        self,
        targets: Mapping[Spot, int],
        by_spot: Mapping[Spot, Sequence[Replica]],
        situation: Situation,
        orders: Orders,
    ) -> dict[str, Counter[str]]:
        """Start what is planned and not there; what has no room: by worker type, how many of which variants."""
        short: dict[str, Counter[str]] = {}
        for (variant, kind), count in targets.items():
            if variant not in situation.fleet.catalog.offers:
                continue
            have = len(by_spot.get((variant, kind), ()))
            for at in range(have, count):
                because = f"planned: {count} on {kind}, there are {have}"
                if self._start(variant, because, kind, situation, orders) is not None:
                    short.setdefault(kind, Counter())[variant] = count - at
                    break
        return short

    def _surplus(self, spot: Spot, have: Sequence[Replica], targets: Mapping[Spot, int], situation: Situation) -> int:
        """By how many replicas a variant has too many on a worker type; notes since when."""
        variant = spot[0]
        asked_for = 1 if variant in self._pending else 0
        keep = max(targets.get(spot, 0), asked_for, situation.pins.get(variant, 0))
        if len(have) <= keep or variant not in situation.fleet.catalog.offers:
            self._surplus_since.pop(spot, None)
            return 0
        self._surplus_since.setdefault(spot, situation.now)
        return len(have) - keep

    def _retire(
        self, spot: Spot, have: list[Replica], count: int, unready: set[str], situation: Situation, orders: Orders
    ) -> None:
        """Drain replicas that were too many for long enough, once those that are to answer instead are ready."""
        fleet, now = situation.fleet, situation.now
        variant, kind = spot
        held_s = now - self._surplus_since[spot]
        stay_s = _SURPLUS_SHARE * self._settings.planner.hold_s
        if held_s < max(self._settings.downscale_delay_s, fleet.start_s(variant), stay_s):
            return
        if self._heirs(variant) & unready:
            return
        here = Counter(x.worker for x in have)
        ready = [x for x in have if x.state is State.READY]
        ready.sort(key=lambda x: (self._load(fleet.workers[x.worker]), -here[x.worker], x.id))
        for replica in ready[:count]:
            because = f"planned: {len(have) - count} on {kind}, there are {len(have)}, for {held_s:.0f} s"
            orders.drain(replica.id, because)
        del self._surplus_since[spot]

    def _heirs(self, variant: str) -> set[str]:
        """The variants that are planned to answer what this one can."""
        flows = () if self._plan is None else self._plan.flows
        return {x.variant for x in flows if variant in self._able.get(x.query_class, ())} - {variant}

    def _evict(
        self,
        kind: str,
        surplus: Mapping[Spot, Sequence[Replica]],
        starved: Mapping[str, int],
        situation: Situation,
        orders: Orders,
    ) -> None:
        """Drain one of the replicas that are too many on a worker type, as planned ones have no room there.

        The one by which the least demand is left without any replica. Where that is some: what is starting now is
        waited for, and machines that boot are, unless more demand waits for the room. Where nothing comes, planned and
        surplus ones wait for each other, and one must go.
        """
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
            gain = sum(x.rate_qps for x in self._plan.flows if x.variant in starved) if self._plan else 0.0
            if losses[victim.id] >= gain and any(fleet.machines.booting(x) for x in fleet.catalog.worker_types):
                return
        orders.drain(victim.id, f"planned: fewer on {kind}; others need its room")

    def _alone_qps(self, variant: str, ready: Counter[str]) -> float:
        """Demand that only one replica of this variant can answer now."""
        if ready[variant] > 1 or self._plan is None:
            return 0.0
        others = {x for x in ready if x != variant}
        return sum(
            x.rate_qps
            for x in self._plan.flows
            if variant in (able := self._able.get(x.query_class, frozenset())) and not able & others
        )

    def _load(self, worker: Worker) -> int:
        return len(worker.replicas)

    def _follow_machines(self, plan: Plan, situation: Situation, orders: Orders) -> None:
        fleet = situation.fleet
        have = fleet.counts()
        more = {name: count for name, count in plan.workers.items() if count > have.get(name, count)}
        if more:
            orders.workers(more, f"planned: {', '.join(f'{count} x {name}' for name, count in more.items())}")
        for name, here in have.items():
            wanted = plan.workers.get(name, 0)
            if wanted >= here:
                self._idle_since.pop(name, None)
                continue
            held_s = situation.now - self._idle_since.setdefault(name, situation.now)
            kind = fleet.catalog.worker_types[name]
            if held_s >= max(self._settings.planner.release_s, fleet.machines.boot_s(kind)):
                self._give_back(name, here - wanted, held_s, fleet, orders)

    def _give_back(self, name: str, count: int, held_s: float, fleet: Fleet, orders: Orders) -> None:
        """Release so many workers of a type: those on their way first, then the emptiest."""
        because = f"planned: {count} fewer of {name}, for {held_s:.0f} s"
        coming = min(count, fleet.machines.booting(name))
        if coming:
            orders.workers({name: fleet.counts()[name] - coming}, because)
        here = [x for x in fleet.workers.values() if x.worker_type == name and not x.leaving]
        for worker in sorted(here, key=lambda x: (self._load(x), -x.joined_at, x.name))[: count - coming]:
            orders.leave(worker.name, because)
        self._idle_since.pop(name, None)


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


def _targets(plan: Plan) -> dict[Spot, int]:
    return {
        (variant, kind): count
        for variant, places in plan.replicas.items()
        for kind, count in places.items()
        if count > 0
    }


def _wanted_of(known: Demanded, demand_qps: float, z: float) -> Wanted:
    target, latency_s, min_accuracy, max_usd = known.key
    return Wanted(
        target=target,
        latency_s=latency_s,
        min_accuracy=min_accuracy,
        max_usd_per_1k=max_usd,
        demand_qps=demand_qps,
        z=z,
    )
