"""The headline's numbers, out of all runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from msgspec.structs import replace

from benchmarks.headline.lineup import CLIPPER, EXPERT, INFAAS, OURS, SM, named
from benchmarks.headline.ratios import (
    Outcome,
    Pair,
    attainment,
    better,
    cost_ratios,
    geometric,
    geometric_cost,
    mean_cost,
    outcome,
    pair_of,
)
from benchmarks.headline.runs import Found
from infaas_ray.simulator.report import Figure, mean_of

ORIGINAL = ("paper-flat", "paper-steady", "paper-fluctuating", "paper-day")
DAY = "paper-day"

# What is aimed at, and whether more is better; cost_vs_fluid_bound with at least DAY_ATTAINMENT met.
TARGETS: Mapping[str, tuple[float, bool]] = {
    "throughput_ratio": (1.3, True),
    "violations_ratio": (1.6, True),
    "cost_ratio_mean": (8.5, True),
    "cost_ratio_max": (21.6, True),
    "cost_vs_infaas": (2 / 3, False),
    "violations_vs_infaas": (0.5, False),
    "cost_vs_fluid_bound": (1.2, False),
}
DAY_ATTAINMENT = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A scenario's pairs: with the better of Clipper+ and SM+ by choice of users, the same of experts, all others."""

    scenario: str
    fixed: Sequence[Pair]
    expert: Pair | None
    others: Mapping[str, Pair]


def compare(found: Found) -> Comparison:
    """Ours against everybody else, as far as they ran."""
    runs = {name: [outcome(x) for x in found.results(name)] for name in found.runs}
    ours = runs[OURS]
    fixed = [x for choice in found.lineup.fixed if (x := _better(found.name, choice, runs)) is not None]
    others = {name: pair_of(found.name, name, theirs, ours) for name, theirs in runs.items() if name != OURS}
    return Comparison(scenario=found.name, fixed=fixed, expert=_better(found.name, EXPERT, runs), others=others)


def _better(scenario: str, choice: str, runs: Mapping[str, Sequence[Outcome]]) -> Pair | None:
    candidates = {name: runs[name] for system in (CLIPPER, SM) if (name := named(system, choice)) in runs}
    if not candidates:
        return None
    name = better(runs[OURS], candidates)
    return pair_of(scenario, name, candidates[name], runs[OURS], choice)


def throughput_ratio(
    rates: Mapping[str, Mapping[str, Sequence[float]]], fixed: Mapping[str, Sequence[str]]
) -> Figure | None:
    """Our rate over the best of Clipper+ and SM+ with any choice of users: geometric mean over workloads, by seed.

    `rates` by workload, strategy and rising seed; `fixed`: the choices of users by workload. A baseline that reaches no
    rate at all is left out.
    """
    by_workload = []
    for workload, found in rates.items():
        names = [x for choice in fixed[workload] for system in (CLIPPER, SM) if (x := named(system, choice)) in found]
        best = max(names, key=lambda x: fmean(found[x]), default=None)
        if best is not None and min(found[best]) > 0 and OURS in found:
            by_workload.append([a / b for a, b in zip(found[OURS], found[best], strict=True)])
    if not by_workload:
        return None
    return mean_of([fmean(x) if min(x) <= 0 else exp(fmean(map(log, x))) for x in zip(*by_workload, strict=True)])


def bound_ratio(found: Found, *, tight: bool) -> Figure | None:
    """Our dollars over the fluid bound's, the tight one or the loose one, seed by seed."""
    bounds = {seed: x.usd_tight if tight else x.usd for seed, x in found.bounds.items()}
    ratios = [x.usd / bounds[x.seed] for x in found.results(OURS) if bounds[x.seed] > 0]
    return mean_of(ratios) if ratios else None


def _of_bound(found: Found, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with the fluid bound's dollars instead of ours: what nobody's cost ratio gets beyond."""
    bounds = [Outcome(seed=seed, arrived=0, met=0, usd=x.usd_tight) for seed, x in found.bounds.items()]
    return [replace(x, costs=cost_ratios([outcome(y) for y in found.results(x.baseline)], bounds)) for x in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The numbers: those of TARGETS, then those beside them. None where nothing was run to tell."""

    figures: Mapping[str, Figure | None]
    beside: Mapping[str, float | None]

    def reached(self, name: str) -> bool | None:
        """Whether a target is; None where that is not known."""
        figure, (target, more) = self.figures[name], TARGETS[name]
        if figure is None:
            return None
        if name == "cost_vs_fluid_bound" and (self.beside["day_slo_met"] or 0.0) < DAY_ATTAINMENT:
            return False
        return figure.mean >= target if more else figure.mean <= target


def headline(founds: Sequence[Found], throughput: Figure | None) -> Headline:
    """The numbers of the scenarios that were run."""
    papers = [x for x in founds if x.name in ORIGINAL]
    original = [compare(x) for x in papers]
    fixed = [pair for x in original for pair in x.fixed]
    of_bound = [pair for found, x in zip(papers, original, strict=True) for pair in _of_bound(found, x.fixed)]
    expert = [x.expert for x in original if x.expert is not None]
    infaas = [x.others[INFAAS] for x in original if INFAAS in x.others]
    day = next((x for x in founds if x.name == DAY), None)
    figures = {
        "throughput_ratio": throughput,
        "violations_ratio": _exact(geometric([x.violations for x in fixed])),
        "cost_ratio_mean": mean_cost(fixed),
        "cost_ratio_max": _greatest(fixed),
        "cost_vs_infaas": geometric_cost(infaas, inverse=True),
        "violations_vs_infaas": _exact(geometric([1 / x.violations for x in infaas])),
        "cost_vs_fluid_bound": bound_ratio(day, tight=True) if day is not None else None,
    }
    expert_cost, bound_mean, bound_max = mean_cost(expert), mean_cost(of_bound), _greatest(of_bound)
    loose = bound_ratio(day, tight=False) if day is not None else None
    beside = {
        "cost_ratio_mean_of_bound": bound_mean.mean if bound_mean is not None else None,
        "cost_ratio_max_of_bound": bound_max.mean if bound_max is not None else None,
        "cost_vs_loose_bound": loose.mean if loose is not None else None,
        "day_slo_met": attainment([outcome(x) for x in day.results(OURS)]) if day is not None else None,
        "cost_ratio_expert": expert_cost.mean if expert_cost is not None else None,
        "violations_ratio_expert": geometric([x.violations for x in expert]),
    }
    return Headline(figures=figures, beside=beside)


def _greatest(pairs: Sequence[Pair]) -> Figure | None:
    return max((x.cost for x in pairs), key=lambda x: x.mean, default=None)


def _exact(value: float | None) -> Figure | None:
    return None if value is None else Figure(mean=value, half_width=None)
