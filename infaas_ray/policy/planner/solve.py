"""From a problem to a plan.

Rule: leave out dominated variants; solve the linear program for a bound and prices. Where what is there now serves the
demand at a price that is proven to be within `KEEP_GAP` of the best, it stays: swapping would gain next to nothing. The
gap is a share of what machines cost, and what is there refuses no more than the linear program does, or a small class
beside a large one could be refused for ever. Else branch and bound where the problem is small enough (and of plans on
the machines that it finds, one that changes little), or rounding. What comes out is packed worker by worker (and, where
that takes more workers, solved once more with some room left), and the flows are computed anew for the replicas that
fit, so a plan never holds, works or has more than it may.
The same problem, time and gap give the same plan, as long as the time does not run out.
"""

from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, lil_array, vstack

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.planner.exact import solve_exact, solve_looser, solve_within, whole_workers
from infaas_ray.policy.planner.model import USD_PER_1K_IN_HOUR, Floats, Ints, Model, build
from infaas_ray.policy.planner.packing import pack, shares
from infaas_ray.policy.planner.problem import Flow, Plan, PlanProblem
from infaas_ray.policy.planner.pruning import worth_keeping
from infaas_ray.policy.planner.relaxed import Relaxed, relaxed, solve_linear
from infaas_ray.policy.planner.rounded import polish, round_up

_EXACT_MOST = 1_000  # replicas in the linear program: with more, rounding them is as good and a matter of milliseconds
_LEAST_FLOW_QPS = 1e-6
_POLISH_SHARE = 0.3  # of the time, where rounding is the way
_WORKERS_SHARE = 0.2  # of the time, for a bound with whole workers
_AGAIN_SHARE = 0.25  # of what is left of it, for another try where replicas did not fit one by one
_ROOM_LEFT = 0.07  # of all workers of a type then, as whole replicas leave gaps
KEEP_GAP = 0.02
_SETTLE_SHARE = 0.2  # of the time, after the plan is found, for one with fewer changes
_SETTLE_FACTOR = 20.0
_SETTLE_GAP = 0.02


