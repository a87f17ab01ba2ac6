"""`infaas simulate`: what a workload would cost and how it would be served, by the live policies in virtual time."""

from pathlib import Path
from time import perf_counter

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from infaas_ray.cli.command import command, err, out, show, silent_libraries, table
from infaas_ray.config import Settings
from infaas_ray.errors import InvalidInput
from infaas_ray.simulator.fluid import FluidBound
from infaas_ray.simulator.page import write_page
from infaas_ray.simulator.report import RunResult, to_json
from infaas_ray.simulator.scenario import Scenario, read_scenario, run_scenario
from infaas_ray.simulator.tables import differences, overview


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--strategy", "names", multiple=True, help="A strategy of the file (again for more); default: its first.")
@click.option("--compare", is_flag=True, help="Run all strategies of the file.")
@click.option(
    "--seeds", type=click.IntRange(1, 10_000), help="That many seeds from 1 on, instead of those of the file."
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with plots there.")
@command
def simulate(
    _settings: Settings,
    as_json: bool,
    file: Path,
    names: tuple[str, ...],
    compare: bool,
    seeds: int | None,
    html: Path | None,
) -> None:
    """What a workload would cost and how it would be served: FILE describes it (see configs/simulations)."""
    if compare and names:
        raise InvalidInput("--compare runs all strategies of the file; leave out --strategy, or --compare")
    if html is not None and not html.absolute().parent.is_dir():
        raise InvalidInput(f"--html: there is no folder {html.absolute().parent}; make it first")
    scenario = read_scenario(file)
    if seeds is not None:
        scenario = scenario.with_seeds(range(1, seeds + 1))
    chosen = list(scenario.strategies) if compare else list(names) or list(scenario.strategies)[:1]
    started = perf_counter()
    with silent_libraries():
        runs = _run(scenario, chosen)
        took_s = perf_counter() - started
        bounds = {seed: scenario.bound(seed) for seed in scenario.seeds}
    if html is not None:
        write_page(html, f"{file.stem}: {', '.join(chosen)}", runs, bounds)
    show(as_json, to_json(runs, bounds), lambda: _tell(runs, bounds, took_s, html))


def _run(scenario: Scenario, chosen: list[str]) -> list[RunResult]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar:
        runs = len(chosen) * len(scenario.seeds)
        task = bar.add_task("simulating", total=runs)
        number = {(name, seed): at for at, (name, seed) in enumerate((n, s) for n in chosen for s in scenario.seeds)}
        return run_scenario(
            scenario,
            chosen,
            lambda name, seed, share: bar.update(
                task, completed=number[name, seed] + share, description=f"{name}, seed {seed}"
            ),
        )


def _tell(runs: list[RunResult], bounds: dict[int, FluidBound], took_s: float, html: Path | None) -> None:
    rows = overview(runs, bounds)
    table("Strategies", list(rows[0]), rows[1:])
    others = differences(runs)
    if len(others) > 1:
        table("Differences, seed by seed", list(others[0]), others[1:])
    for name in dict.fromkeys(x.strategy for x in runs):
        run = next(x for x in runs if x.strategy == name)
        hours = ", ".join(f"{hours:.2f} h {kind}" for kind, hours in run.machine_hours.items())
        out.print(f"{name}: {hours or 'no machines'} in {run.counted_s / 3600:.2f} h (seed {run.seed})")
    for seed, bound in bounds.items():
        if bound.unserved:
            out.print(f"no variant can serve {bound.unserved:,} of the queries, on whatever machine (seed {seed})")
    queries = sum(x.arrived for x in runs)
    out.print(f"{queries:,} queries in {len(runs)} runs, simulated in {took_s:.1f} s")
    if html is not None:
        out.print(f"plots: {html}")
