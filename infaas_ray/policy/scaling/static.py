"""The static strategy: exactly the replicas that the settings list, whatever the traffic (Clipper+).

The baseline that people have without autoscaling. Everything else is refused for good, with the reason. Workers that
hold the listed replicas are asked for at once, where they can be, and kept. A variant that cannot start is not
replaced by another.
"""

from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.scaling.fixed import Fixed
from infaas_ray.policy.scaling.machine_rules import at_least
from infaas_ray.policy.scaling.packing import can_come, cores_left, workers_for
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation


class Static:
    """Keeps `keep_warm` and nothing else."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._fixed = Fixed("the static strategy loads only what keep_warm lists")

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Start what is missing, drain what is too much."""
        fleet, pins = situation.fleet, situation.pins
        self._fixed.only(pins, fleet)
        homeless: dict[str, int] = {}
        for variant, count in pins.items():
            missing = self._start(variant, count, situation, orders)
            if missing:
                homeless[variant] = missing
        wanted = at_least(workers_for(homeless, fleet, situation.now), fleet)
        if wanted != fleet.counts():
            orders.workers(wanted, f"keep_warm asks for {', '.join(homeless) or 'nothing'}, which has no room yet")
        for variant in list(fleet.variants()):
            ready = fleet.staying(variant, State.READY)
            count = pins.get(variant, 0)
            for replica in ready[count:]:
                orders.drain(replica.id, f"keep_warm asks for {count}, there are {len(ready)}")

    def _start(self, variant: str, count: int, situation: Situation, orders: Orders) -> int:
        """Start what is missing of a variant; how many found no room and wait for a worker."""
        fleet, now = situation.fleet, situation.now
        if fleet.blocks.reason(variant, now) is not None:
            return 0
        have = fleet.staying(variant, State.STARTING, State.READY)
        missing = max(0, count - len(have))
        comes = missing > 0 and can_come(variant, fleet, now)
        here = min(missing, cores_left(variant, have, fleet, missing)) if comes else missing
        for started in range(here):
            reason = orders.start(variant, f"keep_warm asks for {count}, there are {len(have)}")
            if reason is not None and not comes:
                fleet.blocks.add(variant, reason, now + self._settings.block_s)
                return 0
            if reason is not None:
                return missing - started
        return missing - here
