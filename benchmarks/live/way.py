"""What the way of a query costs on this machine, measured at run time, for the simulation.

The way is all that a query takes but its queue and what the profile says that its batch computes: from the driver
through the router to the replica and back, and what computing takes longer than in the profiler's loop, because caches
are cold and processors asleep. It is measured where nothing waits. Its processor time is what one more query costs all
processes together (the difference of two rates, because much of the first queries' is waking up), without what the
profile says.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.live.cpu import Times, cpu_times, used_s
from benchmarks.live.open_system import LiveRun, run_live
from benchmarks.measure import percentile
from infaas_ray.domain import Array, Profile
from infaas_ray.serving.driver import System
from infaas_ray.simulator.workload import Poisson, QueryKind

_QPS, _MORE_QPS = 200.0, 600.0  # enough that processors are awake, little enough that hardly anything waits
_SECONDS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WayCost:
    """Seconds: quantiles of the way, and the processor time of one query's."""

    p50_s: float
    p95_s: float
    p99_s: float
    cpu_s: float

    def world(self) -> dict[str, float]:
        """As a scenario's `world` takes it."""
        names = {"way_s": self.p50_s, "way_p95_s": self.p95_s, "way_p99_s": self.p99_s, "way_cpu_s": self.cpu_s}
        return {name: round(value, 6) for name, value in names.items()}


def measure_way(
    system: System, pid: int, kinds: tuple[QueryKind, ...], inputs: Mapping[str, Array], profiles: Mapping[str, Profile]
) -> WayCost:
    """Ask queries of these kinds, equally often; `pid` began all processes of the system. Profiles by variant."""

    def ask(rate_qps: float) -> tuple[LiveRun, float]:
        """The run, and the processor seconds that it took beyond the profile's."""
        before = _cpu(pid)
        workload = Poisson(kinds=kinds, rate_qps=rate_qps, duration_s=_SECONDS)
        run = run_live(system, workload, lambda _: inputs, seed=1, duration_s=_SECONDS)
        computed_s = sum(profiles[variant].median_s(rows) / rows for _, variant, rows in run.ways_s)
        return run, used_s(before, _cpu(pid)) - computed_s

    (run, used), (more, more_used) = ask(_QPS), ask(_MORE_QPS)
    cpu_s = max(0.0, (more_used - used) / (more.arrived - run.arrived))
    ways = sorted(max(1e-6, took_s - profiles[variant].median_s(rows)) for took_s, variant, rows in run.ways_s)
    p50_s, p95_s, p99_s = (percentile(ways, x) for x in (0.5, 0.95, 0.99))
    return WayCost(p50_s=p50_s, p95_s=p95_s, p99_s=p99_s, cpu_s=min(p50_s, cpu_s))


def _cpu(pid: int) -> Times:
    """Of the system and of this process, which asks."""
    return cpu_times(pid) | cpu_times(os.getpid())
