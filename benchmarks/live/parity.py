"""Do live and simulated runs agree? The same workload files, the same arrivals, measured profiles, the same policies.

The catalogue is what is registered in the home folder of the live system. What the simulation cannot know of this
machine, the way of a query, is measured before each repetition (`way`), as the speed of a shared machine changes. Live,
the driver asks from a process of the same two cores.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.live.models import USE_CASE, Measured, Say, live_settings, pictures
from benchmarks.live.open_system import LiveRun, run_live
from benchmarks.live.traffic import QueryClass
from benchmarks.live.way import WayCost, measure_way
from benchmarks.measure import Spread, percentile, spread
from benchmarks.serving import ours
from infaas_ray.config import Settings
from infaas_ray.domain import Array
from infaas_ray.policy.replay import replay
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.simulator.report import RunResult, result_of
from infaas_ray.simulator.scenario import Scenario, read_scenario
from infaas_ray.simulator.workload import QueryKind

WARMUP_S, COUNTED_S = 10.0, 30.0
_SEED = 1
_ROWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One workload, run live several times and simulated; latencies of answers in seconds."""

    name: str
    live: Sequence[LiveRun]
    simulated: RunResult
    simulated_s: tuple[float, float]  # p50, p95

    @property
    def attainment(self) -> Spread:
        """Of the live runs."""
        return spread([x.attainment for x in self.live])

    @property
    def live_s(self) -> tuple[Spread, Spread]:
        """The p50 and the p95 of the live runs."""
        ordered = [sorted(x.latencies_s) for x in self.live]
        p50, p95 = (spread([percentile(x, share) for x in ordered]) for share in (0.5, 0.95))
        return p50, p95

    @property
    def points(self) -> float:
        """By how many percentage points the SLO attainments differ."""
        return 100 * abs(self.attainment.median - self.simulated.slo_attainment)

    @property
    def off(self) -> tuple[float, float]:
        """By what share of the live median the simulated p50 and p95 differ."""
        p50, p95 = (abs(b - a.median) / a.median for a, b in zip(self.live_s, self.simulated_s, strict=True))
        return p50, p95


def workloads(asked: Sequence[QueryClass], qps: float) -> dict[str, dict[str, object]]:
    """Scenarios by name, as their files say them: a day in small up to `qps`, and steady rates."""
    duration_s = WARMUP_S + COUNTED_S
    rates: dict[str, dict[str, object]] = {
        "changing": {"shape": "fluctuating", "low_qps": qps / 4, "high_qps": qps, "period_s": 15.0}
    }
    rates |= {f"steady {share:.0%}": {"shape": "flat", "rate_qps": share * qps} for share in (0.5, 1.0)}
    for shape in rates.values():
        shape["duration_s"] = duration_s
    queries = {
        "target": USE_CASE.name,
        "classes": [{"share": x.parts, "latency_ms": x.bound_s * 1e3, "min_accuracy": x.least_accuracy} for x in asked],
    }
    return {
        name: {
            "catalogue": "catalogue.yaml",
            "duration_s": duration_s,
            "warmup_s": WARMUP_S,
            "seeds": [_SEED],
            "workload": {"rates": shape, "queries": [queries]},
        }
        for name, shape in rates.items()
    }


