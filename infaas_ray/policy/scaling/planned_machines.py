"""Brings the machines to where a plan has them.

Rules: machines are asked for at once, and given back when they were too many for `release_s` and their boot, and for as
long as what was missed while they came is worth (`regret`; where others come instead, that is in the price of the
swap). Not before those are ready that are planned to answer instead of their replicas (for `_SUCCESSION_S` at most).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import State, Worker
from infaas_ray.policy.planner.problem import Plan, counts_of
from infaas_ray.policy.scaling.regret import Regret
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation

_SUCCESSION_S = 120.0  # a start that takes longer has failed

Able = Mapping[str, frozenset[str]]  # by class of queries, the variants that may answer it


@dataclass(frozen=True, slots=True)
class _Idle:
    """Since when one more of a type was too many, and for how long it is worth keeping."""

    since: float
    keep_s: float


class PlannedMachines:
    """Remembers since when machines were too many."""

    def __init__(self, settings: ScalingSettings, regret: Regret) -> None:
        self._settings = settings
        self._regret = regret
        self._idle: dict[str, list[_Idle]] = {}  # by worker type: one for each that is too many, the oldest first

    def follow(self, plan: Plan, able: Able, situation: Situation, orders: Orders) -> None:
        """Give the orders of this turn."""
        fleet = situation.fleet
        have = fleet.counts()
        more = {name: count for name, count in plan.workers.items() if count > have.get(name, count)}
        if more:
            orders.workers(more, f"planned: {', '.join(f'{count} x {name}' for name, count in more.items())}")
        for name, here in have.items():
            idle = self._note_idle(name, max(0, here - plan.workers.get(name, 0)), bool(more), situation)
            due = [x for x in idle if situation.now - x.since >= x.keep_s]
            if due:
                held_s = situation.now - due[0].since
                stay = set() if held_s >= due[0].keep_s + _SUCCESSION_S else _answering(plan, able, fleet)
                for x in due[: self._give_back(name, len(due), held_s, stay, fleet, orders)]:
                    idle.remove(x)

    def _note_idle(self, name: str, surplus: int, swap: bool, situation: Situation) -> list[_Idle]:
        """So many workers of a type are too many now."""
        fleet, now = situation.fleet, situation.now
        idle = self._idle.setdefault(name, [])
        del idle[surplus:]
        if len(idle) < surplus:
            kind = fleet.catalog.worker_types[name]
            regret_s = 0.0 if swap else self._regret.keep_s(name, kind.usd_per_hour, now)
            keep_s = max(self._settings.planner.release_s, fleet.machines.boot_s(kind), regret_s)
            idle += [_Idle(now, keep_s) for _ in range(surplus - len(idle))]
        return idle

    def _give_back(self, name: str, count: int, held_s: float, stay: set[str], fleet: Fleet, orders: Orders) -> int:
        """Release so many workers of a type, those on their way first, then the emptiest; how many that were.

        Those whose names are in `stay` are kept.
        """
        because = f"planned: {count} fewer of {name}, for {held_s:.0f} s"
        coming = min(count, fleet.machines.booting(name))
        if coming:
            orders.workers({name: fleet.counts()[name] - coming}, because)
        here = [x for x in fleet.workers.values() if x.worker_type == name and not x.leaving and x.name not in stay]
        going = sorted(here, key=lambda x: (len(x.replicas), -x.joined_at, x.name))[: count - coming]
        for worker in going:
            orders.leave(worker.name, because)
        return coming + len(going)


def _answering(plan: Plan, able: Able, fleet: Fleet) -> set[str]:
    """The workers whose replicas answer instead of planned ones that are not ready."""
    awaited = unready(plan, fleet)
    workers = fleet.workers.values() if awaited else ()
    return {x.name for x in workers if any(heirs(v, plan, able) & awaited for v in _serving(x))}


def heirs(variant: str, plan: Plan, able: Able) -> set[str]:
    """The variants that are planned to answer what this one can."""
    return {x.variant for x in plan.flows if variant in able.get(x.query_class, ())} - {variant}


def unready(plan: Plan, fleet: Fleet) -> set[str]:
    """The variants of which not all planned replicas are ready, without those on workers that leave."""
    kinds = {name: x.worker_type for name, x in fleet.workers.items() if not x.leaving}
    replicas = (x for x in fleet.replicas.values() if x.state is State.READY and x.worker in kinds)
    ready = Counter((x.variant, kinds[x.worker]) for x in replicas)
    return {spot[0] for spot, count in counts_of(plan.replicas).items() if ready[spot] < count}


def missing_workers(plan: Plan, fleet: Fleet) -> dict[str, int]:
    """How many workers are planned and not there, by the types of which some are."""
    there = Counter(x.worker_type for x in fleet.workers.values() if not x.leaving)
    return {name: count - there[name] for name, count in plan.workers.items() if count > there[name]}


def _serving(worker: Worker) -> set[str]:
    return {x.variant for x in worker.replicas.values() if x.state is State.READY}
