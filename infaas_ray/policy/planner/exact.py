"""The integer program, solved by branch and bound (HiGHS through scipy).

Rule: first all whole numbers at once. If that does not prove the gap in most of the time, a second, smaller program
in which only workers are whole finds a better bound (replicas cut off as `model` says), and, around the workers that
it likes, replicas. The bound is the better of the two, the solution the cheaper.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from infaas_ray.policy.planner.model import Floats, Model
from infaas_ray.policy.planner.relaxed import Relaxed

_FIRST_SHARE = 0.6  # of the time, for all at once
_SECOND_SHARE = 0.2  # for each of the two others
# Sub-problems that search for solutions cost more time here than they save. scipy passes on names it does not know.
_QUICK: dict[str, Any] = {"mip_heuristic_run_rens": False, "mip_heuristic_run_rins": False}
_WORKERS_GAP = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """`values` by column, None where none was found in time; no plan costs less than `bound_usd_per_hour`."""

    values: Floats | None
    bound_usd_per_hour: float


def solve_exact(model: Model, base: Relaxed, time_limit_s: float, gap: float) -> Solved:
    """The best values by column found in the time; good enough when proven to within the share `gap` of the best."""
    whole = np.zeros(model.columns.count)
    whole[model.counted] = 1
    none = model.cuts[:0]
    first = _branch(model, none, model.lower, model.upper, whole, time_limit_s * _FIRST_SHARE, gap)
    bound = max(base.bound_usd_per_hour, _bound(first))
    if first.x is not None and first.fun - bound <= gap * abs(first.fun):
        return Solved(values=first.x, bound_usd_per_hour=bound)
    share_s = time_limit_s * _SECOND_SHARE
    workers = np.zeros(model.columns.count)
    workers[model.columns.workers] = 1
    second = _branch(model, base.cuts, model.lower, model.upper, workers, share_s, _WORKERS_GAP)
    bound = max(bound, _bound(second))
    if second.x is None:
        return Solved(values=first.x, bound_usd_per_hour=bound)
    third = _around(model, base.cuts, second.x, whole, share_s, gap)
    able = [x for x in (first, third) if x.x is not None]
    best = min(able, key=lambda x: float(x.fun)) if able else None
    return Solved(values=None if best is None else best.x, bound_usd_per_hour=bound)


def solve_within(model: Model, lower: Floats, upper: Floats, time_limit_s: float, gap: float) -> Floats | None:
    """The best values within these limits by column found in the time; None where none was found."""
    whole = np.zeros(model.columns.count)
    whole[model.counted] = 1
    found = _branch(model, model.cuts[:0], lower, upper, whole, time_limit_s, gap)
    return None if found.x is None else np.asarray(found.x)


def _around(
    model: Model, cuts: csr_array, liked: Floats, whole: Floats, time_limit_s: float, gap: float
) -> OptimizeResult:
    """With the workers that were liked, or one more of each type."""
    lower, upper = model.lower.copy(), model.upper.copy()
    workers = model.columns.workers
    lower[workers] = np.round(liked[workers])
    upper[workers] = np.minimum(upper[workers], lower[workers] + 1)
    return _branch(model, cuts, lower, upper, whole, time_limit_s, gap / 2)


def _branch(
    model: Model, cuts: csr_array, lower: Floats, upper: Floats, whole: Floats, time_limit_s: float, gap: float
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
            options={"time_limit": max(0.05, time_limit_s), "mip_rel_gap": gap, **_QUICK},
        )


def _bound(found: OptimizeResult) -> float:
    bound = found.mip_dual_bound
    return -np.inf if bound is None or not np.isfinite(bound) else float(bound)
