"""A made-up system of any size to decide about: catalogue, replicas, loads, and the queries that arrive.

Rule: the same size and seed give the same world. Use cases hold up to 500 variants each (50 architectures of 10), one
replica stands for every ten variants, and a tenth of the variants hold all of them, the first the most.
"""

import random
from typing import NamedTuple

from infaas_ray.domain import (
    SLO,
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    OnMiss,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
)
from infaas_ray.policy.routing import Catalog, Offer, ReadyReplica, RoutingTable
from infaas_ray.policy.selection import ReplicaLoad

_X = TensorSpec(name="x", datatype="FP32", shape=(-1, 8))
_HARDWARE = Hardware(kind=HardwareKind.CPU, model="made up", cores=8, memory_bytes=2**35)
_FORMS = [(f"onnxruntime-{p}", t) for p in ("fp32", "bf16", "int8", "int4", "fp16") for t in (1, 2)]


class Ask(NamedTuple):
    """One query, as far as a decision needs it."""

    target: str
    rows: int
    slo: SLO


class World(NamedTuple):
    """A routing table, the loads of its replicas, and queries in the order of their arrival."""

    table: RoutingTable
    loads: dict[str, ReplicaLoad]
    asks: list[Ask]


def make_world(variants: int, replicas: int, asks: int, seed: int = 1) -> World:
    """A world of that size; `variants` is a multiple of 50."""
    rng = random.Random(seed)
    catalog = _catalog(variants, rng)
    table = RoutingTable(version=1, catalog=catalog, replicas=_replicas(list(catalog.offers), replicas, rng))
    loads = {
        x.id: ReplicaLoad(rows_in_flight=rng.choice((0, 0, 1, 2, 4, 8, 16, 40)), slowdown=rng.uniform(0.8, 2.0))
        for x in table.replicas
    }
    return World(table, loads, [_ask(table, rng) for _ in range(asks)])


def _catalog(variants: int, rng: random.Random) -> Catalog:
    use_cases = max(2, variants // 500)
    architectures: dict[str, Architecture] = {}
    offers: dict[str, Offer] = {}
    for number in range(variants // 10):
        use_case = UseCase(task=f"task{number % use_cases}", dataset="data")
        name = f"net{number}"
        architectures[name] = Architecture(name=name, use_case=use_case, inputs=(_X,), outputs=(_X,))
        scale = rng.lognormvariate(0.0, 1.0)
        for runtime, threads in _FORMS:
            offer = _offer(name, runtime, threads, scale, rng)
            offers[offer.name] = offer
    return Catalog(revision=1, architectures=architectures, offers=offers)


def _offer(architecture: str, form: str, threads: int, scale: float, rng: random.Random) -> Offer:
    """A variant whose accuracy grows with its latency, as those of real families do."""
    runtime, _, precision = form.partition("-")
    variant = Variant(
        architecture=architecture, runtime=runtime, precision=precision, threads=threads, artifact="0" * 64
    )
    row_s = 0.002 * scale * rng.uniform(0.3, 1.0) / threads
    points = []
    for batch in (1, 4, 16):
        p50 = 0.0005 + row_s * batch
        points.append(BatchLatency(batch=batch, p50_s=p50, p95_s=p50 * 1.2, p99_s=p50 * 1.5))
    accuracy = min(0.99, max(0.5, 0.8 + 0.06 * scale + rng.uniform(-0.08, 0.04)))
    profile = Profile(
        variant=variant.name,
        hardware=_HARDWARE,
        load_s=rng.uniform(0.05, 3.0),
        latencies=tuple(points),
        saturation_qps=16 / points[-1].p50_s,
        peak_memory_bytes=2**28,
        accuracy=Accuracy(value=accuracy, metric="top1_accuracy", rows=1000, standard_error=0.01),
    )
    return Offer(variant=variant, profile=profile, usd_per_1k=0.05 * threads / profile.saturation_qps)


def _replicas(variants: list[str], count: int, rng: random.Random) -> tuple[ReadyReplica, ...]:
    loaded = rng.sample(variants, max(1, len(variants) // 10))
    weights = [1 / (rank + 1) ** 0.5 for rank in range(len(loaded))]
    chosen = rng.choices(loaded, weights, k=count)
    return tuple(
        ReadyReplica(id=f"r{number}", variant=variant, worker=f"w{number % 100}", address=f"10.0.0.1:{number}")
        for number, variant in enumerate(chosen)
    )


def _ask(table: RoutingTable, rng: random.Random) -> Ask:
    """Half the queries name a use case, 3 in 10 an architecture, 2 in 10 a variant; 9 in 10 a loaded one."""
    catalog = table.catalog
    loaded = rng.random() < 0.9
    variant = rng.choice(table.replicas).variant if loaded else rng.choice(list(catalog.offers))
    offer = catalog.offers[variant]
    architecture = offer.variant.architecture
    target = rng.choices((catalog.architectures[architecture].use_case.name, architecture, variant), (5, 3, 2))[0]
    return Ask(target, rng.choice((1, 1, 1, 1, 2, 4, 8)), _slo(offer, rng))


def _slo(offer: Offer, rng: random.Random) -> SLO:
    """Bounds of all kinds around what the offer can do, 1 in 10 beyond it."""
    latency = offer.profile.latency_s(16) * rng.uniform(2.0, 20.0)
    accuracy = offer.accuracy - rng.uniform(0.0, 0.1)
    price = offer.usd_per_1k * rng.uniform(1.0, 5.0)
    kinds = (
        SLO(latency_s=latency),
        SLO(latency_s=latency, min_accuracy=accuracy),
        SLO(min_accuracy=accuracy),
        SLO(latency_s=latency, max_usd_per_1k=price),
        SLO(latency_s=latency, min_accuracy=accuracy, max_usd_per_1k=price),
        SLO(),
        SLO(latency_s=latency / 30, min_accuracy=accuracy, on_miss=rng.choice(list(OnMiss))),
    )
    return rng.choices(kinds, (25, 30, 5, 10, 10, 10, 10))[0]
