"""From a problem to a plan.

Rule: leave out dominated variants; solve the linear program for a bound and prices. Where what is there now serves the
demand at a price that is proven to be within `KEEP_GAP` of the best, it stays: swapping would gain next to nothing. The
gap is a share of what machines cost, and what is there refuses no more than the linear program does, or a small class
beside a large one could be refused for ever. Else branch and bound where the problem is small enough (and of plans on
the machines that it finds, one that changes little), or rounding. Where what is there serves as well as what comes of
it, machines that only save money are not asked for until the price of the swap is saved up (`saved_usd`). What comes
out is packed worker by worker (and, where that takes more workers, solved once more with some room left), and the flows
are computed anew for the replicas that fit, so a plan never holds, works or has more than it may.
The same problem, time and gap give the same plan, as long as the time does not run out.
"""

from dataclasses import replace
from math import inf
from operator import attrgetter

import numpy as np

from infaas_ray.policy.planner.exact import Solved, solve_exact, solve_looser, solve_within, whole_workers
from infaas_ray.policy.planner.fitted import (
    LEAST_FLOW_QPS,
    Frame,
    Made,
    beyond_slo_of,
    boots,
    counts_of,
    fit,
    frame_of,
    present_of,
    refuses_no_more,
    rows_for_room,
    serves_as_well,
    starts,
    swap_price_usd,
    trim,
    unfit_types,
)
from infaas_ray.policy.planner.model import USD_PER_1K_IN_HOUR, Floats, Ints, Model, build
from infaas_ray.policy.planner.problem import Flow, Plan, PlanProblem
from infaas_ray.policy.planner.pruning import worth_keeping
from infaas_ray.policy.planner.relaxed import Relaxed, relaxed
from infaas_ray.policy.planner.rounded import polish, round_up
from infaas_ray.policy.planner.spare import spare_replicas

_EXACT_MOST = 1_000  # replicas in the linear program: with more, rounding them is as good and a matter of milliseconds
_POLISH_SHARE = 0.3  # of the time, where rounding is the way
_WORKERS_SHARE = 0.2  # of the time, for a bound with whole workers
_AGAIN_SHARE = 0.25  # of what is left of it, for another try where replicas did not fit one by one
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
    frame = frame_of(problem, model)
    liked = whole_workers(model, base, time_limit_s * _WORKERS_SHARE)
    present = present_of(frame)
    if present is not None and _near(present, keep_gap, liked.bound_usd_per_hour, base.values[model.columns.refused]):
        return _plan(frame, trim(frame, present), base, liked.bound_usd_per_hour, "kept")
    made, bound = _search(frame, base, liked, time_limit_s * (1 - _WORKERS_SHARE - _SETTLE_SHARE), gap, present)
    solver, best = min(made.items(), key=lambda x: x[1].score)
    if solver == "exact" and frame.now.any():
        best = _settled(frame, best, time_limit_s * _SETTLE_SHARE, keep_gap)
    early = boots(frame, best) and problem.saved_usd < swap_price_usd(frame, best)
    if early and present is not None and serves_as_well(frame, present, best):
        stay = _without_boots(frame, present, time_limit_s * _SETTLE_SHARE)
        forgone = max(0.0, stay.running_usd_per_hour - best.running_usd_per_hour)
        return _plan(frame, stay, base, bound, "kept", forgone)
    return _plan(frame, best, base, bound, solver)


def _search(
    frame: Frame, base: Relaxed, liked: Solved, time_limit_s: float, gap: float, present: Made | None
) -> tuple[dict[str, Made], float]:
    """What fits, by the way in which it was found, and the bound."""
    model, bound = frame.model, liked.bound_usd_per_hour
    made = {} if present is None else {"kept": present}
    if float(base.values[model.columns.replicas].sum()) <= _EXACT_MOST:
        exact, bound = _exact(frame, base, liked, time_limit_s, gap)
        if exact is not None:
            made["exact"] = exact
    else:
        values = polish(model, base, time_limit_s * _POLISH_SHARE, gap)
        if values is not None:
            made["rounded"] = fit(frame, *counts_of(model, values))
    if min((x.score for x in made.values()), default=inf) * (1 - gap) > bound:
        up = fit(frame, round_up(model, frame.held, base), workers_up(model, base))
        made["rounded"] = min(up, made.get("rounded", up), key=attrgetter("score"))
    return made, bound


