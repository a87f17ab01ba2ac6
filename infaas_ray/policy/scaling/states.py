"""The states that INFaaS gives to a variant on a worker, from what routers measured.

Rules: *inactive* without a ready replica. *Overloaded* while the rate reaches the saturation throughput, or queries
are refused, or more than `backlog_s` of work is ahead. *Interfered* while, without that, a replica there is `slow_*`
times slower than profiled though busy, until it is less than `clear_*` times so. Else *active*. Routers count by
variant and spread evenly, so a variant is overloaded on all its workers or on none.
"""

from enum import StrEnum
from math import inf

from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.scaling.capacity import REFUSED_SHARE
from infaas_ray.policy.scaling.settings import InfaasSettings
from infaas_ray.policy.scaling.strategy import Situation

_BUSY_CPU = 0.5  # of a replica's capacity, from which slowness tells of interference; the prototype's figures
_BUSY_OTHER = 0.3
_BACKLOG_BATCHES = 2  # full batches ahead of a replica are no backlog, however long a batch takes


class PairState(StrEnum):
    """How a variant fares on a worker."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    OVERLOADED = "overloaded"
    INTERFERED = "interfered"


class States:
    """The states as of the last `update`."""

    def __init__(self, settings: InfaasSettings) -> None:
        self._settings = settings
        self.overloaded: set[str] = set()
        self.interfered: dict[str, Replica] = {}  # by id

    def of(self, variant: str, worker: str, situation: Situation) -> PairState:
        """The state of one pair."""
        if not any(x.worker == worker for x in situation.fleet.of(variant, State.READY)):
            return PairState.INACTIVE
        if variant in self.overloaded:
            return PairState.OVERLOADED
        if any((x.variant, x.worker) == (variant, worker) for x in self.interfered.values()):
            return PairState.INTERFERED
        return PairState.ACTIVE

    def update(self, situation: Situation) -> None:
        """Look at all variants with ready replicas."""
        fleet = situation.fleet
        overloaded: set[str] = set()
        interfered: dict[str, Replica] = {}
        for variant in fleet.variants():
            ready = fleet.of(variant, State.READY)
            if not ready or variant not in fleet.catalog.offers:
                continue
            if self._is_overloaded(variant, len(ready), situation):
                overloaded.add(variant)
            else:
                interfered |= {x.id: x for x in ready if self._is_slow(x, len(ready), situation)}
        self.overloaded, self.interfered = overloaded, interfered

    def _is_overloaded(self, variant: str, ready: int, situation: Situation) -> bool:
        offer, demand = situation.fleet.catalog.offers[variant], situation.traffic.demand(variant)
        capacity = offer.profile.saturation_qps * ready
        backlog = max(self._settings.backlog_s * capacity, _BACKLOG_BATCHES * offer.variant.batch_limit * ready)
        refusing = demand.refused_qps > REFUSED_SHARE * (demand.served_qps + demand.refused_qps)
        return demand.served_qps >= capacity or refusing or demand.ongoing > backlog

    def _is_slow(self, replica: Replica, ready: int, situation: Situation) -> bool:
        offer = situation.fleet.catalog.offers[replica.variant]
        on_cpu = offer.variant.hardware == "cpu"
        slow, clear = self._thresholds(on_cpu)
        slowdown = situation.traffic.slowdown(replica.id)
        if replica.id in self.interfered:
            return slowdown > clear
        served = situation.traffic.demand(replica.variant).served_qps / ready
        busy = served > (_BUSY_CPU if on_cpu else _BUSY_OTHER) * offer.profile.saturation_qps
        return busy and slow < slowdown < inf

    def _thresholds(self, on_cpu: bool) -> tuple[float, float]:
        settings = self._settings
        return (settings.slow_cpu, settings.clear_cpu) if on_cpu else (settings.slow_gpu, settings.clear_gpu)
