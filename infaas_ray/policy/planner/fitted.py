"""Counts of workers and replicas that fit, with what flows then and what it costs.

Rule: replicas are packed worker by worker; the rows flow where they cost the least.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, lil_array, vstack

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.planner.model import Floats, Ints, Model
from infaas_ray.policy.planner.packing import pack, shares
from infaas_ray.policy.planner.problem import PlanProblem
from infaas_ray.policy.planner.relaxed import solve_linear

LEAST_FLOW_QPS = 1e-6
_ROOM_LEFT = 0.07  # of all workers of a type, where whole replicas leave gaps


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A problem with its model; by place, the shares that a replica holds, how many must be there and how many are.

    `there` counts workers by type.
    """

    problem: PlanProblem
    model: Model
    held: Floats
    must: Ints
    now: Ints
    there: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Counts that fit, and what flows then."""

    workers: Ints
    replicas: Ints
    flows: Floats
    refused: Floats
    missing_usd_per_hour: float
    objective_usd_per_hour: float
    changes_usd_per_hour: float
    machines_usd_per_hour: float

    @property
    def running_usd_per_hour(self) -> float:
        """The objective without the price of changes."""
        return self.objective_usd_per_hour - self.changes_usd_per_hour

    @property
    def score(self) -> float:
        """By what plans are compared: the objective, and what is missing that must be there."""
        return self.objective_usd_per_hour + self.missing_usd_per_hour


def frame_of(problem: PlanProblem, model: Model) -> Frame:
    """What is there and what must be, in the order of the model."""
    seen: dict[int, int] = {}
    places, must = [], []
    for variant in model.place_variant.tolist():
        number = seen[variant] = seen.get(variant, -1) + 1
        places.append(problem.variants[variant].places[number])
        must.append(problem.variants[variant].least)
    held = shares(problem, places)
    now = np.array([x.now for x in places], dtype=np.intp)
    there = np.array([x.now for x in problem.types], dtype=np.intp)
    return Frame(problem=problem, model=model, held=held, must=np.array(must, dtype=np.intp), now=now, there=there)


def counts_of(model: Model, values: Floats) -> tuple[Ints, Ints]:
    """Replicas by place and workers by type, of a solution."""
    replicas = np.rint(values[model.columns.replicas]).astype(np.intp)
    return replicas, np.rint(values[model.columns.workers]).astype(np.intp)


def fit(frame: Frame, replicas: Ints, workers: Ints) -> Made:
    """Pack, then let the rows flow where they cost the least."""
    problem, model = frame.problem, frame.model
    packed = pack(problem, frame.held, model.place_type, frame.must, replicas, workers)
    lower, upper = model.lower.copy(), model.upper.copy()
    for limits in (lower, upper):
        limits[model.columns.workers] = packed.workers
        limits[model.columns.replicas] = packed.replicas
    found = solve_linear(model, lower, upper, model.cuts[:0]).x
    prices = np.array([x.usd_per_hour for x in problem.types], dtype=float)
    risks = np.array([x.risk_usd_per_hour for x in problem.types], dtype=float)
    columns = model.columns
    missed, changes = (
        sum(float(model.cost[x] @ found[x]) for x in parts)
        for parts in ((columns.flows, columns.refused), (columns.started, columns.booted))
    )
    machines = float(packed.workers @ prices)
    return Made(
        workers=packed.workers,
        replicas=packed.replicas,
        flows=found[model.columns.flows],
        refused=found[model.columns.refused],
        missing_usd_per_hour=float(model.cost[model.columns.missing] @ found[model.columns.missing]),
        objective_usd_per_hour=machines + float(packed.workers @ risks) + missed + changes,
        changes_usd_per_hour=changes,
        machines_usd_per_hour=machines,
    )


def present_of(frame: Frame) -> Made | None:
    """What is there, without the replicas of variants that nothing would flow to; None where it is more than may be.

    A type has at least as many workers as it must.
    """
    workers = np.array([min(x.most, max(x.least, x.now)) for x in frame.problem.types], dtype=np.intp)
    model = frame.model
    try:
        found = fit(frame, frame.now, workers)
        rates = np.bincount(model.option_variant, found.flows, minlength=len(frame.problem.variants))
        used = (rates[model.place_variant] > LEAST_FLOW_QPS) | (frame.must > 0)
        return found if used[frame.now > 0].all() else fit(frame, np.where(used, frame.now, 0), workers)
    except InvalidInput:
        return None


def trim(frame: Frame, present: Made) -> Made:
    """What is there without the replicas that nothing flows to, where that costs no more."""
    problem, model = frame.problem, frame.model
    rates = np.array([x.rate_qps for asked in problem.classes for x in asked.options])
    every = [x.variant for asked in problem.classes for x in asked.options]
    kept = np.isin(every, model.option_variant)
    needed = np.bincount(model.option_variant, present.flows / rates[kept], minlength=len(problem.variants))
    left = np.ceil(needed - 1e-6).astype(np.intp)
    left[model.place_variant] = np.maximum(left[model.place_variant], frame.must)
    counts = present.replicas.copy()
    for place, variant in enumerate(model.place_variant.tolist()):
        counts[place] = min(counts[place], left[variant])
        left[variant] -= counts[place]
    if (counts == present.replicas).all():
        return present
    found = fit(frame, counts, present.workers)
    return found if found.score <= present.score + 1e-9 else present


def refuses_no_more(made: Made, refused: Floats) -> bool:
    """Whether it refuses at most so much, class by class."""
    return bool((made.refused <= refused + LEAST_FLOW_QPS).all())


def serves_as_well(frame: Frame, made: Made, other: Made) -> bool:
    """Whether it refuses no more of any class than another, answers no more beyond its SLO, and misses no more."""
    beyond = [sum(beyond_slo_of(frame.problem, frame.model, x.flows).values()) for x in (made, other)]
    complete = made.missing_usd_per_hour <= other.missing_usd_per_hour
    return complete and refuses_no_more(made, other.refused) and beyond[0] <= beyond[1] + LEAST_FLOW_QPS


def beyond_slo_of(problem: PlanProblem, model: Model, flows: Floats) -> dict[str, float]:
    """Rows a second by class that are answered beyond its SLO."""
    beyond = {(c, x.variant) for c, asked in enumerate(problem.classes) for x in asked.options if x.beyond_slo}
    found: dict[str, float] = {}
    if beyond:
        for number in np.flatnonzero(flows > LEAST_FLOW_QPS).tolist():
            at = int(model.option_class[number])
            if (at, int(model.option_variant[number])) in beyond:
                name = problem.classes[at].name
                found[name] = found.get(name, 0.0) + float(flows[number])
    return found


def unfit_types(model: Model, values: Floats, made: Made) -> NDArray[np.bool_]:
    """The types on which what was solved did not fit one by one: more workers or fewer replicas came of it."""
    replicas, workers = counts_of(model, values)
    dropped = np.bincount(model.place_type, replicas - made.replicas, minlength=len(workers))
    return (made.workers > workers) | (dropped > 0)


def rows_for_room(frame: Frame, types: NDArray[np.bool_]) -> csr_array:
    """Rows that leave a share of all workers of these types free, for each resource: held - (1 - share) m <= 0."""
    model, count = frame.model, frame.held.shape[1]
    parts = []
    for number in np.flatnonzero(types):
        here = np.flatnonzero((model.place_type == number) & np.isfinite(frame.held).all(axis=1))
        rows = lil_array((count, model.columns.count))
        rows[:, model.columns.replicas.start + here] = frame.held[here].T
        rows[:, number] = _ROOM_LEFT - 1.0
        parts.append(rows.tocsr())
    return vstack(parts, format="csr")


def boots(frame: Frame, made: Made) -> bool:
    """Whether it has workers that are not there."""
    return bool((made.workers > frame.there).any())


def swap_price_usd(frame: Frame, made: Made) -> float:
    """What the boots of those cost, and what it may cost to have others no longer."""
    prices = np.array([(x.boot_usd, x.regret_usd) for x in frame.problem.types], dtype=float).reshape(-1, 2)
    more = made.workers - frame.there
    return float(np.maximum(0, more) @ prices[:, 0] + np.maximum(0, -more) @ prices[:, 1])


def starts(frame: Frame, made: Made) -> int:
    """How many replicas it has that are not there."""
    return int(np.maximum(0, made.replicas - frame.now).sum())
