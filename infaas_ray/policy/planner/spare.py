"""More replicas where a plan leaves room: a machine that is paid anyway serves better with its cores in use.

Rule: one more at a time of the variant whose replicas are used most (rows over what they carry within their SLOs), as
long as that is more than `_ENOUGH` of it (`_KEPT` for one that is there), on workers of the plan where memory is free
and cores or a device are, so that no replica shares them for it. Nothing depends on spare replicas: they come last and
go first.
"""

from collections import Counter
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from infaas_ray.policy.planner.problem import Counts, Flow, PlanPlace, PlanProblem, PlanVariant

_ENOUGH, _KEPT = 0.25, 0.15
_EPSILON = 1e-9


def spare_replicas(
    problem: PlanProblem, workers: Mapping[str, int], replicas: Counts, flows: tuple[Flow, ...]
) -> dict[str, dict[str, int]]:
    """What the workers of a plan have room for beside its replicas, by variant and worker type."""
    variants = {x.name: x for x in problem.variants if x.name in replicas}
    used = _used(problem, flows)
    counts = Counter({name: sum(by_type.values()) for name, by_type in replicas.items()})
    free = _free(problem, workers, variants, replicas)
    found: dict[str, dict[str, int]] = {}
    busiest = [(-used[name] / counts[name], name) for name in variants if used[name] > 0]
    heapify(busiest)
    while busiest:
        minus_load, name = heappop(busiest)
        variant = variants[name]
        enough = _KEPT if counts[name] < sum(x.now for x in variant.places) else _ENOUGH
        place = _room_for(variant, counts[name], free) if -minus_load > enough else None
        if place is None:
            continue
        _take(free[place.worker_type], place)
        kind = problem.types[place.worker_type].name
        found.setdefault(name, {})[kind] = found.get(name, {}).get(kind, 0) + 1
        counts[name] += 1
        heappush(busiest, (-used[name] / counts[name], name))
    return found


def _used(problem: PlanProblem, flows: tuple[Flow, ...]) -> dict[str, float]:
    """By variant, how many replicas its rows use up."""
    names = [x.name for x in problem.variants]
    rates = {(asked.name, names[x.variant]): x.rate_qps for asked in problem.classes for x in asked.options}
    used = dict.fromkeys(names, 0.0)
    for flow in flows:
        used[flow.variant] += flow.rate_qps / rates[flow.query_class, flow.variant]
    return used


def _free(
    problem: PlanProblem, workers: Mapping[str, int], variants: Mapping[str, PlanVariant], replicas: Counts
) -> list[dict[str, float]]:
    """By worker type what is free of its resources, where each replica has what it works with for itself."""
    free = [{name: x * workers.get(kind.name, 0) for name, x in kind.resources.items()} for kind in problem.types]
    for name, by_type in replicas.items():
        for place in variants[name].places if name in variants else ():
            _take(free[place.worker_type], place, by_type.get(problem.types[place.worker_type].name, 0))
    return free


def _room_for(variant: PlanVariant, count: int, free: list[dict[str, float]]) -> PlanPlace | None:
    """Where one more replica fits: where the most is free."""
    if count >= variant.most:
        return None
    able = [x for x in variant.places if all(free[x.worker_type][r] + _EPSILON >= n for r, n in _alone(x).items())]
    return max(able, key=lambda x: min(free[x.worker_type][r] / n for r, n in _alone(x).items() if n > 0), default=None)


def _alone(place: PlanPlace) -> dict[str, float]:
    """What a replica takes that shares nothing."""
    return {name: max(amount, place.works.get(name, 0.0)) for name, amount in place.holds.items()}


def _take(free: dict[str, float], place: PlanPlace, count: int = 1) -> None:
    for name, amount in _alone(place).items():
        free[name] -= amount * count
