"""The runs of all scenarios: every strategy of each line-up under every seed, and the fluid bounds."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import process_time

import msgspec

from benchmarks.headline.lineup import Entry, Lineup, lineup
from benchmarks.headline.store import Arrivals, Store, arrivals, bound_key, run_key
from benchmarks.headline.work import Task, Told, do_all
from infaas_ray.simulator.fluid import FluidBound
from infaas_ray.simulator.report import RunResult, result_of
from infaas_ray.simulator.scenario import Scenario


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A run and the processor time that it took."""

    result: RunResult
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A scenario with its line-up and the seeds to run."""

    name: str
    scenario: Scenario
    lineup: Lineup
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All runs of a scenario by strategy, in the order of the line-up, by rising seed; and the bounds by seed."""

    name: str
    lineup: Lineup
    runs: Mapping[str, list[Made]]
    bounds: Mapping[int, FluidBound]

    def results(self, strategy: str) -> list[RunResult]:
        """The results of a strategy by rising seed."""
        return [x.result for x in self.runs[strategy]]


_Seed = tuple[str, int]  # of a scenario
_Run = tuple[str, str, int]  # scenario, strategy, seed


def job(name: str, scenario: Scenario, seeds: Sequence[int], only: Sequence[str] = ()) -> Job:
    """The job of a scenario; with `only`, just ours and the strategies of these names."""
    found = lineup(scenario)
    kept = tuple(x for at, x in enumerate(found.entries) if not only or not at or x.name in only)
    return Job(
        name=name, scenario=scenario, lineup=Lineup(entries=kept, choices=found.choices), seeds=tuple(sorted(seeds))
    )


def make_all(jobs: Sequence[Job], store: Store, pool: ProcessPoolExecutor, told: Told) -> list[Found]:
    """All runs of the jobs, and their bounds."""
    waiting = {(x.name, seed): pool.submit(arrivals, x.scenario, seed) for x in jobs for seed in x.seeds}
    came = {place: future.result() for place, future in waiting.items()}
    bounds = do_all({place: x for one in jobs for place, x in _bounds(one, came).items()}, store, pool, told)
    made = do_all({place: x for one in jobs for place, x in _runs(one, came).items()}, store, pool, told)
    return [_gather(x, made, bounds) for x in jobs]


def _runs(one: Job, came: Mapping[_Seed, Arrivals]) -> dict[_Run, Task[Made]]:
    return {
        (one.name, entry.name, seed): Task(
            label=f"{one.name}, {entry.name}, seed {seed}",
            key=run_key(one.scenario, entry, seed, came[one.name, seed]),
            weight=came[one.name, seed].count + one.scenario.duration_s * _second(entry),
            kind=Made,
            act=partial(_run, one.scenario, entry, seed),
        )
        for seed in one.seeds
        for entry in one.lineup.entries
        if one.lineup.twin(entry) is entry
    }


def _second(entry: Entry) -> float:
    """About how many queries a simulated second of control is worth: plans take time."""
    return 300.0 if entry.scaling.strategy == "planner" else 20.0


def _bounds(one: Job, came: Mapping[_Seed, Arrivals]) -> dict[_Seed, Task[FluidBound]]:
    return {
        (one.name, seed): Task(
            label=f"{one.name}, fluid bound, seed {seed}",
            key=bound_key(one.scenario, seed, came[one.name, seed]),
            weight=1.0,
            kind=FluidBound,
            act=partial(one.scenario.bound, seed),
        )
        for seed in one.seeds
    }


def _run(scenario: Scenario, entry: Entry, seed: int) -> Made:
    started = process_time()
    world = entry.of(scenario).make(entry.name, seed)
    world.run()
    return Made(result=result_of(world, entry.name, seed), cpu_s=process_time() - started)


def _gather(one: Job, made: Mapping[_Run, Made], bounds: Mapping[_Seed, FluidBound]) -> Found:
    runs = {}
    for entry in one.lineup.entries:
        twin = one.lineup.twin(entry).name
        runs[entry.name] = [_as(entry.name, made[one.name, twin, seed]) for seed in one.seeds]
    return Found(name=one.name, lineup=one.lineup, runs=runs, bounds={x: bounds[one.name, x] for x in one.seeds})


def _as(name: str, made: Made) -> Made:
    return Made(result=msgspec.structs.replace(made.result, strategy=name), cpu_s=made.cpu_s)
