"""Do live and simulated runs agree? The same workload files, the same arrivals, measured profiles, the same policies.

The catalogue is what is registered in the home folder of the live system. What the simulation cannot know of this
machine, the way of a query, is found from runs at a steady rate (`way`) just before and just after each run, as the
speed of a shared machine changes within tens of seconds; for the same reason runs are short, and both sides are
compared run by run. Live, the driver asks from a process of the same two cores.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

from benchmarks.live.models import USE_CASE, Measured, Say, live_settings, pictures
from benchmarks.live.open_system import LiveRun, run_live
from benchmarks.live.traffic import QueryClass
from benchmarks.live.way import SHARES, Quantiles, Way, fit_way, measure_work, quantiles
from benchmarks.measure import Spread, ratios, spread
from benchmarks.serving import ours
from infaas_ray.config import Settings
from infaas_ray.domain import Array
from infaas_ray.policy.replay import replay
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.simulator.report import RunResult, result_of
from infaas_ray.simulator.scenario import Scenario, read_scenario
from infaas_ray.simulator.workload import QueryKind

WARMUP_S, COUNTED_S = 10.0, 15.0  # of a simulation, which has to load everything first
_LEAD_S = 1.0  # live, where all is loaded, what is sent before what counts
_MEASURED_SHARE = 0.625  # of the greatest rate, where the way is measured: the mean of the changing workload
_MEASURED_S = 5.0
_TIMES = 2  # that every workload is run in a repetition
_ROWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One workload, run live and, with the way measured just before and just after, simulated."""

    live: LiveRun
    simulated: RunResult
    simulated_s: Quantiles  # of latency
    way: Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The runs of one workload. What differs is taken run by run."""

    name: str
    runs: Sequence[Run]

    @property
    def points(self) -> Spread:
        """Percentage points of SLO attainment, simulated less live."""
        return spread([100 * (x.simulated.slo_attainment - x.live.attainment) for x in self.runs])

    @property
    def ratios(self) -> tuple[Spread, Spread]:
        """Simulated over live, of the p50 and the p95 of latency."""
        live_s, simulated_s = self.latencies_s
        p50, p95 = (ratios(a, b) for a, b in zip(simulated_s[:2], live_s[:2], strict=True))
        return p50, p95

    @property
    def latencies_s(self) -> tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]]:
        """Live and simulated, quantile by quantile, one value a run."""
        live_s = list(zip(*(quantiles(x.live) for x in self.runs), strict=True))
        return live_s, list(zip(*(x.simulated_s for x in self.runs), strict=True))


def workloads(asked: Sequence[QueryClass], qps: float) -> dict[str, dict[str, object]]:
    """Scenarios by name, as their files say them: a day in small up to `qps`, and steady rates."""
    rates: dict[str, dict[str, object]] = {
        "changing": {"shape": "fluctuating", "low_qps": qps / 4, "high_qps": qps, "period_s": 15.0}
    }
    rates |= {f"steady {share:.0%}": _steady(share * qps) for share in (0.5, 1.0)}
    return {name: _scenario(asked, shape, COUNTED_S) for name, shape in rates.items()}


def _steady(qps: float) -> dict[str, object]:
    return {"shape": "flat", "rate_qps": qps}


def _scenario(asked: Sequence[QueryClass], shape: Mapping[str, object], counted_s: float) -> dict[str, object]:
    duration_s = WARMUP_S + counted_s
    queries = {
        "target": USE_CASE.name,
        "classes": [{"share": x.parts, "latency_ms": x.bound_s * 1e3, "min_accuracy": x.least_accuracy} for x in asked],
    }
    return {
        "catalogue": "catalogue.yaml",
        "duration_s": duration_s,
        "warmup_s": WARMUP_S,
        "workload": {"rates": {**shape, "duration_s": duration_s}, "queries": [queries]},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A workload's file and the seed of its arrivals, a live run of it, and the latencies at the steady rate around."""

    file: Path
    seed: int
    live: LiveRun
    steady_s: Quantiles


