"""The planner strategy: the whole fleet as the solution of one integer program, made anew as demand moves.

Rules:
- Demand is expected per class of queries (`demand_classes`), up to the time in which a machine can come.
- A plan is asked for every `interval_s`, and at once when demand outgrows the plan, a class is new, or machines or the
  catalogue changed. It is made beside the control loop; until it comes, the last one is followed.
- It is followed as `plan_follower` says.
- A load that a query asks for is started at once where nothing of its architecture is there, coming or planned, and no
  class of queries that it could answer is; else the plan decides, which knows what all queries ask for, also of those
  that it refuses.
- Machines that would only save money are waited for as `patience` says; those that are too many are kept for what had
  to be missed while they came (`regret`).
- A plan that is far from proven the best (the solver had no time) is not followed if there is another that is not old.
- A class that fell silent, longer than chance has it, is kept warm for as long as that is cheaper than letting its next
  query wait for a start.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

from infaas_ray.domain import OnMiss
from infaas_ray.policy.demand_classes import DemandClasses, Demanded
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.messages import PlanMade
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.problem import Plan
from infaas_ray.policy.routing import Catalog
from infaas_ray.policy.scaling.patience import Patience
from infaas_ray.policy.scaling.plan_follower import PlanFollower, spare_there
from infaas_ray.policy.scaling.planned_machines import Able, missing_workers, unready
from infaas_ray.policy.scaling.regret import Regret
from infaas_ray.policy.scaling.room import make_room
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation

_SOONEST_S = 0.5  # between two plans
_OUTGROWN = 1.1  # times what was planned for
_OUTGROWN_QPS = 1.0  # and at least so much more
_LOST_S = 30.0  # after which a plan that did not come is not waited for
_REPLICA_HORIZON_S = 5.0  # to look ahead where no machine can be asked for
_LOOSE_GAP = 0.1  # a plan that may be dearer than the best by more than this share is not trusted
_LOOSE_AFTER_S = 60.0  # but it is better than what was planned so long ago
_LOOSE_USD_PER_HOUR = 0.01  # and by more than this: where machines cost nothing, shares say nothing
_EXPECTED_S = 60.0  # a class of which a query is expected within this time did not fall silent: it may be chance
_KEEP_LEAST_S, _KEEP_MOST_S = 10.0, 3600.0


@dataclass(frozen=True, slots=True)
class _Asked:
    number: int
    at: float
    demand: Mapping[str, float]
    wanted: Sequence[Wanted] = ()
    able: Able = field(default_factory=dict)
    missed_usd_per_1k: Mapping[str, float] = field(default_factory=dict)


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
        self._planned_at = 0.0
        self._patience = Patience()
        self._regret = Regret()
        self._planned: Mapping[str, float] = {}
        self._shape: object = None
        self._pending: dict[str, tuple[str, float]] = {}
        self._follower = PlanFollower(settings, self._regret)
        self._booked: Mapping[str, int] | None = None
        self._unasked = 0
        self._able: Able = {}  # of the plan that is followed

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        fleet, now = situation.fleet, situation.now
        if self._known.catalog is not fleet.catalog:
            self._known = Known(fleet.catalog, fleet.targets)
        self._classes.take(situation.reports, now, self._known.bounds)
        self._note_machines(fleet)
        for made in situation.plans:
            self._take(made, fleet, now)
        self._answer(situation, orders)
        if self._plan is not None:
            self._note_missed(self._plan, fleet, now)
            self._follower.follow(self._plan, self._able, situation, orders, self._pending)
        self._ask(situation, orders)
        self._booked = fleet.counts()

    @property
    def wanted(self) -> Sequence[Wanted]:
        """What the last plan was asked for."""
        return self._asked.wanted

    @property
    def saved_usd(self) -> float:
        """What may be spent on boots that only save money."""
        return self._patience.saved_usd

    def _note_missed(self, plan: Plan, fleet: Fleet, now: float) -> None:
        """Note what is missed for want of machines."""
        missed = {_wanted_of(x, 0.0, 0.0).name: rows for x in self._classes if (rows := x.take_missed_rows())}
        self._regret.note(missing_workers(plan, fleet), missed, self._asked.missed_usd_per_1k, now)

    # ---- plans

    def _take(self, made: PlanMade, fleet: Fleet, now: float) -> None:
        if made.number != self._asked.number:
            return
        self._waiting = False
        old = self._plan is None or now - self._planned_at > _LOOSE_AFTER_S
        if made.plan is not None and (old or _trusted(made.plan)):
            self._plan, self._planned, self._able = made.plan, self._asked.demand, self._asked.able
            self._planned_at = now
            self.followed = made.number
            self._patience.note(made.plan, fleet.counts(), now)

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
        builder = Builder(fleet, self._known, self._settings.planner, situation.pins, now)
        types = fleet.catalog.worker_types.items()
        regret_usd = {name: self._regret.worth_usd(name, x.usd_per_hour, now) for name, x in types}
        problem = builder.build(wanted, self.saved_usd, regret_usd)
        self._shape = shape
        names = [x.name for x in problem.variants]
        able = {x.name: frozenset(names[o.variant] for o in x.options) for x in problem.classes}
        demand = {x.name: x.demand_qps for x in wanted}
        prices = {x.name: x.missed_usd_per_1k for x in problem.classes}
        self._asked = _Asked(self._asked.number + 1, now, demand, wanted, able, prices)
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
            due = planner.waiting_usd_per_s > 0 and known.forecast.rate_qps * _EXPECTED_S >= 1.0
            if known.key.target not in fleet.targets or (not due and silent_s > self._keep_s(known, fleet)):
                self._classes.drop(known.key)
                continue
            if settled and not self._beyond_slo(known):
                known.judge()
            else:
                known.forget()
            demand = known.forecast.expect(now, horizon_s)
            wanted.append(_wanted_of(known, demand, planner.head_room * known.room * sqrt(known.forecast.dispersion)))
        return wanted

    def _beyond_slo(self, known: Demanded) -> bool:
        """Whether the plan answers a part of a class beyond its SLO: what is missed then is no reason for more room."""
        return self._plan is not None and _wanted_of(known, 0.0, 0.0).name in self._plan.beyond_slo_qps

    def _settled(self, fleet: Fleet) -> bool:
        """Whether the fleet is as planned, so that what is missed is not for want of what is coming."""
        if self._plan is None:
            return False
        return not unready(self._plan, fleet)

    def _keep_s(self, known: Demanded, fleet: Fleet) -> float:
        """For how long a silent class is kept warm: what a wait for its start is worth over the price of keeping it."""
        front = self._known.front(known.key.target)
        degradable = front if known.key.on_miss is OnMiss.DEGRADE else []
        able = [x for x in front if x.accuracy >= (known.key.min_accuracy or 0.0)] or degradable
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
            if now >= until or variant not in fleet.catalog.offers or self._decides(variant):
                del self._pending[variant]
            elif not fleet.staying(variant, State.STARTING, State.READY):
                self._start(variant, because, situation, orders)

    def _served(self, variant: str, fleet: Fleet) -> bool:
        """Whether the plan answers queries that the variant could, or its architecture is there, coming or planned."""
        plan = self._plan
        if self._decides(variant):
            return True
        offers = fleet.catalog.offers
        architecture = offers[variant].variant.architecture
        planned = () if plan is None else plan.replicas
        return any(
            x in offers
            and offers[x].variant.architecture == architecture
            and (x in planned or fleet.staying(x, State.STARTING, State.READY))
            for x in {*planned, *fleet.variants()}
        )

    def _decides(self, variant: str) -> bool:
        """Whether the plan knows of queries that the variant could answer."""
        return any(variant in x for x in self._able.values())

    def _start(self, variant: str, because: str, situation: Situation, orders: Orders) -> None:
        """Start one replica, or make room for it."""
        fleet, now = situation.fleet, situation.now
        if fleet.blocks.failing(variant, now):
            return
        reason = orders.start_placed(fleet.place(variant, evenly=True), variant, because)
        if reason is None:
            return
        spare = spare_there(self._plan, fleet) if self._plan is not None else {}
        if not make_room(variant, situation, orders, self._settings.preempt_idle_s, spare):
            fleet.blocks.add(variant, reason, now + self._settings.block_s)


def _trusted(plan: Plan) -> bool:
    """Whether it is near the best but for what it forgoes knowingly."""
    dearer = plan.objective_usd_per_hour - plan.forgone_usd_per_hour - plan.bound_usd_per_hour
    return dearer <= max(_LOOSE_USD_PER_HOUR, _LOOSE_GAP * plan.objective_usd_per_hour)


def _wanted_of(known: Demanded, demand_qps: float, z: float) -> Wanted:
    key = known.key
    return Wanted(
        target=key.target,
        latency_s=key.latency_s,
        min_accuracy=key.min_accuracy,
        max_usd_per_1k=key.max_usd_per_1k,
        demand_qps=demand_qps,
        z=z,
        on_miss=key.on_miss,
        size=key.size,
        rows_each=known.rows_each,
    )
