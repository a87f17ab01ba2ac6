"""Replicas by queue length: what users of Ray Serve, Knative and Kubernetes' autoscaler have.

Rules: each variant of `keep_warm` and no other is used, at least as often as listed. It is to have as many replicas as
rows are ongoing over `target_ongoing`; where that is more (fewer) for all of `up_delay_s` (`down_delay_s`), it is
done. Refused rows count as ongoing for as long as one takes, because without our admission control they would be.
Replicas without room get one more worker each as far as they do not fit together; a worker that was empty for
`node_idle_s` is given back.
"""

from math import ceil

from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.scaling.delays import Delays
from infaas_ray.policy.scaling.fixed import Fixed
from infaas_ray.policy.scaling.machine_rules import EmptyWorkers, at_least
from infaas_ray.policy.scaling.packing import can_come, cores_left, workers_for
from infaas_ray.policy.scaling.room import fewest_neighbours
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation


class QueueLength:
    """Scales the variants of `keep_warm` by what is ongoing."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._fixed = Fixed("only the variants of keep_warm are used")
        self._delays = Delays(settings.queue_length.up_delay_s, settings.queue_length.down_delay_s)
        self._wanted: dict[str, int] = {}
        self._empty = EmptyWorkers()

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        fleet = situation.fleet
        self._fixed.only(situation.pins, fleet)
        self._wanted = {x: max(count, self._wanted.get(x, count)) for x, count in situation.pins.items()}
        homeless: dict[str, int] = {}
        for variant in situation.pins:
            self._want(variant, situation)
            missing = self._follow(variant, situation, orders)
            if missing:
                homeless[variant] = missing
        for variant in list(fleet.variants()):
            if variant not in situation.pins:
                for replica in fleet.staying(variant, State.READY):
                    orders.drain(replica.id, "keep_warm does not list it")
        self._machines(homeless, situation, orders)

    def _want(self, variant: str, situation: Situation) -> None:
        """Let as many replicas be wanted as the queue has called for long enough."""
        settings, demand = self._settings, situation.traffic.demand(variant)
        one_s = situation.fleet.catalog.offers[variant].profile.latency_s(1)
        ongoing = demand.ongoing + demand.refused_qps * one_s
        desired = ceil(ongoing / settings.queue_length.target_ongoing - 1e-9)
        desired = min(max(desired, situation.pins[variant]), settings.max_replicas_per_variant)
        if self._delays.may(variant, desired - self._wanted[variant], situation.now):
            self._wanted[variant] = desired

    def _follow(self, variant: str, situation: Situation, orders: Orders) -> int:
        """Start what is missing and drain what is too much; how many found no room and may wait for a worker."""
        fleet, now, count = situation.fleet, situation.now, self._wanted[variant]
        have = fleet.staying(variant, State.STARTING, State.READY)
        self._thin(variant, have, count, situation, orders)
        missing = count - len(have)
        if missing <= 0 or fleet.blocks.reason(variant, now) is not None:
            return 0
        comes = can_come(variant, fleet, now)
        pinned = situation.pins[variant] - len(have)
        here = min(missing, max(cores_left(variant, have, fleet, missing), 0 if comes else pinned))
        started = 0
        because = f"{self._ongoing(variant, situation):.1f} rows are ongoing: {count} replicas, there are {len(have)}"
        while started < here and orders.start(variant, because) is None:
            started += 1
        return missing - started if comes else 0

    def _thin(self, variant: str, have: list[Replica], count: int, situation: Situation, orders: Orders) -> None:
        ready = [x for x in have if x.state is State.READY]
        for _ in range(min(len(have) - count, len(ready))):
            replica = fewest_neighbours(ready, situation.fleet)
            ready.remove(replica)
            because = f"{self._ongoing(variant, situation):.1f} rows are ongoing: {count} replicas are enough"
            orders.drain(replica.id, because)

    def _ongoing(self, variant: str, situation: Situation) -> float:
        return situation.traffic.demand(variant).ongoing

    def _machines(self, homeless: dict[str, int], situation: Situation, orders: Orders) -> None:
        fleet = situation.fleet
        self._empty.update(situation)
        wanted = at_least(workers_for(homeless, fleet, situation.now), fleet)
        if wanted != fleet.counts():
            orders.workers(wanted, f"no room for {', '.join(homeless) or 'the least number of workers'}")
        elif not homeless:
            for worker in self._empty.for_s(self._settings.queue_length.node_idle_s, situation):
                orders.leave(worker.name, f"empty for {self._settings.queue_length.node_idle_s:g} s or more")
