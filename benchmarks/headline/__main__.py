"""`python -m benchmarks.headline`: all strategies on all scenarios, over several seeds; one JSON line last."""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.headline import tables
from benchmarks.headline.lineup import CLIPPER, INFAAS, OURS, SM
from benchmarks.headline.report import write
from benchmarks.headline.runs import Found, Job, job, make_all
from benchmarks.headline.store import FOLDER, Store
from benchmarks.headline.summary import ORIGINAL, Headline, headline, throughput_ratio
from benchmarks.headline.throughput import Bench, bench, highest_rates
from benchmarks.headline.work import processes
from benchmarks.measure import machine
from infaas_ray.simulator.scenario import read_scenario

SCENARIOS = Path(__file__).parents[2] / "configs" / "simulations"
HARDER = ("bursts", "mixed-slos", "spot", "day-2026")
RAMPED = ("paper-steady", "paper-day")  # whose queries the throughput part takes
SEEDS, RAMP_SEEDS = 10, 2
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run, write, print."""
    options = _options()
    print(about := f"{machine()}; seeds 1 to {options.seeds}", flush=True)
    with _bar() as told, processes(options.jobs) as pool:
        told("choosing variants", 0.0)
        paths = [_path(x) for x in options.scenario or (*ORIGINAL, *HARDER)]
        seeds = range(1, options.seeds + 1)
        jobs = [job(x.stem, read_scenario(x), seeds, options.strategy) for x in paths]
        _check(options.strategy, jobs)
        store = Store(FOLDER, fresh=options.fresh)
        founds = make_all(jobs, store, pool, told)
        benches = [_bench(x, options.strategy) for x in jobs if x.name in RAMPED and options.ramp_seeds]
        rates = highest_rates(benches, range(1, options.ramp_seeds + 1), store, pool, told)
    fixed = {x.name: x.lineup.fixed for x in jobs}
    found = headline(founds, throughput_ratio(rates, fixed))
    folder = options.out or _folder(options)
    write(folder, founds, found, tables.throughput(benches, rates) if benches else (), about)
    _tell(founds, found, folder)


def _check(only: Sequence[str], jobs: Sequence[Job]) -> None:
    """End where a strategy is asked for that no scenario has."""
    known = {x.name for one in jobs for x in one.lineup.entries}
    for name in only:
        if name not in known:
            shapes = "planner, infaas, proteus, model-switching, queue-length, 'Clipper+ CHOICE', 'SM+ CHOICE'"
            raise SystemExit(f"no scenario has a strategy {name!r}; there are {shapes}, CHOICE as in the README")


def _bench(one: Job, only: Sequence[str]) -> Bench:
    names = [x.name for x in one.lineup.entries if only or x.name.split()[0] in (OURS, INFAAS, CLIPPER, SM)]
    return bench(one.name, one.scenario, one.lineup, names)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 1 to this")
    parser.add_argument(
        "--ramp-seeds", type=int, default=RAMP_SEEDS, help="seeds of the throughput part; 0: without it"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--scenario", action="append", help="a file, or a name of configs/simulations; again for more")
    parser.add_argument("--strategy", action="append", default=[], help="only ours and these; again for more")
    parser.add_argument("--fresh", action="store_true", help="make runs again that are kept")
    parser.add_argument("--out", type=Path, help="where to write tables, page and picture")
    options = parser.parse_args()
    if len({Path(x).stem for x in options.scenario or ()}) < len(options.scenario or ()):
        parser.error("scenarios must differ by the names of their files")
    for name in options.scenario or ():
        if not _path(name).is_file():
            parser.error(f"there is no scenario {name!r}; known ones: {', '.join((*ORIGINAL, *HARDER))}, or a file")
    if options.seeds < 1 or options.ramp_seeds < 0 or options.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1, --ramp-seeds at least 0")
    return options


def _folder(options: argparse.Namespace) -> Path:
    """Results of the whole benchmark go where they are kept; others do not replace them."""
    whole = (
        options.seeds >= SEEDS and options.ramp_seeds >= RAMP_SEEDS and not options.scenario and not options.strategy
    )
    return RESULTS if whole else FOLDER / "report"


def _path(name: str) -> Path:
    known = SCENARIOS / f"{name}.yaml"
    return known if known.exists() else Path(name)


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    columns = (TextColumn("{task.description:45.45}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _tell(founds: Sequence[Found], found: Headline, folder: Path) -> None:
    print((folder / "summary.md").read_text().split("\n", 3)[-1])
    cpu_s = sum(x.cpu_s for one in founds for runs in one.runs.values() for x in runs)
    print(f"{cpu_s / 60:.0f} minutes of one core for all of these runs; tables, page and picture: {folder}")
    numbers = {name: None if figure is None else figure.mean for name, figure in found.figures.items()}
    numbers |= found.beside
    print(json.dumps({name: None if x is None else round(x, 4) for name, x in numbers.items()}))


if __name__ == "__main__":
    main()
