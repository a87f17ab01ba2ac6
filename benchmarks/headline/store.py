"""Results that are kept: a run that was made once under the same code is not made again.

A run is known by a hash of what it depends on: the catalogue, the world, the arrivals themselves, the strategy's
settings, and the source of the policies and the simulator. Files that only the planner uses count for the planner only.
"""

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import scipy

import infaas_ray
from benchmarks.headline.lineup import Entry
from infaas_ray.simulator.scenario import Scenario
from infaas_ray.simulator.world import arrivals_rng

FOLDER = Path(".infaas/bench/headline")
_SOURCE = Path(infaas_ray.__file__).parent
_CODE = ("domain.py", "errors.py", "policy", "simulator")
_PLANNER_ONLY = ("policy/planner/", "policy/scaling/planned.py", "policy/demand_classes.py", "policy/forecast.py")
_BOUND = ("simulator/fluid.py", "simulator/fluid_program.py", "simulator/resident.py")
_SHOWN = ("simulator/page.py", "simulator/tables.py", *_BOUND)  # no run depends on these
T = TypeVar("T")


@cache
def code_version(planner: bool) -> str:
    """A hash of the source that a run depends on, with that of the planner or without."""
    found = hashlib.sha256()
    for path in sorted(x for name in _CODE for x in _files(_SOURCE / name)):
        name = path.relative_to(_SOURCE).as_posix()
        if name not in _SHOWN and (planner or not name.startswith(_PLANNER_ONLY)):
            found.update(name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _files(path: Path) -> Iterable[Path]:
    return [path] if path.is_file() else path.rglob("*.py")


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """How many queries arrive under a seed, and a hash of all of them."""

    count: int
    digest: str


def arrivals(scenario: Scenario, seed: int) -> Arrivals:
    """What identifies the arrivals of a run."""
    found, count = hashlib.sha256(repr(scenario.workload.kinds).encode()), 0
    for chunk in scenario.workload.chunks(arrivals_rng(seed)):
        inside = chunk.times < scenario.duration_s
        found.update(np.ascontiguousarray(chunk.times[inside]).tobytes())
        found.update(np.ascontiguousarray(chunk.kinds[inside], dtype=np.int64).tobytes())
        count += int(inside.sum())
        if not inside.all():
            break
    return Arrivals(count=count, digest=found.hexdigest())


def run_key(scenario: Scenario, entry: Entry, seed: int, came: Arrivals) -> str:
    """The key of a run."""
    made = entry.of(scenario)
    versions = (code_version(entry.scaling.strategy == "planner"), np.__version__, scipy.__version__)
    return _hash("run", *versions, _world(made), repr(entry.scaling), str(seed), came.digest)


def throughput_key(scenario: Scenario, entry: Entry, seed: int, rules: str) -> str:
    """The key of a search for the highest rate."""
    versions = (code_version(entry.scaling.strategy == "planner"), np.__version__, scipy.__version__)
    return _hash("throughput", *versions, _world(entry.of(scenario)), repr(entry.scaling), str(seed), rules)


def bound_key(scenario: Scenario, seed: int, came: Arrivals) -> str:
    """The key of a fluid bound."""
    source = [(_SOURCE / x).read_text() for x in _BOUND]
    return _hash("bound", *source, scipy.__version__, _world(scenario), str(seed), came.digest)


def _world(scenario: Scenario) -> str:
    times = (scenario.duration_s, scenario.warmup_s, scenario.bins)
    return _hash(repr(scenario.catalog), repr(scenario.world), repr(times))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Store:
    """A folder of results by key. With `fresh`, what is there is not used."""

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self._folder = folder
        self._fresh = fresh

    def load(self, key: str, kind: type[T]) -> T | None:
        """What was kept under the key; None where there is nothing that can be read."""
        if self._fresh:
            return None
        try:
            return msgspec.json.decode((self._folder / f"{key}.json").read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError):
            return None

    def save(self, key: str, result: object) -> None:
        """Keep a result; a reader sees all of it or nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{key}.{os.getpid()}.part"
        part.write_bytes(msgspec.json.encode(result))
        part.replace(self._folder / f"{key}.json")
