"""The headline's arithmetic: how a baseline compares with us, seed by seed.

Definitions (README.md says them in words):
- The better of Clipper+ and SM+ for a choice of variants: the cheaper one among those whose attainment is at least the
  lesser of `GOOD` and ours; where neither, the one with the best attainment.
- The cost ratio of a pair: its dollars over ours.
- The violations ratio: its queries that missed their SLO over ours, counts of all seeds, each plus one.
"""

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean

import msgspec

from infaas_ray.simulator.report import Figure, RunResult, mean_of

GOOD = 0.99


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of a run."""

    seed: int
    arrived: int
    met: int
    usd: float

    @property
    def missed(self) -> int:
        """Queries whose SLO was not met, for whatever reason."""
        return self.arrived - self.met


def outcome(run: RunResult) -> Outcome:
    """The outcome of a run."""
    return Outcome(seed=run.seed, arrived=run.arrived, met=run.met, usd=run.usd)


def attainment(runs: Sequence[Outcome]) -> float:
    """The share of all queries, over all seeds, whose SLO was met."""
    arrived = sum(x.arrived for x in runs)
    return sum(x.met for x in runs) / arrived if arrived else 1.0


def better(ours: Sequence[Outcome], candidates: Mapping[str, Sequence[Outcome]]) -> str:
    """The name of the better baseline, by the rule at the top; of at least one."""
    enough = min(GOOD, attainment(ours))
    good = [x for x, runs in candidates.items() if attainment(runs) >= enough]
    if good:
        return min(good, key=lambda x: (fmean(run.usd for run in candidates[x]), x))
    return max(candidates, key=lambda x: (attainment(candidates[x]), -fmean(run.usd for run in candidates[x])))


def cost_ratios(theirs: Sequence[Outcome], ours: Sequence[Outcome]) -> list[float]:
    """Their dollars over ours by seed; seeds in which we paid nothing are left out."""
    mine = {x.seed: x.usd for x in ours}
    return [x.usd / mine[x.seed] for x in theirs if mine.get(x.seed)]


def violations_ratio(theirs: Sequence[Outcome], ours: Sequence[Outcome]) -> float:
    """How many times as many queries missed their SLO with them as with us."""
    return (sum(x.missed for x in theirs) + 1) / (sum(x.missed for x in ours) + 1)


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline against us on a scenario. `choice`: of variants, where it is the better of Clipper+ and SM+."""

    scenario: str
    baseline: str
    choice: str = ""
    attainment: float
    our_attainment: float
    costs: list[float]  # ratios by rising seed
    violations: float
    missed: int
    our_missed: int

    @property
    def cost(self) -> Figure:
        """The mean of the cost ratios over seeds, with its confidence interval."""
        return mean_of(self.costs)


def pair_of(scenario: str, baseline: str, theirs: Sequence[Outcome], ours: Sequence[Outcome], choice: str = "") -> Pair:
    """Compare."""
    return Pair(
        scenario=scenario,
        baseline=baseline,
        choice=choice,
        attainment=attainment(theirs),
        our_attainment=attainment(ours),
        costs=cost_ratios(theirs, ours),
        violations=violations_ratio(theirs, ours),
        missed=sum(x.missed for x in theirs),
        our_missed=sum(x.missed for x in ours),
    )


def mean_cost(pairs: Sequence[Pair]) -> Figure | None:
    """The mean of the cost ratios of several pairs: for each seed over the pairs, then over seeds."""
    seeds = min((len(x.costs) for x in pairs), default=0)
    return mean_of([fmean(x.costs[at] for x in pairs) for at in range(seeds)]) if seeds else None


def geometric(values: Sequence[float]) -> float | None:
    """The geometric mean; None of nothing."""
    return exp(fmean(log(x) for x in values)) if values else None


def geometric_cost(pairs: Sequence[Pair], *, inverse: bool = False) -> Figure | None:
    """The geometric mean over pairs of the cost ratio (or of one over it) by seed, then the mean over seeds."""
    seeds = min((len(x.costs) for x in pairs), default=0)
    sign = -1 if inverse else 1
    by_seed = [exp(sign * fmean(log(x.costs[at]) for x in pairs)) for at in range(seeds)]
    return mean_of(by_seed) if by_seed else None
