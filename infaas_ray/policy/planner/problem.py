"""What is asked of the planner and what it answers, as plain values that a decision log can hold.

A problem speaks of *counts*: identical workers are interchangeable, so there is a number of workers per type and a
number of replicas per variant and type, not a choice per machine. All money is in US dollars per hour; prices of
changes are spread over the time for which a plan is expected to hold before they get here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Counts = Mapping[str, Mapping[str, int]]  # replicas by variant and worker type
Spot = tuple[str, str]  # a variant on a worker type

NO_LIMIT = 10_000  # replicas of a variant: as many as one likes
ENOUGH_USD = 1e9  # for whatever boots


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanType:
    """A worker type: what one has, what it costs, how many there are now (booting ones too) and may be.

    `resources` by name; "memory" in bytes is one of them. Each worker beyond `now` costs `boot_usd_per_hour` more.
    `risk_usd_per_hour` is not paid, but counts in a choice: the trouble of losing a spot machine. `boot_usd` is paid
    for one while it boots; `regret_usd` is what it would cost to need one again that was given back.
    """

    name: str
    resources: Mapping[str, float]
    usd_per_hour: float
    now: int = 0
    least: int = 0
    most: int = 100
    boot_usd_per_hour: float = 0.0
    risk_usd_per_hour: float = 0.0
    boot_usd: float = 0.0
    regret_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPlace:
    """A variant on a worker type (its index).

    Each replica occupies `holds` of the worker's resources, idle or not, and keeps `works` of them busy while it
    computes. `now` are there; each beyond costs `start_usd_per_hour`.
    """

    worker_type: int
    holds: Mapping[str, float]
    works: Mapping[str, float]
    now: int = 0
    start_usd_per_hour: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanVariant:
    """A variant and where it can run. At least `least` replicas of it, at most `most`, are to be there.

    A least that nothing has room for is missed by as little as possible.
    """

    name: str
    places: tuple[PlanPlace, ...]
    least: int = 0
    most: int = NO_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOption:
    """A variant (its index) that may answer a class of queries.

    One replica that does nothing else answers `rate_qps` rows a second within the SLO, head room included. Each row
    keeps it busy for `busy_s` (at most 1 / `rate_qps`: head room is idle time, in which neighbours compute). Each 1,000
    rows cost `penalty_usd_per_1k` beside the machines. `beyond_slo`: they are answered less accurately than asked, or
    late, which the class accepts and the penalty prices.
    """

    variant: int
    rate_qps: float
    busy_s: float
    penalty_usd_per_1k: float = 0.0
    beyond_slo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanClass:
    """Queries that ask for the same: `demand_qps` rows a second; 1,000 that are refused cost `refusal_usd_per_1k`.

    `missed_usd_per_1k` is less where demand is so little that it fills no machine, whose price refusing then has.
    """

    name: str
    demand_qps: float
    options: tuple[PlanOption, ...]
    refusal_usd_per_1k: float
    missed_usd_per_1k: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanProblem:
    """All that a plan depends on. Of a worker's resources at most the share `utilization` is planned to be busy.

    `saved_usd` is what may be spent on boots that only save money; by default they are not waited for.
    """

    types: tuple[PlanType, ...]
    variants: tuple[PlanVariant, ...]
    classes: tuple[PlanClass, ...]
    utilization: float = 1.0
    saved_usd: float = ENOUGH_USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Rows a second of a class that the plan gives to a variant."""

    query_class: str
    variant: str
    rate_qps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to have: `workers` by type, `replicas` by variant and type, and why.

    `objective_usd_per_hour` is the price of machines, their risk, changes and penalties; no plan for the problem has
    one below `bound_usd_per_hour`, as proven by the solver. `refused_qps` by class is what the plan does not serve,
    `beyond_slo_qps` what it serves less accurately than asked or late.
    `marginal_usd_per_1k` by class is what 1,000 more of its rows would cost (the shadow price of its demand).
    `forgone_usd_per_hour` is what other machines would save, which is not yet worth the swap.
    `spare` are replicas beyond those, for which the machines have room (`spare`).
    `solver` names the way: "kept" (what is there is good enough), "exact" (branch and bound) or "rounded" (linear
    program, rounded).
    """

    workers: Mapping[str, int] = field(default_factory=dict)
    replicas: Counts = field(default_factory=dict)
    spare: Counts = field(default_factory=dict)
    flows: tuple[Flow, ...] = ()
    refused_qps: Mapping[str, float] = field(default_factory=dict)
    beyond_slo_qps: Mapping[str, float] = field(default_factory=dict)
    objective_usd_per_hour: float = 0.0
    bound_usd_per_hour: float = 0.0
    machines_usd_per_hour: float = 0.0
    forgone_usd_per_hour: float = 0.0
    marginal_usd_per_1k: Mapping[str, float] = field(default_factory=dict)
    solver: str = "exact"

    @property
    def gap(self) -> float:
        """How far the objective may be from the best, as a share of it; 0 where both are nothing."""
        best = self.objective_usd_per_hour
        return max(0.0, best - self.bound_usd_per_hour) / best if best > 0 else 0.0


def counts_of(replicas: Counts) -> dict[Spot, int]:
    """How many replicas of which variant on which worker type."""
    return {
        (variant, kind): count for variant, places in replicas.items() for kind, count in places.items() if count > 0
    }
