"""What the queries of late ask of variants and of targets.

Rules: what a variant must keep is the tightest latency and accuracy of those classes that it can serve at all. Its
alternatives are the variants behind all targets through which these ask for it, or, where nobody asks, those of its
architecture. A family is a target with one least accuracy: its objective is the tightest latency that any class asks
of it, its variants are those that are accurate enough.
"""

from dataclasses import dataclass
from functools import reduce
from math import inf

from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.strategy import Situation
from infaas_ray.policy.traffic import AskedClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Bounds to keep, and the variants that keep them too, by name; the variant itself is one of them."""

    latency_s: float = inf
    min_accuracy: float = 0.0
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is asked for at one accuracy: all its demand in rows a second, its tightest bound, and its variants."""

    name: str
    target: str
    rate_qps: float
    latency_s: float
    min_accuracy: float
    variants: tuple[str, ...]


class Objectives:
    """The objectives of this turn."""

    def __init__(self, situation: Situation) -> None:
        self._fleet = situation.fleet
        targets = situation.fleet.targets
        self._classes = [
            (asked, rate, frozenset(targets[asked.target]))
            for asked, rate in situation.traffic.classes().items()
            if asked.target in targets
        ]
        self._known: dict[str, Objective] = {}

    def of(self, variant: str) -> Objective:
        """The objective of a variant of the catalogue."""
        if variant not in self._known:
            self._known[variant] = self._find(variant)
        return self._known[variant]

    def _find(self, variant: str) -> Objective:
        fleet = self._fleet
        offers = fleet.catalog.offers
        offer = offers[variant]
        served = [(asked, names) for asked, _, names in self._classes if variant in names and _meets(offer, asked)]
        latency_s = min((_bound_s(asked) for asked, _ in served), default=inf)
        accuracy = max((asked.min_accuracy or 0.0 for asked, _ in served), default=0.0)
        of_architecture = frozenset(fleet.targets[offer.variant.architecture])
        names = reduce(frozenset.__and__, (names for _, names in served)) if served else of_architecture
        able = (x for x in names if offers[x].profile.latency_s(1) <= latency_s and offers[x].accuracy >= accuracy)
        return Objective(latency_s=latency_s, min_accuracy=accuracy, alternatives=tuple(sorted(able)))

    def families(self) -> list[Family]:
        """What is asked for, by target and least accuracy; what no variant is accurate enough for is left out."""
        offers = self._fleet.catalog.offers
        found: dict[tuple[str, float], list[tuple[AskedClass, float]]] = {}
        for asked, rate, _ in self._classes:
            found.setdefault((asked.target, asked.min_accuracy or 0.0), []).append((asked, rate))
        return [
            Family(
                name=f"{target} at {accuracy:g}",
                target=target,
                rate_qps=sum(rate for _, rate in classes),
                latency_s=min(_bound_s(asked) for asked, _ in classes),
                min_accuracy=accuracy,
                variants=able,
            )
            for (target, accuracy), classes in sorted(found.items())
            if (able := tuple(sorted(x for x in self._fleet.targets[target] if offers[x].accuracy >= accuracy)))
        ]


def _bound_s(asked: AskedClass) -> float:
    return inf if asked.latency_s is None else asked.latency_s


def _meets(offer: Offer, asked: AskedClass) -> bool:
    return offer.profile.latency_s(1) <= _bound_s(asked) and offer.accuracy >= (asked.min_accuracy or 0.0)
