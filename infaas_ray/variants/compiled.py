"""What compiled PyTorch needs: a cache that outlives the process, and every batch size compiled before the first query.

Rules: a size that was never computed costs its first query seconds, so a load computes each size that it will need.
What Inductor compiles is kept per user and machine, so that only the first load there compiles; a file beside it says
which variants are.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Architecture, Variant
from infaas_ray.storage.cache import cache_root
from infaas_ray.variants.machine import cpu_model

_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
_NOBODYS_WISH = "torchinductor_"  # how the folder is named that PyTorch itself sets, in the temporary folder
_RUNS = 3  # the first compiles, the second records a CUDA graph, the third plays it
_SPARE = 2  # graphs beyond one per size, before PyTorch would fall back to eager


def cache_folder() -> Path:
    """Where Inductor keeps what it compiles: as the user's environment says, else in this user's cache."""
    named = Path(os.environ.get(_FOLDER, ""))
    wished = bool(named.name) and not named.name.startswith(_NOBODYS_WISH)
    return named if wished else cache_root() / "inductor"


def set_cache() -> None:
    """Have Inductor keep what it compiles; where that folder cannot be used, only as long as this process lives."""
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError:
        folder = _passing_folder()
    os.environ[_FOLDER] = str(folder)


@cache
def _passing_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="infaas-inductor-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def allow(torch: Any, sizes: Sequence[int]) -> None:
    """Let so many batch sizes be compiled: PyTorch would compute further ones in eager, and nobody would know."""
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, len(sizes) + _SPARE)


def warm_up(model: Any, architecture: Architecture, lengths: Mapping[str, Sequence[int]], sizes: Sequence[int]) -> bool:
    """Compute each size until it is compiled and recorded; whether that was possible.

    It is not where a dimension other than the batch is free and `lengths`, those of an input's dimensions after the
    batch, do not tell its usual length.
    """
    shapes = {x.name: tuple(x.shape[1:]) for x in architecture.inputs}
    shapes = {name: tuple(lengths.get(name, shape)) if -1 in shape else shape for name, shape in shapes.items()}
    if any(-1 in shape for shape in shapes.values()):
        return False
    for size in sizes:
        rows = {x.name: np.ones((size, *shapes[x.name]), x.dtype) for x in architecture.inputs}
        for _ in range(_RUNS):
            model.predict(rows)
    return True


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
