"""How many rows a second a replica carries: as profiled, within a latency bound, and as learned here.

Rules: a bound that only small batches keep lets a replica do less than at saturation. Where settled replicas refuse
although they should have capacity (tight bounds, a shared machine), the rate that they managed counts as theirs for
some minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.routing import Offer
from infaas_ray.policy.scaling.strategy import Situation

REFUSED_SHARE = 0.02  # of the demand, from which refusals tell that capacity is less than profiled
_LEARNED_S = 300.0  # for how long a learned capacity holds
_LEARNED_LEAST = 0.25  # of the saturation rate: less is a fault, not a capacity


def rate_within(offer: Offer, bound_s: float) -> float:
    """Rows a second of a busy replica at the largest batch whose p99 keeps the bound; 0 where none does."""
    limit, profile = offer.variant.batch_limit, offer.profile
    if bound_s == inf or profile.latency_s(limit) <= bound_s:
        return profile.saturation_qps
    sizes = [size for size in range(1, limit) if profile.latency_s(size) <= bound_s]
    return min(profile.saturation_qps, sizes[-1] / profile.median_s(sizes[-1])) if sizes else 0.0


@dataclass(frozen=True, slots=True)
class _Learned:
    rate_qps: float
    until: float


class Capacity:
    """The rates that replicas are trusted with."""

    def __init__(self, settled_s: float) -> None:
        self._settled_s = settled_s
        self._learned: dict[str, _Learned] = {}

    def learn(self, variant: str, have: Sequence[Replica], situation: Situation) -> None:
        """Lower the rate that a replica is trusted with, where replicas ready for `settled_s` refuse below it."""
        now, demand = situation.now, situation.traffic.demand(variant)
        settled = have and all(x.state is State.READY and now - x.since >= self._settled_s for x in have)
        if not settled or demand.refused_qps <= REFUSED_SHARE * demand.wanted_qps:
            return
        managed = max(0.0, demand.wanted_qps - demand.refused_qps) / len(have)
        least = _LEARNED_LEAST * situation.fleet.catalog.offers[variant].profile.saturation_qps
        rate = max(least, min(managed, self.rate_qps(variant, situation)))
        self._learned[variant] = _Learned(rate, now + _LEARNED_S)

    def rate_qps(self, variant: str, situation: Situation) -> float:
        """The rate that one replica of a variant of the catalogue is trusted with."""
        profiled = situation.fleet.catalog.offers[variant].profile.saturation_qps
        learned = self._learned.get(variant)
        return min(profiled, learned.rate_qps) if learned is not None and situation.now < learned.until else profiled


def served_per_replica(situation: Situation) -> dict[str, float]:
    """Rows a second that each ready replica serves, by variant: routers spread them about evenly."""
    fleet = situation.fleet
    found: dict[str, float] = {}
    for variant in fleet.variants():
        ready = len(fleet.of(variant, State.READY))
        if ready and variant in fleet.catalog.offers:
            found[variant] = situation.traffic.demand(variant).served_qps / ready
    return found


def busy_share(worker: str, resource: str, fleet: Fleet, served: dict[str, float]) -> float:
    """How much of a resource of a worker computes, as a share of what it has.

    Each replica keeps its threads (or one device) busy in proportion to its load. Processors are also measured by the
    worker's monitor; the larger counts.
    """
    known = fleet.workers[worker]
    busy = 0.0
    for replica in known.replicas.values():
        if replica.needs is None or replica.needs.resource != resource or replica.variant not in served:
            continue
        units = 1 if resource == "GPU" else replica.needs.threads
        busy += units * min(1.0, served[replica.variant] / fleet.catalog.offers[replica.variant].profile.saturation_qps)
    share = busy / known.resources[resource]
    return max(share, known.cpu_share) if resource == "CPU" else share
