"""The linear program behind a plan: whole numbers let go, fractions of replicas cut off where that matters.

Its optimum is a bound that no plan can beat, and its dual values are prices: what one more row a second of a class
costs where machines are bought by fractions. That is what it costs on the average over small changes, and says more
than the price with the machines as they are (nothing, until the next machine is due).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, linprog
from scipy.sparse import csr_array, vstack

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.planner.model import Floats, Model

_ROUNDS = 4  # of adding cuts; later ones hardly raise the bound
_VIOLATED = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """`values` by column; `cuts` that were needed; `price` in dollars an hour per row a second, by class."""

    values: Floats
    bound_usd_per_hour: float
    cuts: csr_array
    price: Floats


def relaxed(model: Model) -> Relaxed:
    """Solve the linear program of a model."""
    chosen: NDArray[np.bool_] = np.zeros(model.cuts.shape[0], dtype=bool)
    for turn in range(_ROUNDS):
        cuts = model.cuts[np.flatnonzero(chosen)]
        found = solve_linear(model, model.lower, model.upper, cuts)
        violated = (model.cuts @ found.x > _VIOLATED) & ~chosen
        if turn == _ROUNDS - 1 or not violated.any():
            break
        chosen |= violated
    return Relaxed(
        values=np.asarray(found.x),
        bound_usd_per_hour=float(found.fun),
        cuts=cuts,
        price=_prices(model, found, np.flatnonzero(chosen)),
    )


def solve_linear(model: Model, lower: Floats, upper: Floats, cuts: csr_array) -> OptimizeResult:
    """The linear program within these limits by column. Raises InvalidInput where nothing is within them."""
    found = linprog(
        model.cost,
        A_ub=vstack([model.at_most, cuts], format="csr"),
        b_ub=np.concatenate([model.limit, np.zeros(cuts.shape[0])]),
        A_eq=model.equal,
        b_eq=model.demand,
        bounds=np.column_stack([lower, upper]),
        method="highs-ds",
    )
    if found.x is None:
        raise InvalidInput(f"the planning problem has no solution: {found.message}")
    return found


def _prices(model: Model, found: OptimizeResult, chosen: NDArray[np.intp]) -> Floats:
    """What one more row a second costs, by class.

    The demand stands on the right of its own row and divides the flow in the cuts: dividing by more lets the same
    replica take more, so what a cut is worth times the flow's share of it comes off.
    """
    price = np.array(found.eqlin.marginals, dtype=float)
    worth = np.asarray(found.ineqlin.marginals)[model.at_most.shape[0] :]
    if not chosen.size:
        return price
    flows = slice(model.columns.flows.start, model.columns.flows.stop)
    shares = model.cuts[chosen][:, flows].tocoo()
    classes = model.option_class[shares.col]
    taken = worth[shares.row] * shares.data * found.x[flows][shares.col] / model.demand[classes]
    np.add.at(price, classes, taken)
    price[price < 0] = 0.0
    return price
