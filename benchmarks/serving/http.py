"""HTTP parts: all doors of one workload, each asked by 1, 8 and 64 connections in turns.

Servers are up at the same time and measured one after the other, so that whatever else the machine does falls on
all of them alike. A value is one repetition; ratios are taken repetition by repetition.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving import ours
from benchmarks.serving.generator import Generator, MeasurementFailed
from benchmarks.serving.load import Job, Outcome
from benchmarks.serving.servers import (
    PEERS,
    Door,
    decode_protocol,
    encode_protocol,
    floor_rate,
    serving,
    wait_until_right,
)
from benchmarks.serving.workloads import Workload, home_of

CONNECTIONS = (1, 8, 64)
_WARM_JOBS = ((64, 1.0), (1, 0.3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure, for how long, and where things are kept."""

    peers: Sequence[str]
    repetitions: int
    seconds: float
    cache: Path
    say: Callable[[str], None]

    def repetition(self, what: str, number: int) -> None:
        """Say that a repetition begins, and how loaded the machine is."""
        load = os.getloadavg()[0]
        self.say(f"{what}: repetition {number + 1} of {self.repetitions}, load average {load:.1f}")


@dataclass(slots=True, kw_only=True)
class Measured:
    """Per door and number of connections: answers per second and p50, p99 in milliseconds, by repetition.

    `floor` holds the rows per second of the floor, and `alone` our answers per second by door right after it, with
    64 connections and before any peer was started; `absent` why a peer is missing.
    """

    workload: str
    rate: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    p50_ms: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    p99_ms: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    floor: list[float] = field(default_factory=list)
    alone: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def doors(self) -> list[str]:
        """Names of what was measured, in order."""
        return list(dict.fromkeys(name for name, _ in self.rate))

    def add(self, door: str, connections: int, outcome: Outcome) -> None:
        """One repetition of one point."""
        key = (door, connections)
        self.rate.setdefault(key, []).append(outcome.rate)
        self.p50_ms.setdefault(key, []).append(outcome.answers.p50_ms)
        self.p99_ms.setdefault(key, []).append(outcome.answers.p99_ms)
        if outcome.failed or outcome.refused:
            self.notes.append(
                f"{door}, {connections} connections: {outcome.refused} refused, {outcome.failed} failed of "
                f"{outcome.offered} ({outcome.statuses})"
            )

    def forget(self) -> None:
        """Forget what was measured to warm up."""
        for series in (self.rate, self.p50_ms, self.p99_ms):
            series.clear()
        self.notes.clear()

    def drop(self, door: str, why: str) -> None:
        """Leave a door out, with everything measured of it."""
        self.absent[door] = why
        for series in (self.rate, self.p50_ms, self.p99_ms):
            for key in [x for x in series if x[0] == door]:
                del series[key]


def our_doors(workload: Workload, places: dict[str, tuple[str, int]], target: str) -> list[Door]:
    """Our doors, asked by the Open Inference Protocol in JSON."""
    return [
        Door(
            name=name,
            host=host,
            port=port,
            path=f"/v2/models/{target}/infer",
            encode=encode_protocol,
            decode=decode_protocol,
        )
        for name, (host, port) in places.items()
    ]


@contextlib.contextmanager
def our_system(workload: Workload, cache: Path) -> Iterator[list[Door]]:
    """Our system with one replica of the workload, answering correctly at every door."""
    settings = home_of(workload, cache)
    if workload.file is None:
        ours.register_noop(settings)
    with ours.running(settings) as run:
        doors = our_doors(workload, ours.doors(run), workload.architecture)
        for door in doors:
            wait_until_right(door, workload, lambda: True, settings.home / "ray.log")
        yield doors


def measure_workload(workload: Workload, options: Options, generator: Generator) -> Measured:
    """Every door of a workload at every number of connections, `repetitions` times, and the floor."""
    found = Measured(workload=workload.name)
    with contextlib.ExitStack() as stack:
        options.say(f"{workload.name}: starting ours")
        doors = list(stack.enter_context(our_system(workload, options.cache)))
        if workload.file is not None:
            _beside_the_floor(found, workload, doors, options, generator)
        for key in options.peers:
            peer = PEERS[key]
            options.say(f"{workload.name}: starting {peer.name}")
            try:
                doors.append(stack.enter_context(serving(peer, workload, options.cache / "logs")))
            except MeasurementFailed as error:
                found.absent[peer.name] = str(error)
                options.say(f"left out: {peer.name}: {error}")
        for door in list(doors):
            for connections, seconds in _WARM_JOBS:
                _measure(found, doors, door, job_for(door, workload, connections, seconds), generator)
        found.forget()
        for repetition in range(options.repetitions):
            options.repetition(workload.name, repetition)
            for connections in CONNECTIONS:
                for door in list(doors):
                    job = job_for(door, workload, connections, options.seconds * workload.patience)
                    _measure(found, doors, door, job, generator)
    return found


def _measure(found: Measured, doors: list[Door], door: Door, job: Job, generator: Generator) -> None:
    """Add one repetition of one point; a peer that fails at it is left out from then on, with all it had."""
    if door not in doors:
        return
    try:
        outcome = generator.measure(job)
        if outcome.rate == 0:
            raise MeasurementFailed(f"no answer in {outcome.seconds:g} s: {outcome.statuses}")
        found.add(door.name, job.connections, outcome)
    except MeasurementFailed as error:
        if door.name.startswith("ours"):
            raise
        doors.remove(door)
        found.drop(door.name, str(error))


def _beside_the_floor(
    found: Measured, workload: Workload, doors: list[Door], options: Options, generator: Generator
) -> None:
    """The floor and our doors in turns, with nothing else of ours running: even idle servers take a share of a core."""
    seconds = options.seconds * workload.patience
    for door in doors:
        generator.measure(job_for(door, workload, CONNECTIONS[-1], 1.0))
    for repetition in range(options.repetitions):
        options.repetition(f"{workload.name} beside the floor", repetition)
        found.floor.append(floor_rate(workload, options.cache, seconds))
        for door in doors:
            outcome = generator.measure(job_for(door, workload, CONNECTIONS[-1], seconds))
            found.alone.setdefault(door.name, []).append(outcome.rate)


def job_for(door: Door, workload: Workload, connections: int, seconds: float) -> Job:
    """A closed-loop job."""
    return Job(
        host=door.host,
        port=door.port,
        requests=door.requests(workload),
        connections=connections,
        seconds=seconds,
        warm_s=max(0.3, 0.15 * seconds),
    )
