"""How many replicas of the fixed variants serve a workload's peak, on which machines, and which variants cost least.

Rules: a variant has as many replicas as its peak needs (the highest minute of all that it serves, `load`) at its
throughput in the largest batch that takes at most half of the tightest latency bound; where even one row takes longer,
in the largest that keeps the bound. "cheapest" is what an expert would fix who knows all prices: for each target the
variant with which the machines for the peak of the whole workload cost least, and of equal ones those that are least
busy then. Looked for target by target until no change of one helps; from several beginnings, because a machine that is
there makes what runs on it cheap: with what costs least in proportion, and the same with each kind of hardware
preferred.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

from benchmarks.headline.choices import Chosen, Wish
from benchmarks.headline.load import Load
from benchmarks.headline.packing import Packed, pack
from infaas_ray.domain import HardwareKind
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.policy.scaling.capacity import rate_within

_CANDIDATES = 16  # by target, the cheapest in proportion; a catalogue has thousands
_ROUNDS = 5
_Cost = tuple[float, float]  # dollars an hour, and how busy all variants are at the peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Replicas by variant, how busy each keeps its device at the peak, and the machines that hold them."""

    replicas: Mapping[str, int]
    busy: Mapping[str, float]
    packed: Packed


def rate_qps(offer: Offer, bound_s: float) -> float:
    """Rows a second of a replica by the rule of this module; positive."""
    rate = rate_within(offer, bound_s / 2) or rate_within(offer, bound_s)
    return rate or 1.0 / offer.profile.median_s(1)


def provisioned(
    catalog: Catalog, wished: Sequence[Wish], chosen: Chosen, load: Load, most: Mapping[str, int] | None = None
) -> Fleet:
    """The fleet for the peak, as far as there may be machines for it."""
    replicas: dict[str, int] = {}
    busy: dict[str, float] = {}
    for variant in dict.fromkeys(chosen.values()):
        served = [x for x in wished if chosen[x.target] == variant]
        peak = load.peak_qps([kind for x in served for kind in x.kinds])
        rate = rate_qps(catalog.offers[variant], min(x.bound_s for x in served))
        replicas[variant] = max(1, ceil(peak / rate - 1e-9))
        busy[variant] = min(1.0, peak / rate / replicas[variant])
    return Fleet(replicas=replicas, busy=busy, packed=pack(replicas, busy, catalog, most))


def cheapest(
    catalog: Catalog, wished: Sequence[Wish], load: Load, most: Mapping[str, int] | None = None
) -> dict[str, str]:
    """The variants that cost least, by target; see the top."""
    able = {x.target: _by_share(catalog, x, load) for x in wished}
    options = {target: found[:_CANDIDATES] for target, found in able.items()}

    def cost(chosen: Chosen) -> _Cost:
        fleet = provisioned(catalog, wished, chosen, load, most)
        return round(fleet.packed.usd_per_hour(catalog), 6), round(sum(fleet.busy.values()), 6)

    beginnings = [{target: found[0] for target, found in options.items()}]
    for kind in HardwareKind:
        preferred = {
            target: next((x for x in found if catalog.offers[x].variant.hardware is kind), found[0])
            for target, found in able.items()
        }
        if preferred not in beginnings:
            beginnings.append(preferred)
    found = [_descend(x, options, cost) for x in beginnings]
    return min(found, key=lambda x: x[0])[1]


def _descend(
    chosen: dict[str, str], options: Mapping[str, Sequence[str]], cost: Callable[[Chosen], _Cost]
) -> tuple[_Cost, dict[str, str]]:
    """Change one target's variant at a time, as long as that helps."""
    best = cost(chosen)
    for _ in range(_ROUNDS):
        before = best
        for target, candidates in options.items():
            for variant in candidates:
                changed = chosen | {target: variant}
                found = cost(changed)
                if found < best:
                    chosen, best = changed, found
        if best == before:
            break
    return best, chosen


def _by_share(catalog: Catalog, wish: Wish, load: Load) -> list[str]:
    """The able variants by what their share of machines costs for the target's peak alone, cheapest first."""
    peak = load.peak_qps(wish.kinds)

    def usd(offer: Offer) -> tuple[float, str]:
        replicas = max(1.0, peak / rate_qps(offer, wish.bound_s))
        per_s = min(
            (
                catalog.worker_types[x].usd_per_1k(offer.variant, offer.profile)
                for x in offer.worker_types or catalog.worker_types
            ),
            default=inf,
        )
        return replicas * per_s * offer.profile.saturation_qps, offer.name

    return [x.name for x in sorted(wish.able, key=usd)]