def measure_parity(
    cache: Path, variants: Sequence[Measured], asked: Sequence[QueryClass], qps: float, repetitions: int, say: Say
) -> tuple[list[Pair], bool]:
    """All workloads both ways, and whether the live decision log replays."""
    settings = live_settings(cache)
    files = {name: _written(settings, name, x) for name, x in workloads(asked, qps).items()}
    steady = _written(settings, "measuring", _scenario(asked, _steady(_MEASURED_SHARE * qps), _MEASURED_S))
    most = _written(settings, "work", _scenario(asked, _steady(qps), _MEASURED_S))
    profiles = {variant.name: profile for variant, profile in variants}
    images = pictures(cache, _ROWS)
    with _live(settings) as (system, pid):
        _load_all(system, asked, images)
        full = read_scenario(most)
        loop_s, work_s = measure_work(pid, lambda: _ask(system, full, images, 1, lead_s=0.0), profiles)
        seen = _see_all(system, files, steady, images, repetitions, say)
    with (settings.home / "decisions.jsonl").open("rb") as lines:
        replays = replay(lines) is None
    say("simulating")
    pairs = [Pair(name=x, runs=[_run(one, steady, loop_s, work_s) for one in runs]) for x, runs in seen.items()]
    return pairs, replays


def _see_all(
    system: System, files: Mapping[str, Path], steady: Path, images: Array, repetitions: int, say: Say
) -> dict[str, list[_Seen]]:
    """Run all workloads in turns, between runs at the steady rate."""
    found: dict[str, list[_Seen]] = {name: [] for name in files}
    scenarios, even = {name: read_scenario(x) for name, x in files.items()}, read_scenario(steady)
    before_s = quantiles(_ask(system, even, images, 1))
    for seed in range(1, _TIMES * repetitions + 1):
        for name, file in files.items():
            say(f"live, {seed} of {_TIMES * repetitions}: {name}")
            live = _ask(system, scenarios[name], images, seed)
            after_s = quantiles(_ask(system, even, images, seed))
            p50, p95, p99 = (fmean(x) for x in zip(before_s, after_s, strict=True))
            found[name].append(_Seen(file=file, seed=seed, live=live, steady_s=(p50, p95, p99)))
            before_s = after_s
    return found


def _ask(system: System, scenario: Scenario, images: Array, seed: int, lead_s: float = _LEAD_S) -> LiveRun:
    return run_live(
        system,
        scenario.workload,
        _Inputs(images),
        seed=seed,
        duration_s=scenario.duration_s,
        warmup_s=scenario.warmup_s,
        begin_s=scenario.warmup_s - lead_s,
    )


def _run(seen: _Seen, steady: Path, loop_s: float, work_s: float) -> Run:
    way = fit_way(seen.steady_s, loop_s, work_s, lambda world: _simulated(steady, world, seen.seed)[1])
    simulated, simulated_s = _simulated(seen.file, way.world(), seen.seed)
    return Run(live=seen.live, simulated=simulated, simulated_s=simulated_s, way=way)


def _written(settings: Settings, name: str, content: Mapping[str, object]) -> Path:
    """The scenario's file, with the catalogue of the home folder beside it."""
    catalogue = {"profiles": [{"home": ".", "worker_types": ["this-machine"]}]}
    (settings.home / "catalogue.yaml").write_text(yaml.safe_dump(catalogue))
    file = settings.home / f"{name.replace(' ', '-').replace('%', '')}.yaml"
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return file


@contextlib.contextmanager
def _live(settings: Settings) -> Iterator[tuple[System, int]]:
    with ours.running(settings) as run, launch.open_system(settings) as system:
        yield system, run.head_pid


def _load_all(system: System, asked: Sequence[QueryClass], images: Array) -> None:
    for x in asked:
        system.query(USE_CASE.name, {"image": images[:1]}, min_accuracy=x.least_accuracy)
    time.sleep(1.0)


class _Inputs:
    """Pictures in turn."""

    def __init__(self, images: Array) -> None:
        self._rows = [{"image": images[at : at + 1]} for at in range(len(images))]
        self._next = 0

    def __call__(self, kind: QueryKind) -> Mapping[str, Array]:
        self._next += 1
        return self._rows[self._next % len(self._rows)]


