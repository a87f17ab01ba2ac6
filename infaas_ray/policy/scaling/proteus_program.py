"""The integer program of Proteus: the most accurate way to serve all demand on given machines.

Rule, in the exact linear form: integers n_tv (replicas of variant v on machines of type t) and flows f_ktv >= 0 of
family k; maximise the sum of A_kv f_ktv, with A the accuracy as a share of the family's best; the sum over k of
f_ktv / p_kv is at most n_tv; replicas fit the machines; the flows of family k add up to beta s_k. Beta is the largest
of `head_room`, then lower by steps, at which that is feasible.
After Ahmad et al., "Proteus: A High-Throughput Inference-Serving System with Accuracy Scaling", ASPLOS 2024. There a
device holds one replica; here a machine has several devices or cores, and each replica keeps some of them.
Among plans that are about as good, the one that keeps most replicas where they are is taken, with the fewest replicas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

_GAP = 1e-4
_NODES = 5000  # a limit that, unlike time, gives the same plan everywhere
_STAY = 2e-3  # of all demand: what it is worth to leave every replica where it is
_FEW = 1e-4  # of all demand: what it is worth to have no idle replica


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSpot:
    """A variant on a machine type: what one replica keeps of the type's resources, how many fit, how many are there."""

    variant: str
    kind: str
    keeps: Mapping[str, float]
    most: int
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFamily:
    """Demand in rows a second; by variant, the rate of a replica and the accuracy as a share of the family's best."""

    name: str
    demand_qps: float
    rates_qps: Mapping[str, float]
    accuracies: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is to be solved. `has`: the resources of all machines of a type."""

    spots: Sequence[ProgramSpot]
    families: Sequence[ProgramFamily]
    has: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Replicas by variant and type, and the beta that they carry."""

    replicas: Mapping[tuple[str, str], int]
    beta: float


def solve(program: Program, head_room: float, step: float, least: float) -> Solution | None:
    """The plan at the largest feasible beta; None where not even the least is feasible."""
    betas = [head_room - step * n for n in range(int((head_room - least) / step + 1e-9) + 1)]
    low, high, best = 0, len(betas) - 1, None
    first = _solve(program, betas[0])
    if first is not None:
        return first
    while low < high:  # all up to `low` are infeasible; what is feasible stays so for a smaller beta
        middle = (low + 1 + high) // 2
        found = _solve(program, betas[middle])
        if found is not None:
            high, best = middle, found
            if middle == low + 1:
                break
        else:
            low = middle
    return best


class _Rows:
    """Constraints, row by row."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._rows: list[int] = []
        self._indices: list[int] = []
        self._values: list[float] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def add(self, entries: Mapping[int, float], low: float, high: float) -> None:
        """The weighted sum of these columns lies between the two."""
        self._rows += [len(self._low)] * len(entries)
        self._indices += entries
        self._values += entries.values()
        self._low.append(low)
        self._high.append(high)

    def constraint(self) -> LinearConstraint:
        """As the solver takes them."""
        where = (self._rows, self._indices)
        matrix = coo_array((self._values, where), shape=(len(self._low), self._columns))
        return LinearConstraint(matrix.tocsc(), self._low, self._high)


def _solve(program: Program, beta: float) -> Solution | None:
    spots, families = program.spots, program.families
    flows = [
        (k, s)
        for k, family in enumerate(families)
        for s, spot in enumerate(spots)
        if family.rates_qps.get(spot.variant, 0.0) > 0
    ]
    count = len(spots)
    rows = _Rows(2 * count + len(flows))  # columns: replicas, those of them that stay, flows
    by_spot: dict[int, dict[int, float]] = {s: {s: -1.0} for s in range(count)}
    by_family: dict[int, dict[int, float]] = {k: {} for k in range(len(families))}
    for column, (k, s) in enumerate(flows, start=2 * count):
        by_spot[s][column] = 1.0 / families[k].rates_qps[spots[s].variant]
        by_family[k][column] = 1.0
    for s in range(count):
        rows.add(by_spot[s], -np.inf, 0.0)
        rows.add({count + s: 1.0, s: -1.0}, -np.inf, 0.0)
    for k, family in enumerate(families):
        rows.add(by_family[k], beta * family.demand_qps, beta * family.demand_qps)
    for kind, resources in program.has.items():
        for resource, amount in resources.items():
            kept = {s: x.keeps[resource] for s, x in enumerate(spots) if x.kind == kind and resource in x.keeps}
            if kept:
                rows.add(kept, -np.inf, amount)
    result = milp(
        _objective(program, flows),
        constraints=rows.constraint(),
        integrality=np.concatenate([np.ones(count), np.zeros(count + len(flows))]),
        bounds=Bounds(0.0, [*(x.most for x in spots), *(x.now for x in spots), *(np.inf for _ in flows)]),
        options={"mip_rel_gap": _GAP, "node_limit": _NODES},
    )
    return _read(result, spots, beta)


def _objective(program: Program, flows: Sequence[tuple[int, int]]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """To be minimised."""
    spots, families = program.spots, program.families
    demand = sum(x.demand_qps for x in families)
    stay = _STAY * demand / max(1, sum(x.now for x in spots))
    few = _FEW * demand / max(1, sum(x.most for x in spots))
    earned = [families[k].accuracies[spots[s].variant] for k, s in flows]
    return -np.array([*(-few for _ in spots), *(stay for _ in spots), *earned])


def _read(result: Any, spots: Sequence[ProgramSpot], beta: float) -> Solution | None:
    if result.x is None:
        return None
    counts = {(x.variant, x.kind): round(result.x[s]) for s, x in enumerate(spots)}
    return Solution(replicas={spot: count for spot, count in counts.items() if count > 0}, beta=beta)
