"""Whether replicas really fit into workers one by one: sums per type say too little, for a replica cannot be divided.

Rule: first fit, the largest first (by the greatest share of a worker that a replica holds); what must be there goes
before. All replicas of a place are the same, so each place is a step over all workers of its type, not each replica.
"""

from dataclasses import dataclass

import numpy as np

from infaas_ray.policy.planner.model import Floats, Ints
from infaas_ray.policy.planner.problem import PlanPlace, PlanProblem

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Workers by type and replicas by place that fit one by one."""

    workers: Ints
    replicas: Ints


def shares(problem: PlanProblem, places: list[PlanPlace]) -> Floats:
    """What a replica holds, as shares of a worker of its type, by place and resource. Infinite: what it has not."""
    names = sorted({name for x in places for name in x.holds})
    found = np.zeros((len(places), len(names)))
    for row, at in enumerate(places):
        have = problem.types[at.worker_type].resources
        for column, name in enumerate(names):
            amount = at.holds.get(name, 0.0)
            if amount > 0:
                found[row, column] = amount / have[name] if have.get(name, 0.0) > 0 else np.inf
    return found


def pack(problem: PlanProblem, held: Floats, of_type: Ints, must: Ints, replicas: Ints, workers: Ints) -> Packed:
    """Fit the replicas into the workers; more workers where they do not, within what there may be, else fewer replicas.

    All but `problem` and `workers` go by place; `must` of the `replicas` are placed before the rest.
    """
    needed, placed = workers.copy(), replicas.copy()
    for number, plan_type in enumerate(problem.types):
        here = np.flatnonzero(of_type == number)
        most = max(plan_type.most, int(workers[number]))
        needed[number], placed[here] = _pack_type(held[here], must[here], replicas[here], int(workers[number]), most)
    return Packed(workers=needed, replicas=placed)


def _pack_type(held: Floats, must: Ints, replicas: Ints, workers: int, most: int) -> tuple[int, Ints]:
    size = held.max(axis=1, initial=0.0)
    order = np.argsort(-size, kind="stable")
    total = (
        int(np.ceil(np.where(replicas > 0, size, 0.0) @ replicas)) if np.isfinite(size[replicas > 0]).all() else most
    )
    free = np.ones((min(most, max(workers, 2 * total + 1)), held.shape[1]))
    placed = np.zeros_like(replicas)
    used = 0
    for wanted in (np.minimum(must, replicas), None):
        for place in order:
            rest = int(replicas[place] - placed[place]) if wanted is None else int(wanted[place])
            if rest > 0:
                count, last = _fit(free, held[place], rest)
                placed[place] += count
                used = max(used, last)
    return max(workers, used), placed


def _fit(free: Floats, held: Floats, count: int) -> tuple[int, int]:
    """Put as many of `count` equal replicas as fit into the first workers; how many, and how many workers it took."""
    uses = held > 0
    if not uses.any():
        return (count, 1) if len(free) else (0, 0)
    room = np.floor((free[:, uses] / held[uses]).min(axis=1) + _EPSILON).astype(np.intp)
    before = np.cumsum(room) - room
    taken = np.clip(count - before, 0, room)
    free -= taken[:, None] * np.where(uses & np.isfinite(held), held, 0.0)
    filled = np.flatnonzero(taken)
    return int(taken.sum()), int(filled[-1]) + 1 if filled.size else 0
