"""Does independent pieces of work in several processes, and keeps each result as soon as it is there."""

import os
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Generic, TypeVar

from benchmarks.headline.store import Store

Told = Callable[[str, float], None]  # what was done last, and the share of all work that is done
T = TypeVar("T")
P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[T]):
    """A piece of work. `key`: under which its result of type `kind` is kept; `weight`: about how much work it is."""

    label: str
    key: str
    weight: float
    kind: type[T]
    act: Callable[[], T]


def processes(count: int) -> ProcessPoolExecutor:
    """So many processes, each of which uses one processor: solvers and linear algebra start no threads."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    return ProcessPoolExecutor(count, get_context("spawn"), _silent)


def _silent() -> None:
    """Keep what compiled libraries (HiGHS) print by themselves out of the results on stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def do_all(tasks: Mapping[P, Task[T]], store: Store, pool: ProcessPoolExecutor, told: Told) -> dict[P, T]:
    """The result of each task, heaviest first; what is kept is not done again."""
    found = {place: kept for place, x in tasks.items() if (kept := store.load(x.key, x.kind)) is not None}
    total = sum(x.weight for x in tasks.values()) or 1.0
    done = sum(tasks[x].weight for x in found)
    told(f"{len(found)} of {len(tasks)} are there already", done / total)
    missing = sorted((x for x in tasks if x not in found), key=lambda x: -tasks[x].weight)
    waiting: dict[Future[T], P] = {pool.submit(tasks[x].act): x for x in missing}
    try:
        for future in as_completed(waiting):
            place = waiting[future]
            found[place] = future.result()
            store.save(tasks[place].key, found[place])
            done += tasks[place].weight
            told(tasks[place].label, done / total)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return found