def _simulated(file: Path, world: Mapping[str, float], seed: int) -> tuple[RunResult, Quantiles]:
    """The result and the latencies of a scenario in this world, which its file has from then on."""
    content = yaml.safe_load(file.read_text()) | {"world": dict(world), "seeds": [seed]}
    file.write_text(yaml.safe_dump(content, sort_keys=False))  # so that `infaas simulate` gives the last run again
    scenario = read_scenario(file)
    (strategy,) = scenario.strategies  # the default, as live
    made = scenario.make(strategy, seed)
    made.run()
    p50_s, p95_s, p99_s = (made.meter.latency.quantile_s(x) or 0.0 for x in SHARES)
    return result_of(made, strategy, seed), (p50_s, p95_s, p99_s)


def parity_table(pairs: Sequence[Pair], replays: bool) -> str:
    """Both sides of each workload, and every way that was measured."""
    heads = ["workload", "queries", "SLO attainment", "p50 ms", "simulated / live", "p95 ms", "simulated / live"]
    lines = [
        "Live / simulated. Queries, and who answered, are of the first run.",
        "",
        f"| {' | '.join(heads)} | answered by |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for x in pairs:
        first = x.runs[0]
        met = [[y.live.attainment for y in x.runs], [y.simulated.slo_attainment for y in x.runs]]
        cells = [x.name, f"{first.live.arrived:,}", _both(met, ".4f")]
        for live_s, simulated_s, ratio in zip(*x.latencies_s, x.ratios, strict=False):
            cells += [_both((live_s, simulated_s), ".2f", 1e3), _told(ratio, ".2f")]
        cells.append(f"{_shares(first.live.by_variant)} / {_shares(Counter(first.simulated.answered_by))}")
        lines.append(f"| {' | '.join(cells)} |")
    ways = [y.way for x in pairs for y in x.runs]
    lines += ["", f"The way of a query: {_in_words(ways)}."]
    lines += [f"The live decision log {'replays without a difference' if replays else 'DOES NOT REPLAY'}."]
    return "\n".join(lines) + "\n"


def _in_words(ways: Sequence[Way]) -> str:
    p50, p95, p99 = (_told(spread(x), ".2f", 1e3) for x in zip(*(way.quantiles_s for way in ways), strict=True))
    computed = f"{ways[0].loop_s * 1e3:.2f} ms in the driver's event loop, {ways[0].work_s * 1e3:.2f} ms elsewhere"
    return f"p50 / p95 / p99 {p50} / {p95} / {p99} ms; processor time of one: {computed}"


def _both(sides: Sequence[Sequence[float]], digits: str, times: float = 1.0) -> str:
    return " / ".join(_told(spread(x), digits, times) for x in sides)


def _told(found: Spread, digits: str, times: float = 1.0) -> str:
    low, high = found.least * times, found.greatest * times
    return f"{found.median * times:{digits}} [{low:{digits}}-{high:{digits}}]"


def parity_numbers(pairs: Sequence[Pair]) -> dict[str, Spread]:
    """How far the median of a workload's runs is off, and single runs are: of the workload that is off the furthest."""
    points = max((_off(x.points, 0.0) for x in pairs), key=_median)
    p50, p95 = (max((_off(x.ratios[which], 1.0) for x in pairs), key=_median) for which in (0, 1))
    return {"parity_attainment_points": points, "parity_p50": p50, "parity_p95": p95}


def _off(found: Spread, ideal: float) -> Spread:
    ends = (abs(found.least - ideal), abs(found.greatest - ideal))
    least = 0.0 if found.least <= ideal <= found.greatest else min(ends)
    return Spread(median=abs(found.median - ideal), least=least, greatest=max(ends))


def _median(found: Spread) -> float:
    return found.median


def _shares(counts: Counter[str]) -> str:
    total = max(1, counts.total())
    return json.dumps({name.partition("-cpu-")[0]: round(n / total, 3) for name, n in sorted(counts.items())})
