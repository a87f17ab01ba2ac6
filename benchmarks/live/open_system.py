"""A workload of the simulator, run live: its arrivals are sent to a running system by the driver, each at its time.

Rule: the arrivals are those that a simulation with the same seed has, to the query. Open loop: latency counts from the
moment a query should have been sent. Every query has exactly one fate here, as it has in a simulation.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial

from infaas_ray.domain import Answer, Array
from infaas_ray.errors import DeadlineExceeded, Unavailable, Unsatisfiable
from infaas_ray.serving.driver import System
from infaas_ray.serving.interpreter import settle
from infaas_ray.serving.sender import Outcome
from infaas_ray.simulator.workload import QueryKind, Workload
from infaas_ray.simulator.world import arrivals_rng

_AHEAD_S = 0.2
_LAST_S = 60.0  # how long the last answers may take

Inputs = Callable[[QueryKind], Mapping[str, Array]]


@dataclass(slots=True, kw_only=True)
class LiveRun:
    """What became of the queries that arrived within the time that counts; seconds.

    Fates: met (the whole SLO), late, degraded, refused, expired, failed. `batches`: queries by the variant that
    answered and the rows of its batch.
    """

    arrived: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    lateness_s: list[float] = field(default_factory=list)
    batches: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def by_variant(self) -> Counter[str]:
        """Queries by the variant that answered."""
        found: Counter[str] = Counter()
        for (variant, _), queries in self.batches.items():
            found[variant] += queries
        return found

    @property
    def attainment(self) -> float:
        """The share of all queries whose whole SLO was met."""
        return self.fates["met"] / max(1, self.arrived)


def arrivals(workload: Workload, seed: int, duration_s: float) -> list[tuple[float, QueryKind]]:
    """All arrivals before `duration_s`, as a simulation with that seed has them."""
    found: list[tuple[float, QueryKind]] = []
    for chunk in workload.chunks(arrivals_rng(seed)):
        for time_s, kind in zip(chunk.times.tolist(), chunk.kinds.tolist(), strict=True):
            if time_s >= duration_s:
                return found
            found.append((time_s, workload.kinds[kind]))
    return found


def run_live(
    system: System,
    workload: Workload,
    inputs: Inputs,
    *,
    seed: int,
    duration_s: float,
    warmup_s: float = 0.0,
    begin_s: float = 0.0,
) -> LiveRun:
    """Send the workload's queries from `begin_s` on, and return when the last one has left.

    Those before `warmup_s` do not count.
    """
    settle()  # a pause of this process would count against the system
    run = LiveRun()
    under_way: list[Future[Outcome]] = []
    coming = [x for x in arrivals(workload, seed, duration_s) if x[0] >= begin_s]
    begin = time.perf_counter() + _AHEAD_S - begin_s
    for time_s, kind in coming:
        due = begin + time_s
        left_s = due - time.perf_counter()
        if left_s > 0:
            time.sleep(left_s)
        slo = kind.slo
        future = system.submit(
            kind.target,
            inputs(kind),
            latency_ms=None if slo.latency_s is None else slo.latency_s * 1e3,
            min_accuracy=slo.min_accuracy,
            max_usd_per_1k=slo.max_usd_per_1k,
            on_miss=str(slo.on_miss),
            offline=slo.offline,
        )
        under_way.append(future)
        if time_s >= warmup_s:
            run.arrived += 1
            run.lateness_s.append(time.perf_counter() - due)
            future.add_done_callback(partial(_note, run, kind, due))
    _wait_for(run, under_way)
    return run


def _wait_for(run: LiveRun, under_way: "list[Future[Outcome]]") -> None:
    """Until all have left and are counted, which happens a moment later."""
    left = wait(under_way, _LAST_S).not_done
    if left:
        raise TimeoutError(f"{len(left)} of {len(under_way)} queries have not left after {_LAST_S:.0f} s")
    while run.fates.total() < run.arrived:
        time.sleep(0.001)


def _note(run: LiveRun, kind: QueryKind, due: float, future: "Future[Outcome]") -> None:
    """Count a query that has left; all calls are on the driver's one thread."""
    latency_s = time.perf_counter() - due
    outcome = future.result()
    run.fates[_fate(kind, outcome, latency_s)] += 1
    if isinstance(outcome, Answer):
        run.latencies_s.append(latency_s)
        run.batches[outcome.variant, outcome.batch_rows] += 1


def _fate(kind: QueryKind, outcome: Outcome, latency_s: float) -> str:
    match outcome:
        case Answer():
            if kind.slo.latency_s is not None and latency_s > kind.slo.latency_s:
                return "late"
            least = kind.slo.min_accuracy
            return "degraded" if least is not None and outcome.accuracy < least else "met"
        case Unsatisfiable() | Unavailable():
            return "refused"
        case DeadlineExceeded():
            return "expired"
        case _:
            return "failed"