def solve(problem: PlanProblem, time_limit_s: float = 2.0, gap: float = 0.005, keep_gap: float = KEEP_GAP) -> Plan:
    """The best plan found in about `time_limit_s`, good enough when proven to be within the share `gap` of the best.

    What is there now is good enough within `keep_gap`.
    """
    if not problem.types and not problem.classes:
        return Plan()
    kept = worth_keeping(problem)
    model = build(problem, kept)
    base = relaxed(model)
    frame = _frame(problem, model)
    liked = whole_workers(model, base, time_limit_s * _WORKERS_SHARE)
    present = _present(frame)
    if present is not None and _near(present, keep_gap, liked.bound_usd_per_hour, base.values[model.columns.refused]):
        return _plan(frame, _trimmed(frame, present), base, liked.bound_usd_per_hour, "kept")
    made = {} if present is None else {"kept": present}
    left_s, bound = time_limit_s * (1 - _WORKERS_SHARE - _SETTLE_SHARE), liked.bound_usd_per_hour
    if float(base.values[model.columns.replicas].sum()) <= _EXACT_MOST:
        tie = model.tie_usd_per_hour / max(base.bound_usd_per_hour, 1e-9)  # is taken off the bound in the end
        found = solve_exact(model, base, liked, left_s * (1 - _AGAIN_SHARE), max(gap / 2, gap - 1.01 * tie))
        values, bound = found.values, found.bound_usd_per_hour
        if values is not None:
            made["exact"] = first = _fitted(frame, *_counts(model, values))
            unfit = _unfit(model, values, first)
            if unfit.any() and first.score * (1 - gap) > bound:
                again = solve_looser(model, base, liked, _room_left(frame, unfit), left_s * _AGAIN_SHARE, gap)
                if again is not None:
                    made["exact"] = min(first, _fitted(frame, *_counts(model, again)), key=attrgetter("score"))
    else:
        values = polish(model, base, left_s * _POLISH_SHARE, gap)
        if values is not None:
            made["rounded"] = _fitted(frame, *_counts(model, values))
    if min((x.score for x in made.values()), default=inf) * (1 - gap) > bound:
        up = _fitted(frame, round_up(model, frame.held, base), _workers_up(model, base))
        made["rounded"] = min(up, made.get("rounded", up), key=attrgetter("score"))
    solver, best = min(made.items(), key=lambda x: x[1].score)
    if solver == "exact" and frame.now.any():
        best = _settled(frame, best, time_limit_s * _SETTLE_SHARE, keep_gap)
    return _plan(frame, best, base, bound, solver)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A problem with its model; by place, the shares that a replica holds, how many must be there and how many are."""

    problem: PlanProblem
    model: Model
    held: Floats
    must: Ints
    now: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """Counts that fit, and what flows then."""

    workers: Ints
    replicas: Ints
    flows: Floats
    refused: Floats
    missing_usd_per_hour: float
    objective_usd_per_hour: float
    machines_usd_per_hour: float

    @property
    def score(self) -> float:
        """By what plans are compared: the objective, and what is missing that must be there."""
        return self.objective_usd_per_hour + self.missing_usd_per_hour


def _frame(problem: PlanProblem, model: Model) -> _Frame:
    seen: dict[int, int] = {}
    places, must = [], []
    for variant in model.place_variant.tolist():
        number = seen[variant] = seen.get(variant, -1) + 1
        places.append(problem.variants[variant].places[number])
        must.append(problem.variants[variant].least)
    held = shares(problem, places)
    now = np.array([x.now for x in places], dtype=np.intp)
    return _Frame(problem=problem, model=model, held=held, must=np.array(must, dtype=np.intp), now=now)


def _present(frame: _Frame) -> "_Made | None":
    """What is there, without the replicas of variants that nothing would flow to; None where it is more than may be.

    A type has at least as many workers as it must.
    """
    workers = np.array([min(x.most, max(x.least, x.now)) for x in frame.problem.types], dtype=np.intp)
    model = frame.model
    try:
        found = _fitted(frame, frame.now, workers)
        rates = np.bincount(model.option_variant, found.flows, minlength=len(frame.problem.variants))
        used = (rates[model.place_variant] > _LEAST_FLOW_QPS) | (frame.must > 0)
        return found if used[frame.now > 0].all() else _fitted(frame, np.where(used, frame.now, 0), workers)
    except InvalidInput:
        return None


def _near(made: _Made, gap: float, score: float, refused: Floats) -> bool:
    """Whether it refuses no more than `refused`, and scores above `score` at most the share `gap` of its machines."""
    enough = bool((made.refused <= refused + _LEAST_FLOW_QPS).all())
    return enough and made.score - gap * made.machines_usd_per_hour <= score


def _trimmed(frame: _Frame, present: _Made) -> _Made:
    """What is there without the replicas that nothing flows to, where that costs no more."""
    problem, model = frame.problem, frame.model
    rates = np.array([x.rate_qps for asked in problem.classes for x in asked.options])
    every = [x.variant for asked in problem.classes for x in asked.options]
    kept = np.isin(every, model.option_variant)
    needed = np.bincount(model.option_variant, present.flows / rates[kept], minlength=len(problem.variants))
    left = np.ceil(needed - 1e-6).astype(np.intp)
    counts = present.replicas.copy()
    for place, variant in enumerate(model.place_variant.tolist()):
        counts[place] = max(frame.must[place], min(counts[place], left[variant]))
        left[variant] -= counts[place]
    if (counts == present.replicas).all():
        return present
    found = _fitted(frame, counts, present.workers)
    return found if found.score <= present.score + 1e-9 else present


def _settled(frame: _Frame, best: _Made, time_limit_s: float, keep_gap: float) -> _Made:
    """On the same workers, a plan that starts less anew, where it costs no more than the share `keep_gap` above `best`.

    Beside machines a start is cheap, so plans of nearly the same price differ in needless swaps. Here machines are
    settled, and a start counts `_SETTLE_FACTOR` times its price.
    """
    model = frame.model
    cost = model.cost.copy()
    cost[model.columns.workers] = cost[model.columns.booted] = 0.0
    cost[model.columns.started] *= _SETTLE_FACTOR
    lower, upper = model.lower.copy(), model.upper.copy()
    lower[model.columns.workers] = upper[model.columns.workers] = best.workers
    values = solve_within(replace(model, cost=cost), lower, upper, time_limit_s, _SETTLE_GAP)
    if values is None:
        return best
    found = _fitted(frame, *_counts(model, values))
    fewer = _starts(frame, found) < _starts(frame, best)
    return found if fewer and _near(found, keep_gap, best.score, best.refused) else best


def _starts(frame: _Frame, made: _Made) -> int:
    return int(np.maximum(0, made.replicas - frame.now).sum())


def _unfit(model: Model, values: Floats, made: _Made) -> NDArray[np.bool_]:
    """The types on which what was solved did not fit one by one: more workers or fewer replicas came of it."""
    replicas, workers = _counts(model, values)
    dropped = np.bincount(model.place_type, replicas - made.replicas, minlength=len(workers))
    return (made.workers > workers) | (dropped > 0)


def _room_left(frame: _Frame, types: NDArray[np.bool_]) -> csr_array:
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


def _counts(model: Model, values: Floats) -> tuple[Ints, Ints]:
    replicas = np.rint(values[model.columns.replicas]).astype(np.intp)
    return replicas, np.rint(values[model.columns.workers]).astype(np.intp)


def _workers_up(model: Model, base: Relaxed) -> Ints:
    return np.ceil(base.values[model.columns.workers] - 1e-6).astype(np.intp)


def _fitted(frame: _Frame, replicas: Ints, workers: Ints) -> _Made:
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
    parts = (model.columns.flows, model.columns.refused, model.columns.started, model.columns.booted)
    machines = float(packed.workers @ prices)
    return _Made(
        workers=packed.workers,
        replicas=packed.replicas,
        flows=found[model.columns.flows],
        refused=found[model.columns.refused],
        missing_usd_per_hour=float(model.cost[model.columns.missing] @ found[model.columns.missing]),
        objective_usd_per_hour=machines
        + float(packed.workers @ risks)
        + sum(float(model.cost[x] @ found[x]) for x in parts),
        machines_usd_per_hour=machines,
    )


def _plan(frame: _Frame, made: _Made, base: Relaxed, bound: float, solver: str) -> Plan:
    """The plan by names. The bound is that of the objective without what breaks ties and what must be there."""
    problem, model = frame.problem, frame.model
    names = [x.name for x in problem.variants]
    replicas: dict[str, dict[str, int]] = {}
    for place, count in enumerate(made.replicas.tolist()):
        if count > 0:
            by_type = replicas.setdefault(names[model.place_variant[place]], {})
            name = problem.types[model.place_type[place]].name
            by_type[name] = by_type.get(name, 0) + count
    flowing = np.flatnonzero(made.flows > _LEAST_FLOW_QPS)
    refused = np.flatnonzero(made.refused > _LEAST_FLOW_QPS)
    return Plan(
        workers={x.name: int(n) for x, n in zip(problem.types, made.workers, strict=True)},
        replicas=replicas,
        flows=tuple(
            Flow(
                query_class=problem.classes[model.option_class[x]].name,
                variant=names[model.option_variant[x]],
                rate_qps=float(made.flows[x]),
            )
            for x in flowing
        ),
        refused_qps={problem.classes[x].name: float(made.refused[x]) for x in refused},
        beyond_slo_qps=_beyond_slo(problem, model, made.flows),
        objective_usd_per_hour=made.objective_usd_per_hour,
        bound_usd_per_hour=max(0.0, bound - model.tie_usd_per_hour - made.missing_usd_per_hour),
        machines_usd_per_hour=made.machines_usd_per_hour,
        marginal_usd_per_1k={
            x.name: float(price) / USD_PER_1K_IN_HOUR for x, price in zip(problem.classes, base.price, strict=True)
        },
        solver=solver,
    )


def _beyond_slo(problem: PlanProblem, model: Model, flows: Floats) -> dict[str, float]:
    """Rows a second by class that are answered beyond its SLO."""
    beyond = {(c, x.variant) for c, asked in enumerate(problem.classes) for x in asked.options if x.beyond_slo}
    found: dict[str, float] = {}
    if beyond:
        for number in np.flatnonzero(flows > _LEAST_FLOW_QPS).tolist():
            at = int(model.option_class[number])
            if (at, int(model.option_variant[number])) in beyond:
                name = problem.classes[at].name
                found[name] = found.get(name, 0.0) + float(flows[number])
    return found
