"""What the way of a query takes on this machine, measured at run time, for the simulation.

The way is all that a query takes but its queue and what the profile says that its batch computes: from the driver
through the router to the replica and back, and what computing takes longer than in the profiler's loop, because caches
are cold and processors asleep or taken. A part of it is processor time of event loops, each of which does it for one
query after another. No loop is busier than the driver's, so it is the one before which queries wait in a simulation;
its time is read off the process. The rest cannot be seen alone. It is found from a live run at one rate: the quantiles
are those with which a simulation of the same arrivals has the latencies that were seen live.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.live.open_system import Inputs, LiveRun, run_live
from benchmarks.measure import percentile
from infaas_ray.serving.driver import System
from infaas_ray.simulator.scenario import Scenario

SHARES = (0.5, 0.95, 0.99)  # of all answers: the latencies that are compared
_ROUNDS = 6
_LEAST_S = 1e-5

Quantiles = tuple[float, float, float]  # at SHARES, in seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class WayCost:
    """Quantiles of the way, and the processor time of one query's in the busiest event loop; seconds."""

    quantiles_s: Quantiles
    cpu_s: float

    def world(self) -> dict[str, float]:
        """As a scenario's `world` takes it."""
        p50_s, p95_s, p99_s = self.quantiles_s
        names = {"way_s": p50_s, "way_p95_s": p95_s, "way_p99_s": p99_s, "way_cpu_s": min(p50_s, self.cpu_s)}
        return {name: round(value, 6) for name, value in names.items()}


def measure_way(
    system: System, scenario: Scenario, inputs: Inputs, seed: int, simulate: Callable[[Mapping[str, float]], Quantiles]
) -> WayCost:
    """Run a scenario live, and find the way with which `simulate`, given a `world`, has the same latencies."""
    began = time.process_time()
    run = run_live(
        system, scenario.workload, inputs, seed=seed, duration_s=scenario.duration_s, warmup_s=scenario.warmup_s
    )
    queries = run.arrived * scenario.duration_s / (scenario.duration_s - scenario.warmup_s)
    return fit_way(quantiles(run), (time.process_time() - began) / queries, simulate)


def quantiles(run: LiveRun) -> Quantiles:
    """Of the latencies of answers."""
    ordered = sorted(run.latencies_s)
    p50, p95, p99 = (percentile(ordered, x) for x in SHARES)
    return p50, p95, p99


def fit_way(live_s: Quantiles, cpu_s: float, simulate: Callable[[Mapping[str, float]], Quantiles]) -> WayCost:
    """Move each quantile of the way by what the simulated one is off, until they agree or after `_ROUNDS`."""
    way = WayCost(quantiles_s=live_s, cpu_s=cpu_s)
    for _ in range(_ROUNDS):
        simulated_s = simulate(way.world())
        least_s, moved = _LEAST_S, []
        for now, wanted, found in zip(way.quantiles_s, live_s, simulated_s, strict=True):
            least_s = max(least_s, now + wanted - found)
            moved.append(least_s)
        p50, p95, p99 = moved
        way = WayCost(quantiles_s=(p50, p95, p99), cpu_s=cpu_s)
    return way
