"""What compiled PyTorch needs: a cache that outlives the process, and every batch size compiled before the first query.

Rules: a size that was never computed costs its first query seconds, so a load computes each size that it will need.
What Inductor compiles is kept per user and machine, so that only the first load there compiles; a file beside it says
which variants are.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Architecture, Array, Variant
from infaas_ray.storage.cache import cache_root
from infaas_ray.variants.machine import cpu_model

_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
_RUNS = 3  # the first compiles, the second records a CUDA graph, the third plays it
_SPARE = 2  # graphs beyond one per size, before PyTorch would fall back to eager


def cache_folder() -> Path:
    """Where Inductor keeps what it compiles: as the environment says, else in this user's cache."""
    return Path(os.environ.get(_FOLDER) or cache_root() / "inductor")


def get_ready(torch: Any, sizes: Sequence[int]) -> None:
    """Set the cache, and let so many batch sizes be compiled."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ[_FOLDER] = str(folder)
    settings = torch._dynamo.config  # without it, further sizes would run in eager, and nobody would know
    settings.recompile_limit = max(settings.recompile_limit, len(sizes) + _SPARE)


def sizes_of(batch_limit: int, *, on_gpu: bool) -> list[int]:
    """The batch sizes that are compiled each for itself: powers of two; on a CPU one row, and any number of rows."""
    if not on_gpu:
        return sorted({1, min(2, batch_limit)})
    return sorted({min(1 << power, batch_limit) for power in range(batch_limit.bit_length() + 1)})


def warm_up(model: Any, architecture: Architecture, sizes: Sequence[int]) -> None:
    """Compute each size until it is compiled and recorded, if the shapes of the inputs are known but for the batch."""
    if any(length < 0 for x in architecture.inputs for length in x.shape[1:]):
        return
    for size in sizes:
        rows = _rows(architecture, size)
        for _ in range(_RUNS):
            model.predict(rows)


def _rows(architecture: Architecture, count: int) -> Mapping[str, Array]:
    return {x.name: np.ones((count, *x.shape[1:]), x.dtype) for x in architecture.inputs}


def is_prepared(variant: Variant, versions: Mapping[str, str]) -> bool:
    """Whether a load here finds everything compiled."""
    return _mark(variant, versions).exists()


def note_prepared(variant: Variant, versions: Mapping[str, str]) -> None:
    """Everything is compiled now."""
    mark = _mark(variant, versions)
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


def _mark(variant: Variant, versions: Mapping[str, str]) -> Path:
    what = f"{variant.name} {variant.artifact} {sorted(versions.items())} {cpu_model()}"
    return cache_folder() / "prepared" / hashlib.sha256(what.encode()).hexdigest()[:32]