def _exact(frame: Frame, base: Relaxed, liked: Solved, time_limit_s: float, gap: float) -> tuple[Made | None, float]:
    """By branch and bound, once more with some room left where replicas did not fit one by one; and the bound."""
    model = frame.model
    tie = model.tie_usd_per_hour / max(base.bound_usd_per_hour, 1e-9)  # is taken off the bound in the end
    found = solve_exact(model, base, liked, time_limit_s * (1 - _AGAIN_SHARE), max(gap / 2, gap - 1.01 * tie))
    bound = found.bound_usd_per_hour
    if found.values is None:
        return None, bound
    first = fit(frame, *counts_of(model, found.values))
    unfit = unfit_types(model, found.values, first)
    if unfit.any() and first.score * (1 - gap) > bound:
        again = solve_looser(model, base, liked, rows_for_room(frame, unfit), time_limit_s * _AGAIN_SHARE, gap)
        if again is not None:
            return min(first, fit(frame, *counts_of(model, again)), key=attrgetter("score")), bound
    return first, bound


def _near(made: Made, gap: float, score: float, refused: Floats) -> bool:
    """Whether it refuses no more than `refused`, and scores above `score` at most the share `gap` of its machines."""
    return refuses_no_more(made, refused) and made.score - gap * made.machines_usd_per_hour <= score


def _settled(frame: Frame, best: Made, time_limit_s: float, keep_gap: float) -> Made:
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
    found = fit(frame, *counts_of(model, values))
    fewer = starts(frame, found) < starts(frame, best)
    return found if fewer and _near(found, keep_gap, best.score, best.refused) else best


def _without_boots(frame: Frame, present: Made, time_limit_s: float) -> Made:
    """The cheapest found that serves as well as what is there, on these machines or fewer."""
    model = frame.model
    lower, upper = model.lower.copy(), model.upper.copy()
    upper[model.columns.workers] = np.maximum(frame.there, lower[model.columns.workers])
    values = solve_within(model, lower, upper, time_limit_s, _SETTLE_GAP)
    if values is None:
        return present
    found = fit(frame, *counts_of(model, values))
    able = not boots(frame, found) and serves_as_well(frame, found, present)
    return found if able and found.score < present.score else present


def workers_up(model: Model, base: Relaxed) -> Ints:
    """The workers of the linear program, rounded up."""
    return np.ceil(base.values[model.columns.workers] - 1e-6).astype(np.intp)


def _plan(frame: Frame, made: Made, base: Relaxed, bound: float, solver: str, forgone: float = 0.0) -> Plan:
    """The plan by names. The bound is that of the objective without what breaks ties and what must be there."""
    problem, model = frame.problem, frame.model
    names = [x.name for x in problem.variants]
    replicas: dict[str, dict[str, int]] = {}
    for place, count in enumerate(made.replicas.tolist()):
        if count > 0:
            by_type = replicas.setdefault(names[model.place_variant[place]], {})
            name = problem.types[model.place_type[place]].name
            by_type[name] = by_type.get(name, 0) + count
    workers = {x.name: int(n) for x, n in zip(problem.types, made.workers, strict=True)}
    flowing = np.flatnonzero(made.flows > LEAST_FLOW_QPS)
    refused = np.flatnonzero(made.refused > LEAST_FLOW_QPS)
    flows = tuple(
        Flow(
            query_class=problem.classes[model.option_class[x]].name,
            variant=names[model.option_variant[x]],
            rate_qps=float(made.flows[x]),
        )
        for x in flowing
    )
    return Plan(
        workers=workers,
        replicas=replicas,
        spare=spare_replicas(problem, workers, replicas, flows),
        flows=flows,
        refused_qps={problem.classes[x].name: float(made.refused[x]) for x in refused},
        beyond_slo_qps=beyond_slo_of(problem, model, made.flows),
        objective_usd_per_hour=made.objective_usd_per_hour,
        bound_usd_per_hour=max(0.0, bound - model.tie_usd_per_hour - made.missing_usd_per_hour),
        machines_usd_per_hour=made.machines_usd_per_hour,
        forgone_usd_per_hour=forgone,
        marginal_usd_per_1k={
            x.name: float(price) / USD_PER_1K_IN_HOUR for x, price in zip(problem.classes, base.price, strict=True)
        },
        solver=solver,
    )
