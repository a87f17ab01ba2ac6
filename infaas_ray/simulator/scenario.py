"""A scenario as a YAML file: what is offered, what is asked, what the world is like, and which strategies to try.

- `catalogue`: a catalogue file (`catalogues`); its worker types are the machines that can be had.
- `workload`: what arrives (`workload_file`).
- `duration_s`; `warmup_s`: queries and machine time before it are simulated, but do not count.
- `strategies`: by a name of your choice, scaling settings as in the settings' `scaling`; the first is the one that
  others are compared with. Without any: "planner" with its defaults.
- `seeds`: one run of each strategy per seed; all strategies get the same arrivals under the same seed.
- `world`: delays, jitter and failures (`settings`). `bins`: of time, in plots and series.

Paths are relative to the file. A key that is not known is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infaas_ray.config import read_yaml
from infaas_ray.errors import ConfigError, InvalidInput, one_of
from infaas_ray.policy.planner.problem import Plan, PlanProblem
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.routing import Catalog
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.simulator.catalogues import load_catalogue
from infaas_ray.simulator.fluid import FluidBound, fluid_bound
from infaas_ray.simulator.report import RunResult, result_of
from infaas_ray.simulator.settings import WorldSettings
from infaas_ray.simulator.workload import Workload
from infaas_ray.simulator.workload_file import read_workload
from infaas_ray.simulator.world import World, arrivals_rng

_PATIENCE = 10.0  # times the solver's time limit: a run must not depend on how busy the machine is that simulates it
_LONGEST_S = 366 * 86_400.0
Progress = Callable[[str, int, float], None]  # strategy, seed, share of the run that is done


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    catalogue: Path
    workload: Any
    duration_s: float = Field(gt=0, le=_LONGEST_S)
    warmup_s: float = Field(default=0.0, ge=0)
    strategies: Mapping[str, ScalingSettings] = {}
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(1,), min_length=1)
    world: WorldSettings = WorldSettings()
    bins: int = Field(default=120, ge=1, le=10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All that a simulation depends on."""

    catalog: Catalog
    workload: Workload
    duration_s: float
    warmup_s: float = 0.0
    strategies: Mapping[str, ScalingSettings] = field(default_factory=dict)
    seeds: Sequence[int] = (1,)
    world: WorldSettings = field(default_factory=WorldSettings)
    bins: int = 120

    def named(self, names: Sequence[str]) -> dict[str, ScalingSettings]:
        """The strategies of these names, in this order; InvalidInput for a name that is unknown."""
        for name in names:
            if name not in self.strategies:
                raise InvalidInput(one_of("strategy", name, list(self.strategies)))
        return {name: self.strategies[name] for name in names}

    def with_seeds(self, seeds: Sequence[int]) -> "Scenario":
        """The same with other seeds."""
        return replace(self, seeds=tuple(seeds))

    def bound(self, seed: int) -> FluidBound:
        """The least that serving everything costs that arrives under that seed, within the time that counts."""
        return fluid_bound(
            self.catalog, self.workload, arrivals_rng(seed), until_s=self.duration_s, from_s=self.warmup_s
        )

    def make(self, strategy: str, seed: int, log: Callable[[bytes], None] | None = None) -> World:
        """The world of one run."""
        scaling = self.strategies[strategy]

        def plan(problem: PlanProblem) -> Plan:
            return solve(problem, _PATIENCE * scaling.planner.time_limit_s, scaling.planner.gap)

        return World(
            self.catalog,
            self.workload,
            scaling,
            duration_s=self.duration_s,
            warmup_s=self.warmup_s,
            settings=self.world,
            seed=seed,
            bins=self.bins,
            solve=plan,
            log=log,
        )


def read_scenario(path: Path) -> Scenario:
    """The scenario of a file. Raises ConfigError or InvalidInput, saying what would be right."""
    file = _read(path)
    catalog = load_catalogue(path.parent / file.catalogue)
    for part in (file.world.workers, file.world.most_workers):
        for name in part:
            if name not in catalog.worker_types:
                raise ConfigError(f"{path}: world: {one_of('worker type', name, list(catalog.worker_types))}")
    for name, scaling in file.strategies.items():
        for target in scaling.keep_warm:
            if target not in (known := catalog.targets()):
                raise ConfigError(f"{path}: strategies.{name}.keep_warm: {one_of('target', target, list(known))}")
    try:
        workload = read_workload(file.workload, catalog, path.parent)
    except InvalidInput as error:
        raise ConfigError(f"{path}: {error}") from None
    return Scenario(
        catalog=catalog,
        workload=workload,
        duration_s=file.duration_s,
        warmup_s=file.warmup_s,
        strategies=dict(file.strategies) or {"planner": ScalingSettings()},
        seeds=file.seeds,
        world=file.world,
        bins=file.bins,
    )


def _read(path: Path) -> _File:
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"cannot read the scenario {path}: {error.strerror}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} must hold keys and values: catalogue, workload, duration_s and so on")
    for key in content:
        if key not in _File.model_fields:
            raise ConfigError(f"{path}: {one_of('key', str(key), list(_File.model_fields))}")
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in error.errors())
        raise ConfigError(f"{path}: {problems}") from None
    if file.warmup_s >= file.duration_s:
        raise ConfigError(f"{path}: warmup_s must be less than duration_s")
    if len(set(file.seeds)) < len(file.seeds):
        raise ConfigError(f"{path}: seeds must differ, or the same run would count twice")
    return file


def run_scenario(
    scenario: Scenario, strategies: Sequence[str], progress: Progress = lambda strategy, seed, share: None
) -> list[RunResult]:
    """One run of each of these strategies per seed, strategy by strategy."""
    found = []
    for name in scenario.named(strategies):
        for seed in scenario.seeds:
            world = scenario.make(name, seed)
            world.run(lambda now, name=name, seed=seed: progress(name, seed, now / scenario.duration_s))  # type: ignore[misc]
            found.append(result_of(world, name, seed))
    return found
