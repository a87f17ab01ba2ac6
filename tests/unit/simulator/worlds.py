"""Small worlds with defaults, so that a test names only what matters."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from infaas_ray.domain import SLO, WorkerType
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.simulator.settings import WorldSettings
from infaas_ray.simulator.workload import Chunk, Poisson, QueryKind, Workload
from infaas_ray.simulator.world import MakeTimes, World
from tests.unit.policy.builders import catalog

CALM = WorldSettings(
    way_s=0.0, control_delay_s=0.0, table_delay_s=0.0, start_overhead_s=0.0, start_jitter=0.0, boot_jitter=0.0
)


@dataclass(frozen=True)
class Given:
    """Arrivals at given times, each of the kind of that number."""

    kinds: tuple[QueryKind, ...]
    arrivals: Sequence[tuple[float, int]]

    def chunks(self, rng: np.random.Generator) -> Iterator[Chunk]:
        times = np.array([x for x, _ in self.arrivals], dtype=float)
        yield Chunk(times, np.array([x for _, x in self.arrivals], dtype=np.int64))


def worker_type(name: str = "cpu", **changes: object) -> WorkerType:
    values = {
        "resources": {"CPU": 4.0},
        "memory_bytes": 8 * 2**30,
        "usd_per_hour": 3.6,
        "boot_s": 10.0,
        "min_workers": 1,
    }
    return WorkerType(name=name, **(values | changes))  # type: ignore[arg-type]


def catalog_with(*offers: Offer, types: Sequence[WorkerType] = ()) -> Catalog:
    return dataclasses.replace(catalog(*offers), worker_types={x.name: x for x in types or [worker_type()]})


def world(
    *offers: Offer,
    workload: Workload | None = None,
    rate_qps: float = 20.0,
    slo: SLO | None = None,
    duration_s: float = 30.0,
    types: Sequence[WorkerType] = (),
    scaling: ScalingSettings | None = None,
    settings: WorldSettings = CALM,
    seed: int = 1,
    times: MakeTimes | None = None,
    **options: object,
) -> World:
    """A world in which queries for the first offer's architecture arrive at random, unless a workload is given."""
    kinds = (QueryKind(target=offers[0].variant.architecture, slo=slo or SLO()),)
    made = workload or Poisson(kinds=kinds, rate_qps=rate_qps, duration_s=duration_s)
    more = options | ({} if times is None else {"times": times})
    return World(
        catalog_with(*offers, types=types),
        made,
        scaling or ScalingSettings(strategy="individual", start_overhead_s=0.0),
        duration_s=duration_s,
        settings=settings,
        seed=seed,
        **more,  # type: ignore[arg-type]
    )
