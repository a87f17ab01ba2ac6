"""`python -m benchmarks.planner`: how long plans take and how good they are; one JSON line last."""

import argparse
import json
import os
from dataclasses import replace
from time import perf_counter

from benchmarks.measure import Spread, figure, machine, spread
from benchmarks.planner.controller import STRATEGIES, turn_ms
from benchmarks.planner.world import LARGE, PAPER, Size, change_demand, follow, make_problem
from infaas_ray.policy.planner.problem import Plan, PlanProblem
from infaas_ray.policy.planner.solve import solve

_TIME_LIMIT_S = 2.0
_GAP = 0.01


def main() -> None:
    """Measure, print tables, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, whatever threads the solver starts
    print(machine())
    solve(make_problem(replace(PAPER, classes=20), 0))  # imports and first calls are not what is measured
    print("\n| problem | seed | s | gap | $/h | workers | replicas | way |\n|---|---|---|---|---|---|---|---|")
    seeds = range(1, options.seeds + 1)
    paper = _measured("paper", PAPER, seeds)
    large = _measured("large", LARGE, seeds)
    followed = _measured("paper, a fleet runs", PAPER, seeds, followed=True)
    sparse = _measured("paper, a tenth of the load", replace(PAPER, rows_qps=PAPER.rows_qps / 10), seeds)
    dense = _measured("paper, ten times the load", replace(PAPER, rows_qps=PAPER.rows_qps * 10), seeds)
    rows = {"paper": paper, "large": large, "a fleet runs": followed, "a tenth": sparse, "ten times": dense}
    print(f"\n| problem | s: median [least-greatest] of {len(seeds)} seeds | gap |\n|---|---|---|")
    for name, (took, gap) in rows.items():
        print(f"| {name} | {took} | {gap} |")
    turns = {name: [x for seed in (1, 2, 3) for x in turn_ms(name, options.turns, seed)] for name in STRATEGIES}
    print()
    for strategy, ms in turns.items():
        print(f"a turn of {strategy!r} with 1,000 workers and 10,000 replicas: {spread(ms)} ms")
    print()
    numbers = {
        "paper_size_s": paper[0].median,
        "paper_size_gap": paper[1].median,
        "large_s": large[0].median,
        "large_gap": large[1].median,
        "controller_step_ms": max(spread(x).median for x in turns.values()),
    }
    print(json.dumps({name: round(value, 5) for name, value in numbers.items()}))


def _measured(name: str, size: Size, seeds: range, *, followed: bool = False) -> tuple[Spread, Spread]:
    """Seconds and gaps over the seeds."""
    times, gaps = [], []
    for seed in seeds:
        problem = make_problem(size, seed)
        if followed:
            problem = follow(problem, solve(change_demand(problem, seed), _TIME_LIMIT_S, _GAP))
        started = perf_counter()
        plan = solve(problem, _TIME_LIMIT_S, _GAP)
        took = perf_counter() - started
        times.append(took)
        gaps.append(plan.gap)
        print(_row(name, seed, took, problem, plan), flush=True)
    return spread(times), spread(gaps)


def _row(name: str, seed: int, took: float, problem: PlanProblem, plan: Plan) -> str:
    workers = " + ".join(f"{plan.workers[x.name]} {x.name}" for x in problem.types)
    replicas = sum(sum(x.values()) for x in plan.replicas.values())
    cost = figure(plan.objective_usd_per_hour)
    return f"| {name} | {seed} | {took:.2f} | {plan.gap:.2%} | {cost} | {workers} | {replicas} | {plan.solver} |"


if __name__ == "__main__":
    main()
