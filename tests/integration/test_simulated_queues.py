"""The simulator against queues whose mean waits are known exactly. Long runs, a fixed seed, 2 % of tolerance.

The formulas are taken at the load that was drawn, so that its luck does not count.
"""

from collections.abc import Iterator
from math import factorial

import numpy as np
import pytest

from infaas_ray.domain import SLO
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.routing import Offer
from infaas_ray.simulator.jitter import ProfiledTimes
from infaas_ray.simulator.meter import Meter
from infaas_ray.simulator.workload import Chunk, Poisson, QueryKind
from infaas_ray.simulator.world import MakeTimes
from tests.unit.policy.builders import offer
from tests.unit.simulator.worlds import worker_type, world

SERVICE_S = 0.01
QUERIES = 250_000
BEGIN_S = 20.0


class Later(Poisson):
    """Arrivals that begin when all replicas are ready."""

    def chunks(self, rng: np.random.Generator) -> Iterator[Chunk]:
        for chunk in super().chunks(rng):
            yield Chunk(chunk.times + BEGIN_S, chunk.kinds)


class ExponentialTimes:
    """Service times without memory; `drawn_s` adds them up."""

    drawn_s = 0.0

    def __init__(self, _offer: Offer, draws: Iterator[float]) -> None:
        self._draws = draws

    def draw(self, rows: int) -> float:
        # Half the sum of two squared normal draws is an exponential one.
        seconds = SERVICE_S * (next(self._draws) ** 2 + next(self._draws) ** 2) / 2
        ExponentialTimes.drawn_s += seconds
        return seconds


def run(load: float, servers: int = 1, replicas: int = 1, times: MakeTimes = ProfiledTimes) -> Meter:
    """Queries one at a time, by `servers` processors of which each is busy for the share `load`."""
    rate_qps = load * servers / SERVICE_S
    duration_s = QUERIES / rate_qps
    made = world(
        offer(
            "net",
            p99_ms=((1, SERVICE_S * 1e3),),
            median=1.0,
            rate_qps=rate_qps if replicas == 1 else 1.0,
            batch_limit=1,
            memory_bytes=1,
        ),
        workload=Later(kinds=(QueryKind("net", SLO()),), rate_qps=rate_qps, duration_s=duration_s),
        types=[worker_type(resources={"CPU": float(servers)}, max_workers=1)],
        scaling=ScalingSettings(
            strategy="static", keep_warm={"net": replicas}, oversubscription=1e3, max_replicas_per_variant=1000
        ),
        duration_s=BEGIN_S + duration_s,
        times=times,
    )
    return made.run()


def drawn(meter: Meter, servers: int = 1) -> tuple[float, float]:
    """The mean service time and the load that were drawn, which differ a little from those asked for."""
    mean_s = ExponentialTimes.drawn_s / meter.latency.count if ExponentialTimes.drawn_s else SERVICE_S
    return mean_s, mean_s * meter.latency.count / (meter.until_s - BEGIN_S) / servers


def test_constant_times() -> None:
    """M/D/1: the mean wait is `load / 2 (1 - load)` service times (Pollaczek and Khinchine)."""
    ExponentialTimes.drawn_s = 0.0
    meter = run(0.5)
    mean_s, load = drawn(meter)
    assert meter.queue_s / meter.latency.count == pytest.approx(mean_s * load / (2 * (1 - load)), rel=0.02)


def test_exponential_times() -> None:
    """M/M/1: the mean wait is `load / (1 - load)` service times."""
    ExponentialTimes.drawn_s = 0.0
    meter = run(0.5, times=ExponentialTimes)
    mean_s, load = drawn(meter)
    assert meter.queue_s / meter.latency.count == pytest.approx(mean_s * load / (1 - load), rel=0.02)


@pytest.mark.parametrize("servers", [2, 3])
def test_several_servers(servers: int) -> None:
    """M/M/c: the mean wait follows from the probability that all servers are busy (Erlang).

    So many replicas share `servers` processors that every query runs at once; their number then is a birth and death
    process with the rates of M/M/c, so the mean time beyond the service is its mean wait.
    """
    ExponentialTimes.drawn_s = 0.0
    meter = run(0.6, servers, replicas=50, times=ExponentialTimes)
    assert meter.queue_s == 0.0
    mean_s, load = drawn(meter, servers)
    offered = load * servers
    full = offered**servers / factorial(servers) / (1 - load)
    all_busy = full / (sum(offered**k / factorial(k) for k in range(servers)) + full)
    beyond_s = meter.latency.total_s / meter.latency.count - mean_s
    assert beyond_s == pytest.approx(all_busy * mean_s / (servers * (1 - load)), rel=0.02)
