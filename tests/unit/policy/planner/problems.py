"""Small planning problems, and what is true of them by going through all plans one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import linprog

from infaas_ray.policy.planner.problem import (
    Plan,
    PlanClass,
    PlanOption,
    PlanPlace,
    PlanProblem,
    PlanType,
    PlanVariant,
)

Counts = tuple[int, ...]


def worker(name: str = "cpu", cpu: float = 4.0, usd: float = 1.0, **more: float) -> PlanType:
    limits = {x: int(more[x]) for x in ("now", "least", "most") if x in more}
    return PlanType(
        name=name,
        resources={"CPU": cpu},
        usd_per_hour=usd,
        boot_usd_per_hour=more.get("boot", 0.0),
        boot_usd=more.get("boot_usd", 0.0),
        **{"most": 10, **limits},
    )


def at(holds: float = 1.0, works: float | None = None, on: int = 0, now: int = 0, start: float = 0.0) -> PlanPlace:
    busy = holds if works is None else works
    return PlanPlace(worker_type=on, holds={"CPU": holds}, works={"CPU": busy}, now=now, start_usd_per_hour=start)


def variant(name: str = "a", *places: PlanPlace, least: int = 0, most: int = 10_000) -> PlanVariant:
    return PlanVariant(name=name, places=places or (at(),), least=least, most=most)


def option(
    number: int = 0, rate: float = 10.0, penalty: float = 0.0, use: float = 1.0, beyond: bool = False
) -> PlanOption:
    return PlanOption(variant=number, rate_qps=rate, busy_s=use / rate, penalty_usd_per_1k=penalty, beyond_slo=beyond)


def asked(demand: float = 10.0, *options: PlanOption, name: str = "c", refusal: float = 10.0) -> PlanClass:
    return PlanClass(name=name, demand_qps=demand, options=options, refusal_usd_per_1k=refusal)


def problem(
    types: Sequence[PlanType], variants: Sequence[PlanVariant], classes: Sequence[PlanClass], utilization: float = 1.0
) -> PlanProblem:
    return PlanProblem(types=tuple(types), variants=tuple(variants), classes=tuple(classes), utilization=utilization)


# ---- the truth, by enumeration ---------------------------------------------------------------------------------------


def places_of(made: PlanProblem) -> list[tuple[int, PlanPlace]]:
    return [(number, x) for number, found in enumerate(made.variants) for x in found.places]


def flow_usd(
    made: PlanProblem, workers: Counts, replicas: Counts, flows: Mapping[tuple[int, int], float] | None = None
) -> float | None:
    """Penalties and refusals of the best flows with these counts, or of the given flows; None where they cannot be."""
    places = places_of(made)
    pairs = [(c, x) for c, found in enumerate(made.classes) for x in found.options]
    flow, busy = len(pairs), len(places)
    cost = [x.penalty_usd_per_1k * 3.6 for _, x in pairs] + [0.0] * busy
    cost += [x.refusal_usd_per_1k * 3.6 for x in made.classes]
    rows, limits = [], []
    for number in range(len(made.variants)):
        own = [p for p, (v, _) in enumerate(places) if v == number]
        room = [1 / x.rate_qps if x.variant == number else 0.0 for _, x in pairs]
        time = [x.busy_s if x.variant == number else 0.0 for _, x in pairs]
        rows.append(room + [0.0] * (busy + len(made.classes)))
        limits.append(float(sum(replicas[p] for p in own)))
        rows.append(time + [-1.0 if p in own else 0.0 for p in range(busy)] + [0.0] * len(made.classes))
        limits.append(0.0)
    for number, found in enumerate(made.types):
        for name, have in found.resources.items():
            works = [x.works.get(name, 0.0) if x.worker_type == number else 0.0 for _, x in places]
            rows.append([0.0] * flow + works + [0.0] * len(made.classes))
            limits.append(made.utilization * have * workers[number])
    equal = [
        [1.0 if c == number else 0.0 for c, _ in pairs]
        + [0.0] * busy
        + [float(c == number) for c in range(len(made.classes))]
        for number in range(len(made.classes))
    ]
    given = [(0.0, None) if flows is None else (x := flows.get((c, o.variant), 0.0), x + 1e-6) for c, o in pairs]
    bounds = given + [(0.0, float(n)) for n in replicas] + [(0.0, None)] * len(made.classes)
    found = linprog(
        cost,
        A_ub=np.array(rows),
        b_ub=np.array(limits) + 1e-7,
        A_eq=np.array(equal),
        b_eq=[x.demand_qps for x in made.classes],
        bounds=bounds,
    )
    return float(found.fun) if found.status == 0 else None


def fixed_usd(made: PlanProblem, workers: Counts, replicas: Counts) -> float:
    """Machines and changes."""
    pairs = zip(made.types, workers, strict=True)
    machines = sum(n * x.usd_per_hour + max(0, n - x.now) * x.boot_usd_per_hour for x, n in pairs)
    places = zip(places_of(made), replicas, strict=True)
    return machines + sum(max(0, n - x.now) * x.start_usd_per_hour for (_, x), n in places)


def fits_in_sum(made: PlanProblem, workers: Counts, replicas: Counts) -> bool:
    """Whether all replicas of a type hold no more than all its workers have, and each would fit into an empty one."""
    placed = [(x, n) for (_, x), n in zip(places_of(made), replicas, strict=True) if n > 0]
    for number, found in enumerate(made.types):
        here = [(x, n) for x, n in placed if x.worker_type == number]
        for name in {name for x, _ in here for name in x.holds}:
            have = found.resources.get(name, 0.0)
            if any(x.holds.get(name, 0.0) > have for x, _ in here):
                return False
            if sum(n * x.holds.get(name, 0.0) for x, n in here) > have * workers[number] + 1e-9:
                return False
    return True


def fits_one_by_one(made: PlanProblem, workers: Counts, replicas: Counts) -> bool:
    """Whether there is any way to put each replica into one worker, all ways tried."""
    for number, found in enumerate(made.types):
        pairs = zip(places_of(made), replicas, strict=True)
        items = [x.holds for (_, x), n in pairs if x.worker_type == number for _ in range(n)]
        items.sort(key=lambda x: -max(x.values()))
        if not _put(items, [dict(found.resources) for _ in range(workers[number])]):
            return False
    return True


def _put(items: list[Mapping[str, float]], bins: list[dict[str, float]]) -> bool:
    if not items:
        return True
    seen = []
    for free in bins:
        if free in seen or any(free.get(name, 0.0) + 1e-9 < x for name, x in items[0].items()):
            continue
        seen.append(dict(free))
        before = dict(free)
        for name, x in items[0].items():
            free[name] -= x
        if _put(items[1:], bins):
            return True
        free.update(before)
    return False


def _counts(made: PlanProblem, most: int) -> Iterator[tuple[float, Counts, Counts]]:
    """All counts with so many replicas at a place at most, by what they cost without flows."""
    places = places_of(made)
    every = product(
        product(*(range(x.least, x.most + 1) for x in made.types)), product(range(most + 1), repeat=len(places))
    )
    found = []
    for workers, replicas in every:
        sums = [sum(n for (v, _), n in zip(places, replicas, strict=True) if v == x) for x in range(len(made.variants))]
        if all(x.least <= n <= x.most for x, n in zip(made.variants, sums, strict=True)):
            found.append((fixed_usd(made, workers, replicas), workers, replicas))
    return iter(sorted(found))


def cheapest(made: PlanProblem, most: int) -> tuple[float, float]:
    """The cost of the best of all plans: where replicas need to fit in sum only, and where they fit one by one."""
    in_sum = one_by_one = float("inf")
    for fixed, workers, replicas in _counts(made, most):
        if fixed >= one_by_one:
            break
        if fits_in_sum(made, workers, replicas):
            flow = flow_usd(made, workers, replicas)
            assert flow is not None
            in_sum = min(in_sum, fixed + flow)
            if fixed + flow < one_by_one and fits_one_by_one(made, workers, replicas):
                one_by_one = fixed + flow
    return in_sum, one_by_one


def check(made: PlanProblem, plan: Plan) -> None:
    """The plan keeps every limit, serves or refuses every row, and costs what it says."""
    workers = tuple(plan.workers[x.name] for x in made.types)
    replicas = tuple(
        plan.replicas.get(made.variants[v].name, {}).get(made.types[x.worker_type].name, 0) for v, x in places_of(made)
    )
    assert all(x.least <= n <= x.most for x, n in zip(made.types, workers, strict=True))
    assert all(sum(plan.replicas.get(x.name, {}).values()) <= x.most for x in made.variants)
    assert fits_in_sum(made, workers, replicas)
    names = {x.name: n for n, x in enumerate(made.classes)}
    numbers = {x.name: n for n, x in enumerate(made.variants)}
    flows = {(names[x.query_class], numbers[x.variant]): x.rate_qps for x in plan.flows}
    for number, found in enumerate(made.classes):
        served = sum(x for (c, _), x in flows.items() if c == number)
        beyond = sum(flows.get((number, x.variant), 0.0) for x in found.options if x.beyond_slo)
        assert abs(plan.beyond_slo_qps.get(found.name, 0.0) - beyond) < 1e-6
        assert abs(served + plan.refused_qps.get(found.name, 0.0) - found.demand_qps) < 1e-4 * (1 + found.demand_qps)
    given = {key: max(0.0, x - 1e-7) for key, x in flows.items()}
    flow = flow_usd(made, workers, replicas, given)
    assert flow is not None
    cost = fixed_usd(made, workers, replicas) + flow
    assert abs(plan.objective_usd_per_hour - cost) < 1e-3 * (1 + cost)
    assert plan.bound_usd_per_hour <= plan.objective_usd_per_hour + 1e-6


# ---- random ones -----------------------------------------------------------------------------------------------------

_places = st.builds(
    at,
    holds=st.sampled_from([0.5, 1.0, 1.5, 3.0]),
    works=st.sampled_from([0.5, 1.0, 2.0]),
    on=st.integers(0, 1),
    now=st.integers(0, 1),
    start=st.sampled_from([0.0, 0.1]),
)
_variants = st.builds(
    lambda name, places, limits: variant(name, *places, least=limits[0], most=limits[1]),
    st.just("v"),
    st.lists(_places, min_size=1, max_size=2, unique_by=lambda x: x.worker_type),
    st.sampled_from([(0, 10_000), (0, 10_000), (0, 1), (1, 10_000)]),
)
_types = st.builds(
    worker,
    cpu=st.sampled_from([2.0, 4.0]),
    usd=st.sampled_from([0.5, 1.0, 1.3]),
    now=st.integers(0, 1),
    most=st.integers(1, 2),
    boot=st.sampled_from([0.0, 0.2]),
)
_within = st.tuples(st.sampled_from([0.0, 0.0, 0.01]), st.just(False))
_beyond = st.tuples(st.sampled_from([0.02, 0.05, 2.0]), st.just(True))  # some dearer to degrade than to refuse
_options = st.builds(
    lambda number, rate, use, priced: option(number, rate, priced[0], use, priced[1]),
    st.integers(0, 2),
    st.sampled_from([3.0, 10.0, 30.0]),
    st.sampled_from([0.6, 1.0]),
    _within | _beyond,
)
_classes = st.builds(
    lambda demand, options, refusal: asked(demand, *options, refusal=refusal),
    st.sampled_from([1.0, 5.0, 12.0, 40.0]),
    st.lists(_options, min_size=1, max_size=3, unique_by=lambda x: x.variant),
    st.sampled_from([0.01, 0.1, 10.0]),
)


def _numbered(made: PlanProblem) -> PlanProblem:
    return replace(
        made,
        types=tuple(replace(x, name=f"t{n}") for n, x in enumerate(made.types)),
        variants=tuple(replace(x, name=f"v{n}") for n, x in enumerate(made.variants)),
        classes=tuple(replace(x, name=f"c{n}") for n, x in enumerate(made.classes)),
    )


small_problems = st.builds(
    problem,
    st.lists(_types, min_size=2, max_size=2),
    st.lists(_variants, min_size=3, max_size=3),
    st.lists(_classes, min_size=1, max_size=3),
    st.sampled_from([0.8, 1.0]),
).map(_numbered)
