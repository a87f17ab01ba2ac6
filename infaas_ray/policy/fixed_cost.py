"""What it would have cost to serve a use case by its most accurate variant, fixed, on machines of its own.

The fleet that people have without model-less serving: the variant's replicas for the greatest rate that was seen, with
`SLACK`, on whole machines of the type that is cheapest for it, for all the time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, floor

from infaas_ray.domain import WorkerType
from infaas_ray.policy.placement import RESOURCE_OF, needs_of, runs_on
from infaas_ray.policy.routing import Offer

SLACK = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedFleet:
    """So many machines of a type with so many replicas of a variant each, and their price in all."""

    variant: str
    worker_type: str
    machines: int
    replicas: int
    usd: float


def fixed_fleet(
    offers: Iterable[Offer], types: Mapping[str, WorkerType], peak_qps: float, seconds: float
) -> FixedFleet | None:
    """The cheapest fleet of the most accurate of the offers for that peak; None where no type can run it."""
    best = max(offers, key=lambda x: (x.accuracy, -x.usd_per_1k), default=None)
    if best is None:
        return None
    replicas = max(1, ceil(peak_qps * SLACK / best.profile.saturation_qps - 1e-9))
    fleets = []
    for kind in types.values():
        beside = _per_machine(best, kind)
        if beside > 0:
            machines = ceil(replicas / beside)
            usd = machines * kind.usd_per_hour * seconds / 3600
            fleets.append(
                FixedFleet(variant=best.name, worker_type=kind.name, machines=machines, replicas=replicas, usd=usd)
            )
    return min(fleets, key=lambda x: (x.usd, x.worker_type), default=None)


def _per_machine(offer: Offer, kind: WorkerType) -> int:
    """How many replicas compute side by side on a machine without sharing cores or devices."""
    if not runs_on(offer, kind.name, kind.resources):
        return 0
    needs = needs_of(offer, 1.0, kind)
    units = needs.amount if needs.resource != "GPU" else 1.0
    by_resource = floor(kind.resources[RESOURCE_OF[offer.variant.hardware]] / units + 1e-9)
    return min(by_resource, kind.memory_bytes // max(1, needs.memory_bytes))
