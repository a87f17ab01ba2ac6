"""Made-up planning problems of any size: variants with real trade-offs, worker types at the catalogue's prices.

Rule: the same size and seed give the same problem. Architectures of a use case get more accurate as they get heavier,
over three orders of magnitude. Each has eight variants: on processors full precision and int8 with one thread or four
(2.8 times as fast, int8 half a point less accurate and twice as fast), on a GPU two precisions (a large fixed cost of a
batch, cheap rows), on Neuron cores two batch limits. The demand of query classes is Zipf's, and is not related to what
a class costs; so is what is running at the time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from infaas_ray.policy.planner.problem import (
    Plan,
    PlanClass,
    PlanOption,
    PlanPlace,
    PlanProblem,
    PlanType,
    PlanVariant,
)

_CATALOG = Path(__file__).parents[2] / "configs" / "catalogs" / "aws.yaml"
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_SLO_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, None)
_OVERSUBSCRIPTION = 4.0
_DEVICE_MEMORY = 24 * 2**30
_GIB = 2**30
_REFUSAL_USD_PER_1K = 1.0
_DEGRADED_USD_PER_1K = 0.05  # for a point of accuracy less than asked
_MOST_POINTS = 3.0  # less accurate than asked than this is no answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a problem is. `rows_qps` is the demand in all, `limit` how many workers of each type there may be."""

    architectures: int
    use_cases: int
    classes: int
    rows_qps: float
    limit: int


