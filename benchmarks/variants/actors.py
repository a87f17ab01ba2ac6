"""What a variant's actor really uses in service, against what its profile says.

An actor as the system makes it, on a Ray of its own: its memory before the load, then its peak after it has answered
batches of every size. The profile predicts the former plus what the variant adds to a process.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray

from infaas_ray.domain import Architecture, Profile, Variant
from infaas_ray.serving.variant_actor import ReplicaSpec, VariantActor
from infaas_ray.variants.machine import memory_bytes
from infaas_ray.variants.profiler import batch_sizes

_RUNS = 10


def memory_errors(
    variants: Sequence[tuple[Variant, Profile]], architecture: Architecture, repository: Path, validation: Path
) -> dict[str, dict[str, float]]:
    """By variant: megabytes predicted and used, and the relative error. Needs a Ray that is initialised."""
    with np.load(validation, allow_pickle=False) as file:
        rows = {x.name: file[x.name] for x in architecture.inputs}
    baseline = None
    found = {}
    for variant, profile in variants:
        before, used = _one(variant, profile, architecture, repository, rows)
        baseline = baseline or before  # one number serves all, as it would in the system
        predicted = baseline + profile.added_memory_bytes
        found[variant.name] = {
            "predicted_mb": predicted / 1e6,
            "used_mb": used / 1e6,
            "error": abs(predicted - used) / used,
        }
    return found


def _one(
    variant: Variant,
    profile: Profile,
    architecture: Architecture,
    repository: Path,
    rows: dict[str, np.ndarray],
) -> tuple[int, int]:
    """Memory of the actor's process before the load, and its peak after all batch sizes."""
    spec = ReplicaSpec(
        replica=variant.name,
        variant=variant,
        architecture=architecture,
        profile=profile,
        repository=str(repository),
        secret=b"benchmark",
    )
    actor = ray.remote(VariantActor).options(num_cpus=variant.threads / 2, max_concurrency=1000).remote()
    try:
        pid = ray.get(actor.describe.remote())["pid"]
        before = memory_bytes("VmRSS", pid)
        ray.get(actor.start.remote(spec))
        for batch in batch_sizes(variant.batch_limit):
            inputs = {name: x[:batch] for name, x in rows.items()}
            for _ in range(_RUNS):
                ray.get(actor.infer.remote(inputs, batch, None))
        return before, memory_bytes("VmHWM", pid)
    finally:
        ray.kill(actor)
