"""The static strategy: exactly the replicas that the settings list, whatever the traffic.

The baseline that people have without autoscaling. A load that a query asks for is refused for good, with the reason.
"""

from math import inf

from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation


class Static:
    """Keeps `keep_warm` and nothing else."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Start what is missing, drain what is too much."""
        fleet, now = situation.fleet, situation.now
        pins = situation.pins
        for variant in situation.requests:
            if variant not in pins:
                fleet.blocks.add(variant, "the static strategy loads only what keep_warm lists", inf)
        for variant, count in pins.items():
            have = len(fleet.staying(variant, State.STARTING, State.READY))
            for _ in range(count - have):
                if fleet.blocks.reason(variant, now) is not None:
                    break
                reason = orders.start(variant, f"keep_warm asks for {count}, there are {have}")
                if reason is not None:
                    fleet.blocks.add(variant, reason, now + self._settings.block_s)
        for variant in list(fleet.variants()):
            ready = fleet.staying(variant, State.READY)
            count = pins.get(variant, 0)
            for replica in ready[count:]:
                orders.drain(replica.id, f"keep_warm asks for {count}, there are {len(ready)}")
