"""What the way of a query costs on this machine, measured at run time, for the simulation.

The way is all that a query takes but its queue and what the profile says that its batch computes: from the driver
through the router to the replica and back, and what computing takes longer than in the profiler's loop, because caches
are cold and processors asleep. It is measured at half of the greatest rate, without what an event loop lets wait there.

Its processor time is what all processes together use beyond what the profile says and what they use when nobody asks.
Much of it is waking up, which a query is spared that comes while the way of another computes. So a query alone has
another price than one that is taken along, and these two are found from the mean prices at two rates: an event loop
computes one way after another, and the share 1 - rate * price of Poisson arrivals finds it idle.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median

from benchmarks.live.cpu import Times, cpu_times, used_s
from benchmarks.live.open_system import LiveRun, run_live
from benchmarks.measure import percentile
from infaas_ray.domain import Array, Profile
from infaas_ray.serving.driver import System
from infaas_ray.simulator.workload import Poisson, QueryKind

_LOW_SHARE, _MIDDLE_SHARE = 0.15, 0.5  # of the greatest rate: few ways at once; processors awake
_SECONDS, _IDLE_S = 8.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WayCost:
    """Seconds: quantiles of the way, and the processor time of one query's alone, and of one that is taken along."""

    p50_s: float
    p95_s: float
    p99_s: float
    cpu_s: float
    cpu_more_s: float

    @classmethod
    def median(cls, found: "Sequence[WayCost]") -> "WayCost":
        """Number by number."""
        return cls(**{x.name: median(getattr(one, x.name) for one in found) for x in fields(cls)})

    def world(self) -> dict[str, float]:
        """As a scenario's `world` takes it."""
        names = {
            "way_s": self.p50_s,
            "way_p95_s": self.p95_s,
            "way_p99_s": self.p99_s,
            "way_cpu_s": self.cpu_s,
            "way_cpu_more_s": self.cpu_more_s,
        }
        return {name: round(value, 6) for name, value in names.items()}


def measure_way(
    system: System,
    pid: int,
    kinds: tuple[QueryKind, ...],
    inputs: Mapping[str, Array],
    profiles: Mapping[str, Profile],
    most_qps: float,
) -> WayCost:
    """Ask queries of these kinds, equally often, at rates up to `most_qps`; `pid` began all processes of the system.

    Profiles by variant.
    """
    before = _cpu(pid)
    time.sleep(_IDLE_S)
    idle = used_s(before, _cpu(pid)) / _IDLE_S  # processors in use when nobody asks

    def ask(rate_qps: float) -> tuple[LiveRun, float]:
        """The run, and the processor seconds of a query beyond the profile's."""
        before, began = _cpu(pid), time.monotonic()
        workload = Poisson(kinds=kinds, rate_qps=rate_qps, duration_s=_SECONDS)
        run = run_live(system, workload, lambda _: inputs, seed=1, duration_s=_SECONDS)
        used = used_s(before, _cpu(pid)) - idle * (time.monotonic() - began)
        computed_s = sum(profiles[variant].median_s(rows) / rows for _, variant, rows in run.ways_s)
        return run, max(0.0, used - computed_s) / max(1, run.arrived)

    low_qps = _LOW_SHARE * most_qps
    middle_qps = _MIDDLE_SHARE * most_qps
    (_, low_s), (run, middle_s), (_, high_s) = ask(low_qps), ask(middle_qps), ask(most_qps)
    alone_s, more_s = two_prices((low_qps, low_s), (most_qps, high_s))
    waits_s = loop_wait_s(middle_qps, middle_s, alone_s, more_s)
    ways = sorted(
        max(1e-6, took_s - profiles[variant].median_s(rows) - waits_s) for took_s, variant, rows in run.ways_s
    )
    p50_s, p95_s, p99_s = (percentile(ways, x) for x in (0.5, 0.95, 0.99))
    cpu_s = min(p50_s, alone_s)
    return WayCost(p50_s=p50_s, p95_s=p95_s, p99_s=p99_s, cpu_s=cpu_s, cpu_more_s=min(cpu_s, more_s))


def two_prices(low: tuple[float, float], high: tuple[float, float]) -> tuple[float, float]:
    """The price of a query alone and of one that is taken along, from two rates with the mean price at each."""
    alone_low, alone_high = (max(0.0, 1.0 - rate * price) for rate, price in (low, high))
    if high[1] >= low[1] or alone_low <= alone_high:
        return low[1], high[1]
    more = max(0.0, (high[1] * alone_low - low[1] * alone_high) / (alone_low - alone_high))
    return (low[1] - more * (1 - alone_low)) / alone_low, more


def loop_wait_s(rate_qps: float, mean_s: float, alone_s: float, more_s: float) -> float:
    """How long a query waits on average for an event loop that takes these prices (Pollaczek and Khinchine)."""
    busy = min(0.9, rate_qps * mean_s)
    squares = (1 - busy) * alone_s**2 + busy * more_s**2
    return rate_qps * squares / (2 * (1 - busy))


def _cpu(pid: int) -> Times:
    """Of the system and of this process, which asks."""
    return cpu_times(pid) | cpu_times(os.getpid())
