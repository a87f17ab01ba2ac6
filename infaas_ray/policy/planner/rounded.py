"""For problems too large to branch on: the linear program, its counts rounded.

Rule: round up, which keeps every row served. Where that needs more workers of a type than there may be, round down
again what was rounded up the furthest, until it fits. Then, while there is time, branch and bound over the little that
is left open: only the variants that the linear program uses, each with the whole numbers next to its fraction.
"""

import numpy as np

from infaas_ray.policy.planner.exact import solve_within
from infaas_ray.policy.planner.model import Floats, Ints, Model
from infaas_ray.policy.planner.relaxed import Relaxed

_EPSILON = 1e-6
_POLISHED_MOST = 3_000  # replicas of the linear program: with more, rounding costs next to nothing


def round_up(model: Model, held: Floats, base: Relaxed) -> Ints:
    """Replicas by place. `held`: what one holds, as shares of a worker of its type, by place and resource."""
    fraction = base.values[model.columns.replicas]
    replicas = np.ceil(fraction - _EPSILON)
    most = model.upper[model.columns.workers]
    for number in range(len(most)):
        here = np.flatnonzero(model.place_type == number)
        for resource in range(held.shape[1]):
            _round_down(replicas, fraction, here, held[:, resource], most[number])
    return replicas.astype(np.intp)


def _round_down(replicas: Floats, fraction: Floats, here: Ints, held: Floats, most: float) -> None:
    """Take back what was rounded up the furthest, as much as is needed for one resource of one type."""
    excess = float(replicas[here] @ held[here]) - most
    if excess <= _EPSILON:
        return
    rounded = here[(replicas[here] > fraction[here] + _EPSILON) & (held[here] > 0)]
    order = rounded[np.argsort(fraction[rounded] - replicas[rounded], kind="stable")]
    freed = np.cumsum(held[order])
    count = int(np.searchsorted(freed, excess - _EPSILON)) + 1
    replicas[order[:count]] -= 1


def polish(model: Model, base: Relaxed, time_limit_s: float, gap: float) -> Floats | None:
    """Values by column from branch and bound over what rounding leaves open; None where there is no time for it."""
    fraction = base.values[model.columns.replicas]
    if time_limit_s <= 0 or fraction.sum() > _POLISHED_MOST:
        return None
    lower, upper = model.lower.copy(), model.upper.copy()
    used = fraction > _EPSILON
    upper[model.columns.replicas] = np.where(used, np.ceil(fraction) + 1, 0.0)
    lower[model.columns.replicas] = np.where(used, np.maximum(0.0, np.floor(fraction) - 1), 0.0)
    alive = np.zeros(model.place_variant.max(initial=0) + 1, dtype=bool)
    alive[model.place_variant[used]] = True
    upper[model.columns.flows][~alive[model.option_variant]] = 0.0
    return solve_within(model, lower, upper, time_limit_s, gap)
