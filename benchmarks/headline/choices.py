"""Which variant a user fixes who has no model-less serving: chosen by rule from catalogue and workload.

Rule: for each target, those variants are able that meet the SLOs of most of its queries (all of them, wherever one
variant does), by the profiled p99 of a query alone and the accuracy. Among them "accurate" is the most accurate one
(then the quickest, then the cheapest), "fastest" the one with the least median latency (then the highest throughput).
"on CPU" are the same for users who also fix processors, where for each target a variant on processors meets all that is
asked of it. "cheapest" is in `provision`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.headline.load import Load
from infaas_ray.domain import HardwareKind
from infaas_ray.policy.latency import LatencyCurve
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.simulator.workload import QueryKind, Workload

Chosen = Mapping[str, str]  # the variant by target
_SURE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A target, its kinds of query (indices), the tightest bound among them, and the offers that are able."""

    target: str
    kinds: tuple[int, ...]
    bound_s: float
    able: tuple[Offer, ...]
    on_processors: tuple[Offer, ...]


def wishes(catalog: Catalog, workload: Workload, load: Load) -> list[Wish]:
    """One wish for each target that is asked for, in the order of the kinds."""
    by_target: dict[str, list[int]] = {}
    for number, kind in enumerate(workload.kinds):
        by_target.setdefault(kind.target, []).append(number)
    known = catalog.targets()
    return [
        _wish(target, kinds, [catalog.offers[x] for x in known[target]], workload, load)
        for target, kinds in by_target.items()
    ]


def _wish(target: str, kinds: Sequence[int], offers: Sequence[Offer], workload: Workload, load: Load) -> Wish:
    rates = {x: max(load.mean_qps(x), _SURE) for x in kinds}
    met = {offer.name: sum(rates[x] for x in kinds if _meets(offer, workload.kinds[x])) for offer in offers}
    most = max(met.values())
    full = sum(rates.values())
    bounds = [x for kind in kinds if (x := workload.kinds[kind].slo.latency_s) is not None]
    return Wish(
        target=target,
        kinds=tuple(kinds),
        bound_s=min(bounds, default=float("inf")),
        able=tuple(x for x in offers if met[x.name] >= most * (1 - _SURE)),
        on_processors=tuple(
            x for x in offers if x.variant.hardware is HardwareKind.CPU and met[x.name] >= full * (1 - _SURE)
        ),
    )


def _meets(offer: Offer, kind: QueryKind) -> bool:
    """Whether an idle replica would meet the whole SLO of a query of this kind."""
    slo = kind.slo
    if slo.max_usd_per_1k is not None and offer.usd_per_1k > slo.max_usd_per_1k:
        return False
    if offer.accuracy < (slo.min_accuracy or 0.0):
        return False
    return slo.latency_s is None or LatencyCurve(offer.profile, offer.variant.batch_limit)(kind.rows) <= slo.latency_s


def most_accurate(offers: Sequence[Offer]) -> str:
    """The most accurate; of equals the quickest, then the cheapest."""
    return min(offers, key=lambda x: (-x.accuracy, x.profile.median_s(1), x.usd_per_1k, x.name)).name


def fastest(offers: Sequence[Offer]) -> str:
    """The one with the least latency; of equals that with the highest throughput."""
    return min(offers, key=lambda x: (x.profile.median_s(1), -x.profile.saturation_qps, x.name)).name


def fixed_choices(wished: Sequence[Wish]) -> dict[str, Chosen]:
    """What users would fix, by the name of the choice; those on processors only where that is possible."""
    rules: dict[str, Callable[[Sequence[Offer]], str]] = {"accurate": most_accurate, "fastest": fastest}
    found: dict[str, Chosen] = {name: {x.target: rule(x.able) for x in wished} for name, rule in rules.items()}
    if all(x.on_processors for x in wished):
        found |= {f"{name} on CPU": {x.target: rule(x.on_processors) for x in wished} for name, rule in rules.items()}
    return found
