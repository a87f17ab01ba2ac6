"""The integer program, solved by branch and bound (HiGHS through scipy).

Rule: first a smaller program in which only workers are whole: a good bound in little time (replicas cut off as `model`
says). Where that does not prove a plan at hand good enough, replicas around the workers that it likes; then all whole
numbers at once. The bound is the best of all, the solution the cheapest.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array, vstack

from infaas_ray.policy.planner.model import Floats, Model
from infaas_ray.policy.planner.relaxed import Relaxed

_NEAR_SHARE = 0.3  # of the time, for what is near to the workers that are liked
_NEAR_SHARE_FEW = 0.5
_FEW_WORKERS = 12  # up to which a whole worker is a large part of the price, so that good solutions are worth a search
# Sub-problems that search for solutions cost more time here than they save. scipy passes on names it does not know.
_QUICK: Mapping[str, Any] = {"mip_heuristic_run_rens": False, "mip_heuristic_run_rins": False}
_WORKERS_GAP = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """`values` by column, None where none was found in time; no plan costs less than `bound_usd_per_hour`."""

    values: Floats | None
    bound_usd_per_hour: float


def whole_workers(model: Model, base: Relaxed, time_limit_s: float) -> Solved:
    """The best values with whole workers but fractions of replicas: no plan, but a bound, and workers to begin with."""
    workers = np.zeros(model.columns.count)
    workers[model.columns.workers] = 1
    found = _branch(model, base.cuts, model.lower, model.upper, workers, time_limit_s, _WORKERS_GAP)
    return Solved(values=found.x, bound_usd_per_hour=max(base.bound_usd_per_hour, _bound(found)))


def solve_exact(model: Model, base: Relaxed, liked: Solved, time_limit_s: float, gap: float) -> Solved:
    """The best values by column found in the time; good enough when proven to within the share `gap` of the best.

    `liked` comes from `whole_workers`.
    """
    whole = np.zeros(model.columns.count)
    whole[model.counted] = 1
    bound, near = liked.bound_usd_per_hour, None
    if liked.values is not None:
        few = liked.values[model.columns.workers].sum() <= _FEW_WORKERS
        near_s = time_limit_s * (_NEAR_SHARE_FEW if few else _NEAR_SHARE)
        near = _around(model, base.cuts, liked.values, near_s, gap)
        time_limit_s -= near_s
        if near.x is not None and near.fun - bound <= gap * abs(near.fun):
            return Solved(values=near.x, bound_usd_per_hour=bound)
    all_at_once = _branch(model, model.cuts[:0], model.lower, model.upper, whole, time_limit_s, gap)
    bound = max(bound, _bound(all_at_once))
    able = [x for x in (near, all_at_once) if x is not None and x.x is not None]
    best = min(able, key=lambda x: float(x.fun)) if able else None
    return Solved(values=None if best is None else best.x, bound_usd_per_hour=bound)


def solve_looser(
    model: Model, base: Relaxed, liked: Solved, room: csr_array, time_limit_s: float, gap: float
) -> Floats | None:
    """The best values found around the workers of `liked` that leave some room more, in rows of "at most nothing"."""
    if liked.values is None:
        return None
    cuts = vstack([base.cuts, room], format="csr")
    found = _around(model, cuts, liked.values, time_limit_s, gap)
    return None if found.x is None else np.asarray(found.x)


def solve_within(model: Model, lower: Floats, upper: Floats, time_limit_s: float, gap: float) -> Floats | None:
    """The best values within these limits by column found in the time; None where none was found."""
    whole = np.zeros(model.columns.count)
    whole[model.counted] = 1
    found = _branch(model, model.cuts[:0], lower, upper, whole, time_limit_s, gap)
    return None if found.x is None else np.asarray(found.x)


def _around(model: Model, cuts: csr_array, liked: Floats, time_limit_s: float, gap: float) -> OptimizeResult:
    """With the workers that were liked, or one more of each type."""
    whole = np.zeros(model.columns.count)
    whole[model.counted] = 1
    lower, upper = model.lower.copy(), model.upper.copy()
    workers = model.columns.workers
    lower[workers] = np.round(liked[workers])
    upper[workers] = np.minimum(upper[workers], lower[workers] + 1)
    options = {} if lower[workers].sum() <= _FEW_WORKERS else _QUICK
    return _branch(model, cuts, lower, upper, whole, time_limit_s, gap / 2, options)


def _branch(
    model: Model,
    cuts: csr_array,
    lower: Floats,
    upper: Floats,
    whole: Floats,
    time_limit_s: float,
    gap: float,
    options: Mapping[str, Any] = _QUICK,
) -> OptimizeResult:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unrecognized options", RuntimeWarning)
        return milp(
            model.cost,
            integrality=whole,
            bounds=Bounds(lower, upper),
            constraints=[
                LinearConstraint(model.equal, model.demand, model.demand),
                LinearConstraint(model.at_most, -np.inf, model.limit),
                LinearConstraint(cuts, -np.inf, np.zeros(cuts.shape[0])),
            ],
            options={"time_limit": max(0.05, time_limit_s), "mip_rel_gap": gap, **options},
        )


def _bound(found: OptimizeResult) -> float:
    bound = found.mip_dual_bound
    return -np.inf if bound is None or not np.isfinite(bound) else float(bound)
