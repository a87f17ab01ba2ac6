"""What routers know: the offers (variants with their profile and price) and the replicas that can answer.

A `RoutingTable` is an immutable, versioned snapshot, made by the controller and pushed to every router. It holds
facts only; `policy.selection` builds its index from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from infaas_ray.domain import Architecture, Profile, Variant, WorkerType


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A variant that may be chosen: its profile here and its price in US dollars per 1,000 rows.

    It runs on the named `worker_types`; where none is named, on every type that has what it needs.
    """

    variant: Variant
    profile: Profile
    usd_per_1k: float
    worker_types: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.variant.name

    @property
    def accuracy(self) -> float:
        """Accuracy in 0..1."""
        return self.profile.accuracy.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything registered, as policies see it. `offers` by variant name, `architectures` and `worker_types` by name.

    A worker whose type is not in `worker_types` is used, but never asked for or given back.
    """

    revision: int = 0
    worker_types: Mapping[str, WorkerType] = field(default_factory=dict)
    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    offers: Mapping[str, Offer] = field(default_factory=dict)

    def targets(self) -> dict[str, tuple[str, ...]]:
        """Map each name a query may use to the variants behind it.

        Names are `task:dataset`, an architecture, or a variant; a bare task too where it has one dataset only.
        """
        found: dict[str, list[str]] = {}
        datasets: dict[str, set[str]] = {}
        for name, offer in self.offers.items():
            use_case = self.architectures[offer.variant.architecture].use_case
            datasets.setdefault(use_case.task, set()).add(use_case.name)
            for key in (use_case.name, offer.variant.architecture, name):
                found.setdefault(key, []).append(name)
        for task, names in datasets.items():
            if len(names) == 1 and task not in found:
                found[task] = found[next(iter(names))]
        return {key: tuple(names) for key, names in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReplica:
    """A replica that takes queries. `address` is opaque here; the channel understands it."""

    id: str
    variant: str
    worker: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """A snapshot for routers.

    `loading` maps a variant to the seconds after which its first replica is expected, counted from the making of
    the table; `blocked` maps a variant that cannot be loaded now to the reason, and `broken` names those of them
    that only a change of the catalogue can mend. `start_overhead_s` is what the start of a replica takes beyond the
    profiled load: the making of its process.
    """

    version: int = 0
    catalog: Catalog = field(default_factory=Catalog)
    replicas: tuple[ReadyReplica, ...] = ()
    loading: Mapping[str, float] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    start_overhead_s: float = 0.0
