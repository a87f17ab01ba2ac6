"""Open-loop part: Poisson arrivals with mixed latency bounds, at fractions of what our system can answer.

Capacity is measured in the same repetition: 64 connections in a closed loop, no bounds. The bounds are multiples of
what a full batch takes in the floor, a third of the queries each; a query counts as on time if its answer comes within
its bound, counted from when it should have been sent. Refused is not on time.
"""

from dataclasses import dataclass, field

from benchmarks.serving.generator import Generator, http_request
from benchmarks.serving.http import Options, job_for, our_system
from benchmarks.serving.load import Job, Outcome
from benchmarks.serving.servers import Door, encode_protocol, floor_rate, rows_of
from benchmarks.serving.workloads import Workload

FRACTIONS = (0.5, 0.8, 3.0)
_BOUNDS_IN_BATCHES = (3.0, 6.0, 20.0)
_CONNECTIONS = 256


@dataclass(slots=True, kw_only=True)
class OpenLoop:
    """Per door, by repetition: capacity in answers per second, and the outcome at each fraction of it."""

    workload: str
    bounds_ms: list[float] = field(default_factory=list)
    capacity: dict[str, list[float]] = field(default_factory=dict)
    outcomes: dict[tuple[str, float], list[Outcome]] = field(default_factory=dict)


def measure_open_loop(workload: Workload, options: Options, generator: Generator) -> OpenLoop:
    """Every door of ours at every fraction, `repetitions` times; a point takes three times `seconds`."""
    batch_s = workload.batch / max(floor_rate(workload, options.cache, 0.7) for _ in range(3))
    bounds_s = [max(0.005, round(x * batch_s, 4)) for x in _BOUNDS_IN_BATCHES]
    found = OpenLoop(workload=workload.name, bounds_ms=[x * 1e3 for x in bounds_s])
    options.say(f"open loop: starting ours; bounds {', '.join(f'{x * 1e3:.0f}' for x in bounds_s)} ms")
    with our_system(workload, options.cache) as doors:
        for door in doors:
            generator.measure(job_for(door, workload, 64, 2.0))
        for repetition in range(options.repetitions):
            options.repetition("open loop", repetition)
            for door in doors:
                capacity = generator.measure(job_for(door, workload, 64, options.seconds * 2)).rate
                found.capacity.setdefault(door.name, []).append(capacity)
                for fraction in FRACTIONS:
                    job = _job(door, workload, bounds_s, capacity * fraction, options.seconds * 3, repetition)
                    found.outcomes.setdefault((door.name, fraction), []).append(generator.measure(job))
    return found


def _job(door: Door, workload: Workload, bounds_s: list[float], rate: float, seconds: float, seed: int) -> Job:
    requests: list[bytes] = []
    bounds: list[float] = []
    for at, row in enumerate(rows_of(workload)[: len(bounds_s) * 5]):
        bound = bounds_s[at % len(bounds_s)]
        body = encode_protocol(row, {"latency_ms": bound * 1e3})
        requests.append(http_request(door.host, door.path, body))
        bounds.append(bound)
    return Job(
        host=door.host,
        port=door.port,
        requests=requests,
        connections=_CONNECTIONS,
        seconds=seconds,
        warm_s=1.0,
        rate=rate,
        bounds_s=bounds,
        seed=seed + 1,
    )
