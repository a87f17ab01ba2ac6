"""How many replicas of a variant a worker computes at the same time, each on its own cores or device."""

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Worker


def slots(variant: str, worker: Worker, fleet: Fleet) -> int:
    """Replicas of the variant alone on a worker; 0 where it does not run there."""
    if not fleet.runs_on(variant, worker.worker_type, worker.resources):
        return 0
    needs = fleet.needs(variant, worker.worker_type)
    units = units_of(variant, fleet)
    by_memory = int(worker.memory_bytes / needs.memory_bytes) if needs.memory_bytes > 0 else 1 << 30
    by_booking = int(worker.resources[needs.resource] / needs.amount + 1e-9)
    return max(0, min(int(worker.resources[needs.resource] / units + 1e-9), by_memory, by_booking))


def units_of(variant: str, fleet: Fleet) -> int:
    """The cores or devices that a replica keeps busy while it computes."""
    needs = fleet.needs(variant)
    return 1 if needs.resource == "GPU" else needs.threads
