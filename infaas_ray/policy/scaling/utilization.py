"""Machine-level scaling by use: Kubernetes' horizontal autoscaler, applied to each worker type.

Rule: of a type of which n workers are used to the share u, ceil(n u / `target_share`) are to be had; nothing is done
while u is within `tolerance` of the target; up and down after a delay. A type that cannot be had is replaced by the
next with the same hardware. What is asked for beyond what there is (`excess`, at least 1) counts as use. Fewer: those
with the fewest replicas leave; what is on them moves off.
"""

from collections.abc import Mapping
from math import ceil, inf

from infaas_ray.policy.lifecycle import Worker
from infaas_ray.policy.placement import RESOURCE_OF
from infaas_ray.policy.scaling.capacity import busy_share, served_per_replica
from infaas_ray.policy.scaling.delays import Delays
from infaas_ray.policy.scaling.machine_rules import add_one, at_least
from infaas_ray.policy.scaling.packing import workers_for
from infaas_ray.policy.scaling.settings import UtilizationSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation

_LEAST_USE = 1e-3  # below, a worker counts as unused


class Utilization:
    """Asks for workers and gives them back, by the rule of this module."""

    def __init__(self, settings: UtilizationSettings) -> None:
        self._settings = settings
        self._delays = Delays(settings.up_delay_s, settings.down_delay_s)

    def decide(
        self, situation: Situation, orders: Orders, homeless: Mapping[str, int], excess: float, least: int
    ) -> None:
        """Order at most one change of the workers.

        `homeless`: replicas by variant for which there is no worker at all. At least `least` workers stay in all.
        """
        fleet = situation.fleet
        counts = fleet.counts()
        wanted = at_least(workers_for(homeless, fleet, situation.now), fleet)
        surplus: dict[str, int] = {}
        for name, workers in _by_type(situation).items():
            desired = self._desired(workers, excess, situation)
            change = desired - counts[name]
            if not self._delays.may(name, change, situation.now):
                continue
            if change < 0:
                surplus[name] = -change
                continue
            resource = _main_resource(workers[0])
            for _ in range(change):
                self._add(name, resource, wanted, situation)
        if wanted != counts:
            orders.workers(wanted, f"workers are used more than {self._settings.target_share:.0%}, or there is no room")
            return
        for name, count in surplus.items():
            self._give_back(name, count, least, situation, orders)

    def _desired(self, workers: list[Worker], excess: float, situation: Situation) -> int:
        served = served_per_replica(situation)
        used = [_use(x, situation, served) for x in workers]
        share = sum(used) / len(used) * excess
        ratio = share / self._settings.target_share
        if abs(ratio - 1.0) <= self._settings.tolerance:
            return len(workers)
        return ceil(len(workers) * ratio - 1e-9) if share > _LEAST_USE else 0

    def _add(self, name: str, resource: str, wanted: dict[str, int], situation: Situation) -> None:
        fleet = situation.fleet
        known = fleet.catalog.worker_types[name]
        if wanted[name] < known.max_workers and fleet.machines.blocks.reason(name, situation.now) is None:
            wanted[name] += 1
        else:
            add_one(resource, wanted, situation)

    def _give_back(self, name: str, count: int, least: int, situation: Situation, orders: Orders) -> None:
        fleet = situation.fleet
        known = fleet.catalog.worker_types[name]
        workers = [x for x in fleet.workers.values() if x.worker_type == name and not x.leaving]
        staying = sum(not x.leaving for x in fleet.workers.values())
        count = min(count, len(workers) - known.min_workers, staying - least)
        for worker in sorted(workers, key=lambda x: (len(x.replicas), -x.joined_at, x.name))[: max(0, count)]:
            orders.leave(worker.name, f"{len(workers)} of {name} are more than their use calls for")


def _by_type(situation: Situation) -> dict[str, list[Worker]]:
    """The workers that stay, of types of the catalogue."""
    fleet = situation.fleet
    found: dict[str, list[Worker]] = {}
    for worker in fleet.workers.values():
        if worker.worker_type in fleet.catalog.worker_types and not worker.leaving and worker.leave_by == inf:
            found.setdefault(worker.worker_type, []).append(worker)
    return found


def _main_resource(worker: Worker) -> str:
    """The accelerator of a worker, else its processors."""
    has = [x for x in RESOURCE_OF.values() if worker.resources.get(x, 0.0) > 0]
    return has[-1] if has else "CPU"


def _use(worker: Worker, situation: Situation, served: dict[str, float]) -> float:
    """How much of its most used resource computes."""
    has = [x for x in RESOURCE_OF.values() if worker.resources.get(x, 0.0) > 0]
    return max((busy_share(worker.name, x, situation.fleet, served) for x in has), default=0.0)
