"""What the way of a query takes on this machine, measured at run time, for the simulation.

The way is all that a query takes but its queue and what the profile says that its batch computes: from the driver
through the router to the replica and back, and what computing takes longer than in the profiler's loop, because caches
are cold and processors asleep. Two parts of it are processor time, which is read off the processes:

- that of event loops, each of which does it for one query after another. None is busier than the driver's, so it is the
  one before which queries wait in a simulation;
- what all others use, side by side, beyond what the profile says and what they use when nobody asks. It is measured
  at the greatest rate: at lower ones a query costs more, for waking up, but nobody waits for a processor then.

How long a way is cannot be seen alone. It is found from live runs at one rate: its quantiles are those with which a
simulation of such a run has the latencies that were seen live.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.live.cpu import Times, cpu_times, used_s
from benchmarks.live.open_system import LiveRun
from benchmarks.measure import percentile
from infaas_ray.domain import Profile

SHARES = (0.5, 0.95, 0.99)  # of all answers: the latencies that are compared
_ROUNDS = 6
_IDLE_S = 5.0
_LEAST_S = 1e-5

Quantiles = tuple[float, float, float]  # at SHARES, in seconds
Simulate = Callable[[Mapping[str, float]], Quantiles]  # what a `world` gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Quantiles of the way; of one query's, the processor time of the busiest event loop and of all others; seconds."""

    quantiles_s: Quantiles
    loop_s: float
    work_s: float

    def world(self) -> dict[str, float]:
        """As a scenario's `world` takes it."""
        p50_s, p95_s, p99_s = (round(x, 6) for x in self.quantiles_s)
        loop_s = round(min(p50_s, self.loop_s), 6)
        work_s = round(min(p50_s - loop_s, self.work_s), 6)
        return {
            "way_s": p50_s,
            "way_p95_s": p95_s,
            "way_p99_s": p99_s,
            "way_loop_s": loop_s,
            "way_work_s": work_s,
        }


def quantiles(run: LiveRun) -> Quantiles:
    """Of the latencies of answers."""
    ordered = sorted(run.latencies_s)
    p50, p95, p99 = (percentile(ordered, x) for x in SHARES)
    return p50, p95, p99


def measure_work(pid: int, ask: Callable[[], LiveRun], profiles: Mapping[str, Profile]) -> tuple[float, float]:
    """Processor seconds of one query's way: in the driver, which is this process, and in all others.

    `ask` runs queries that all count; `pid` began the other processes; profiles are by variant.
    """
    before = _cpu(pid)
    time.sleep(_IDLE_S)
    idle = used_s(before, _cpu(pid)) / _IDLE_S  # processors in use when nobody asks
    before, began = _cpu(pid), time.monotonic()
    run = ask()
    after = _cpu(pid)
    others_s = used_s(before, after) - idle * (time.monotonic() - began)
    driver_s = sum(after[x] - before[x] for x in after if x[0] == os.getpid()) / run.arrived
    computed_s = sum(n * profiles[variant].median_s(rows) / rows for (variant, rows), n in run.batches.items())
    return driver_s, max(0.0, (others_s - computed_s) / run.arrived - driver_s)


def fit_way(live_s: Quantiles, loop_s: float, work_s: float, simulate: Simulate) -> Way:
    """Move each quantile of the way by what the simulated one is off, `_ROUNDS` times."""
    way = Way(quantiles_s=live_s, loop_s=loop_s, work_s=work_s)
    for _ in range(_ROUNDS):
        simulated_s = simulate(way.world())
        least_s, moved = _LEAST_S, []
        for now, wanted, found in zip(way.quantiles_s, live_s, simulated_s, strict=True):
            least_s = max(least_s, now + wanted - found)
            moved.append(least_s)
        p50, p95, p99 = moved
        way = Way(quantiles_s=(p50, p95, p99), loop_s=loop_s, work_s=work_s)
    return way


def _cpu(pid: int) -> Times:
    """Of the system and of this process, which asks."""
    return cpu_times(pid) | cpu_times(os.getpid())
