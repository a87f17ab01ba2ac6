"""More replicas where a plan leaves room: a machine that is paid anyway serves better with its cores in use.

Rule: one more at a time of the variant whose replicas are used most (rows over what they carry within their SLOs), as
long as that is more than `_ENOUGH` of it (`_KEPT` for one that is there), on workers of the plan where memory is free
and cores or a device are, so that no replica shares them for it. GPUs are shared anyway: there, one more on a worker
without one of its own (and with one GPU: of several, Ray chooses which). A plan counts the work of all GPUs of a type
together, and which of them is busy the router sees. Nothing depends on spare replicas: they come last and go first.
"""

from collections import Counter
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from infaas_ray.domain import HardwareKind
from infaas_ray.policy.placement import RESOURCE_OF
from infaas_ray.policy.planner.problem import Counts, Flow, PlanPlace, PlanProblem, PlanVariant

_ENOUGH, _KEPT = 0.25, 0.15
_EPSILON = 1e-9
_GPU = RESOURCE_OF[HardwareKind.GPU]


def spare_replicas(
    problem: PlanProblem, workers: Mapping[str, int], replicas: Counts, flows: tuple[Flow, ...]
) -> dict[str, dict[str, int]]:
    """What the workers of a plan have room for beside its replicas, by variant and worker type."""
    variants = {x.name: x for x in problem.variants if x.name in replicas}
    used = _used(problem, flows)
    room = _Room(problem, workers, variants, replicas)
    found: dict[str, dict[str, int]] = {}
    busiest = [(-used[name] / room.count(name), name) for name in variants if used[name] > 0]
    heapify(busiest)
    while busiest:
        minus_load, name = heappop(busiest)
        variant = variants[name]
        enough = _KEPT if room.count(name) < sum(x.now for x in variant.places) else _ENOUGH
        kind = room.take_one(variant) if -minus_load > enough else None
        if kind is None:
            continue
        found.setdefault(name, {})[kind] = found.get(name, {}).get(kind, 0) + 1
        heappush(busiest, (-used[name] / room.count(name), name))
    return found


def _used(problem: PlanProblem, flows: tuple[Flow, ...]) -> dict[str, float]:
    """By variant, how many replicas its rows use up."""
    names = [x.name for x in problem.variants]
    rates = {(asked.name, names[x.variant]): x.rate_qps for asked in problem.classes for x in asked.options}
    used = dict.fromkeys(names, 0.0)
    for flow in flows:
        used[flow.variant] += flow.rate_qps / rates[flow.query_class, flow.variant]
    return used


class _Room:
    """What is free on the workers of a plan.

    `_free` where each replica has what it works with for itself, `_unheld` where it has what it occupies.
    """

    def __init__(
        self, problem: PlanProblem, workers: Mapping[str, int], variants: Mapping[str, PlanVariant], replicas: Counts
    ) -> None:
        self._types = problem.types
        self._workers = workers
        self._free = [
            {name: x * workers.get(kind.name, 0) for name, x in kind.resources.items()} for kind in self._types
        ]
        self._unheld = [dict(x) for x in self._free]
        self._counts: Counter[tuple[str, int]] = Counter()  # by variant and worker type
        self._totals: Counter[str] = Counter()
        for name, variant in variants.items():
            for place in variant.places:
                self._take(variant, place, replicas[name].get(self._types[place.worker_type].name, 0))

    def count(self, variant: str) -> int:
        """The replicas of a variant."""
        return self._totals[variant]

    def take_one(self, variant: PlanVariant) -> str | None:
        """Make room for one more replica where the most is free; the worker type, None where it has no room."""
        if self.count(variant.name) >= variant.most:
            return None
        places = [x for x in variant.places if _fits(_alone(x), self._free[x.worker_type])]
        places = places or [x for x in variant.places if self._has_gpu_for(variant, x)]
        place = max(places, key=self._left, default=None)
        if place is None:
            return None
        self._take(variant, place, 1)
        return self._types[place.worker_type].name

    def _has_gpu_for(self, variant: PlanVariant, place: PlanPlace) -> bool:
        """Whether there is a worker with one GPU and without a replica of this variant, with room for one."""
        kind = self._types[place.worker_type]
        shared = kind.resources.get(_GPU) == 1.0 and place.holds.get(_GPU, 0.0) > 0.0
        without = self._counts[variant.name, place.worker_type] < self._workers.get(kind.name, 0)
        return shared and without and _fits(place.holds, self._unheld[place.worker_type])

    def _left(self, place: PlanPlace) -> float:
        """For how many replicas there is room at most."""
        unheld = self._unheld[place.worker_type]
        return min(unheld[name] / amount for name, amount in place.holds.items() if amount > 0)

    def _take(self, variant: PlanVariant, place: PlanPlace, count: int) -> None:
        self._counts[variant.name, place.worker_type] += count
        self._totals[variant.name] += count
        for free, needs in ((self._free, _alone(place)), (self._unheld, place.holds)):
            for name, amount in needs.items():
                free[place.worker_type][name] -= amount * count


def _alone(place: PlanPlace) -> dict[str, float]:
    """What a replica takes that shares nothing."""
    return {name: max(amount, place.works.get(name, 0.0)) for name, amount in place.holds.items()}


def _fits(needs: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return all(free[name] + _EPSILON >= amount for name, amount in needs.items())