PAPER = Size(architectures=100, use_cases=25, classes=200, rows_qps=50_000.0, limit=200)
LARGE = Size(architectures=125, use_cases=100, classes=400, rows_qps=24e6, limit=20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A variant: a batch of b rows takes `fixed_s` + b `row_s`; accuracy in points."""

    name: str
    use_case: int
    architecture: int
    kind: str
    accuracy: float
    fixed_s: float
    row_s: float
    batch_limit: int
    threads: int
    memory_bytes: float
    device_memory_bytes: float
    load_s: float

    def planned(self, slo_s: float | None) -> tuple[float, float] | None:
        """Rows a second and busy seconds per row at the best batch that leaves half of the bound to wait; None if none.

        What is left of the bound allows a higher use: from 60 % of the time busy when tight to 90 % when loose.
        """
        best: tuple[float, float] | None = None
        for batch in _BATCHES:
            took_s = self.fixed_s + batch * self.row_s
            if batch > self.batch_limit or (slo_s is not None and 2 * took_s > slo_s):
                break
            use = 0.9 if slo_s is None else 0.6 + 0.3 * (1.0 - 2 * took_s / slo_s)
            rate = use * batch / took_s
            if best is None or rate > best[0]:
                best = rate, took_s / batch
        return best


def make_problem(size: Size, seed: int) -> PlanProblem:
    """A problem in which nothing runs yet."""
    rng = random.Random(seed)
    types = _types(size.limit)
    made = [x for number in range(size.architectures) for x in _architecture(number, size.use_cases, rng)]
    return PlanProblem(
        types=types,
        variants=tuple(_variant(x, [y.name for y in types]) for x in made),
        classes=_classes(made, size, rng),
        utilization=0.9,
    )


def change_demand(problem: PlanProblem, seed: int) -> PlanProblem:
    """The same problem some minutes earlier: each class asked for between half and double of what it does now."""
    rng = random.Random(seed)
    classes = tuple(replace(x, demand_qps=x.demand_qps * 2.0 ** rng.uniform(-1.0, 1.0)) for x in problem.classes)
    return replace(problem, classes=classes)


def follow(made: PlanProblem, plan: Plan) -> PlanProblem:
    """The same problem with what a plan asked for running already."""
    return replace(
        made,
        types=tuple(replace(x, now=plan.workers[x.name]) for x in made.types),
        variants=tuple(
            replace(
                x,
                places=tuple(
                    replace(y, now=plan.replicas.get(x.name, {}).get(made.types[y.worker_type].name, 0))
                    for y in x.places
                ),
            )
            for x in made.variants
        ),
    )


def _types(limit: int) -> tuple[PlanType, ...]:
    listed = yaml.safe_load(_CATALOG.read_text())["worker_types"]
    return tuple(
        PlanType(
            name=x["name"],
            resources={**{k: float(v) for k, v in x["resources"].items()}, "memory": x["memory_gib"] * 0.9 * _GIB},
            usd_per_hour=x["usd_per_hour"],
            boot_usd_per_hour=x["usd_per_hour"] * 0.1,  # a minute of boot in a plan that holds for ten
            boot_usd=x["usd_per_hour"] / 60,
            most=limit,
        )
        for x in listed
        if x["name"] in ("cpu", "gpu", "neuron")
    )


def _architecture(number: int, use_cases: int, rng: random.Random) -> list[_Made]:
    weight = rng.random()  # 0 light, 1 heavy
    core_s = 0.001 * 300.0**weight * rng.uniform(0.7, 1.4)  # a row on one core at full precision
    accuracy = 65.0 + 25.0 * weight**0.6 + rng.gauss(0.0, 1.5)
    weights_bytes = 20e6 * 100.0**weight * rng.uniform(0.7, 1.4)
    gpu_s, neuron_s = core_s / rng.uniform(40, 120), core_s / rng.uniform(15, 50)

    def made(form: str, fixed_s: float, row_s: float, limit: int, size: float, less: float = 0.0) -> _Made:
        kind, threads = form.partition("-")[0], int(form.rpartition("t")[2]) if form.startswith("cpu") else 1
        memory = 250e6 + weights_bytes * size * 2 if kind == "cpu" else 1.2e9 + weights_bytes
        return _Made(
            name=f"net{number}@{form}",
            use_case=number % use_cases,
            architecture=number,
            kind=kind,
            accuracy=accuracy - less,
            fixed_s=fixed_s,
            row_s=row_s,
            batch_limit=limit,
            threads=threads,
            memory_bytes=memory,
            device_memory_bytes=600e6 + weights_bytes * size * 3 if kind == "gpu" else 0.0,
            load_s=0.5 + memory / 500e6 + (5.0 if kind != "cpu" else 0.0),
        )

    fast = rng.uniform(1.6, 2.4)  # int8 over full precision
    return [
        made("cpu-fp32-t1", 0.0005, core_s, 8, 1.0),
        made("cpu-int8-t1", 0.0005, core_s / fast, 8, 0.3, rng.uniform(0.1, 1.0)),
        made("cpu-fp32-t4", 0.0008, core_s / 2.8, 16, 1.0),
        made("cpu-int8-t4", 0.0008, core_s / fast / 2.8, 16, 0.3, rng.uniform(0.1, 1.0)),
        made("gpu-fp32-b32", 0.002 + 4 * gpu_s, gpu_s, 32, 1.0),
        made("gpu-fp16-b64", 0.002 + 3 * gpu_s, gpu_s / rng.uniform(1.5, 2.5), 64, 0.5, rng.uniform(0.0, 0.1)),
        made("neuron-bf16-b1", 0.001, neuron_s * 1.5, 1, 0.5, rng.uniform(0.0, 0.2)),
        made("neuron-bf16-b8", 0.002, neuron_s, 8, 0.5, rng.uniform(0.0, 0.2)),
    ]


def _variant(made: _Made, types: Sequence[str]) -> PlanVariant:
    match made.kind:
        case "cpu":
            holds = {"CPU": made.threads / _OVERSUBSCRIPTION}
            works = {"CPU": float(made.threads)}
        case "gpu":
            beside = max(1, min(16, int(_DEVICE_MEMORY // made.device_memory_bytes)))
            holds, works = {"GPU": 1.0 / beside, "CPU": 0.25}, {"GPU": 1.0, "CPU": 0.5}
        case _:
            holds, works = {"neuron_cores": 1.0, "CPU": 0.25}, {"neuron_cores": 1.0, "CPU": 0.25}
    place = PlanPlace(
        worker_type=types.index(made.kind),
        holds={**holds, "memory": made.memory_bytes},
        works=works,
        start_usd_per_hour=made.load_s * 0.0002,
    )
    return PlanVariant(name=made.name, places=(place,))


def _classes(made: Sequence[_Made], size: Size, rng: random.Random) -> tuple[PlanClass, ...]:
    weights = [1.0 / rank for rank in range(1, size.classes + 1)]
    rng.shuffle(weights)
    whole = sum(weights)
    found = []
    for number, weight in enumerate(weights):
        options: tuple[PlanOption, ...] = ()
        name = ""
        while not options:  # a class that no variant can answer is not asked for
            name, options = _class(made, number, size, rng)
        found.append(
            PlanClass(
                name=name,
                demand_qps=size.rows_qps * weight / whole,
                options=options,
                refusal_usd_per_1k=_REFUSAL_USD_PER_1K,
            )
        )
    return tuple(found)


def _class(made: Sequence[_Made], number: int, size: Size, rng: random.Random) -> tuple[str, tuple[PlanOption, ...]]:
    """Seven in ten ask for a use case, the others for an architecture; a bound on accuracy for half of the former."""
    use_case = number % size.use_cases
    of_it = [x for x in made if x.use_case == use_case]
    least = 0.0
    slo_s = rng.choice(_SLO_S)
    if rng.random() < 0.3:
        architecture = rng.choice(of_it).architecture
        able = [x for x in made if x.architecture == architecture]
        target = f"net{architecture}"
    else:
        able, target = of_it, f"use{use_case}"
        if rng.random() < 0.5:
            least = rng.choice(of_it).accuracy - 0.5
    index = {x.name: n for n, x in enumerate(made)}
    options = []
    for x in able:
        planned = x.planned(slo_s)
        missing = max(0.0, least - x.accuracy)
        if planned is not None and missing <= _MOST_POINTS:
            options.append(
                PlanOption(
                    variant=index[x.name],
                    rate_qps=planned[0],
                    busy_s=planned[1],
                    penalty_usd_per_1k=missing * _DEGRADED_USD_PER_1K,
                    beyond_slo=missing > 0,
                )
            )
    bound = "any" if slo_s is None else f"{slo_s * 1e3:g}ms"
    return f"{number}:{target}/{bound}/{least:.1f}", tuple(options)