def measure_parity(
    cache: Path, variants: Sequence[Measured], asked: Sequence[QueryClass], qps: float, repetitions: int, say: Say
) -> tuple[list[Pair], WayCost, bool]:
    """All workloads both ways, the cost of the way, and whether the live decision log replays."""
    profiles = {variant.name: profile for variant, profile in variants}
    settings = live_settings(cache)
    scenarios = {name: _written(settings, name, x) for name, x in workloads(asked, qps).items()}
    images = pictures(cache, _ROWS)
    found: dict[str, list[LiveRun]] = {name: [] for name in scenarios}
    with _live(settings) as (system, pid):
        _load_all(system, asked, images)
        kinds = read_scenario(next(iter(scenarios.values()))).workload.kinds
        ways = []
        for repetition in range(repetitions):
            ways.append(measure_way(system, pid, kinds, {"image": images[:1]}, profiles, qps))
            say(f"the way of a query: {_in_words(ways[-1])}")
            for name, file in scenarios.items():
                scenario = read_scenario(file)
                say(f"live, repetition {repetition + 1}: {name}")
                run = run_live(
                    system,
                    scenario.workload,
                    _Inputs(images),
                    seed=_SEED,
                    duration_s=scenario.duration_s,
                    warmup_s=scenario.warmup_s,
                )
                found[name].append(run)
    way = WayCost.median(ways)
    log = settings.home / "decisions.jsonl"
    with log.open("rb") as lines:
        replays = replay(lines) is None
    return [_pair(name, found[name], file, way) for name, file in scenarios.items()], way, replays


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


def _pair(name: str, live: Sequence[LiveRun], file: Path, way: WayCost) -> Pair:
    content = yaml.safe_load(file.read_text())
    content["world"] = way.world()
    file.write_text(yaml.safe_dump(content, sort_keys=False))  # so that `infaas simulate` gives the same
    scenario: Scenario = read_scenario(file)
    (strategy,) = scenario.strategies  # the default, as live
    world = scenario.make(strategy, _SEED)
    world.run()
    quantiles = (world.meter.latency.quantile_s(0.5), world.meter.latency.quantile_s(0.95))
    return Pair(
        name=name,
        live=live,
        simulated=result_of(world, strategy, _SEED),
        simulated_s=(quantiles[0] or 0.0, quantiles[1] or 0.0),
    )


def parity_table(pairs: Sequence[Pair], way: WayCost, replays: bool) -> str:
    """Both sides of each workload."""
    heads = ["workload", "queries", "SLO attainment live / simulated", "p50 ms", "off", "p95 ms", "off", "answered by"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for x in pairs:
        attainment = f"{_told(x.attainment, '.4f')} / {x.simulated.slo_attainment:.4f}"
        cells = [x.name, f"{x.live[0].arrived:,}", attainment]
        for live_s, simulated_s, off in zip(x.live_s, x.simulated_s, x.off, strict=True):
            cells += [f"{_told(live_s, '.2f', 1e3)} / {simulated_s * 1e3:.2f}", f"{off:.1%}"]
        cells.append(f"{_shares(x.live[0].by_variant)} / {_shares(Counter(x.simulated.answered_by))}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"The way of a query: {_in_words(way)}.",
        f"The live decision log {'replays without a difference' if replays else 'DOES NOT REPLAY'}.",
    ]
    return "\n".join(lines) + "\n"


def _in_words(way: WayCost) -> str:
    quantiles = " / ".join(f"{x * 1e3:.2f}" for x in (way.p50_s, way.p95_s, way.p99_s))
    cpu = f"{way.cpu_s * 1e3:.2f} ms of processor time alone, {way.cpu_more_s * 1e3:.2f} taken along"
    return f"p50 / p95 / p99 {quantiles} ms, {cpu}"


def _told(found: Spread, digits: str, times: float = 1.0) -> str:
    low, high = found.least * times, found.greatest * times
    return f"{found.median * times:{digits}} [{low:{digits}}-{high:{digits}}]"


def parity_numbers(pairs: Sequence[Pair]) -> dict[str, float]:
    """The worst of all workloads."""
    return {
        "parity_attainment_points": max(x.points for x in pairs),
        "parity_p50": max(x.off[0] for x in pairs),
        "parity_p95": max(x.off[1] for x in pairs),
    }


def _shares(counts: Counter[str]) -> str:
    total = max(1, counts.total())
    return json.dumps({name.partition("-cpu-")[0]: round(n / total, 3) for name, n in sorted(counts.items())})
