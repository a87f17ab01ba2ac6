"""Do live and simulated runs agree? The same workload files, the same arrivals, measured profiles, the same policies.

The catalogue is what is registered in the home folder of the live system. What the simulation cannot know of this
machine, the way of a query, is measured before each run (`way`), as the speed of a shared machine changes within
minutes; for the same reason both sides are compared repetition by repetition. Live, the driver asks from a process of
the same two cores.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.live.models import USE_CASE, Say, live_settings, pictures
from benchmarks.live.open_system import LiveRun, run_live
from benchmarks.live.traffic import QueryClass
from benchmarks.live.way import SHARES, Quantiles, WayCost, measure_way, quantiles
from benchmarks.measure import Spread, ratios, spread
from benchmarks.serving import ours
from infaas_ray.config import Settings
from infaas_ray.domain import Array
from infaas_ray.policy.replay import replay
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.simulator.report import RunResult, result_of
from infaas_ray.simulator.scenario import read_scenario
from infaas_ray.simulator.workload import QueryKind

WARMUP_S, COUNTED_S = 10.0, 30.0
_MEASURED_SHARE = 0.65  # of the greatest rate, where the way is measured
_MEASURED_S = (6.0, 10.0)  # until what is asked counts there, and how long it does
_OTHER_SEEDS = 1000
_ROWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """One workload, run live and, with the way measured just before, simulated."""

    live: LiveRun
    simulated: RunResult
    simulated_s: Quantiles  # of latency
    way: WayCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The repetitions of one workload. What differs is taken repetition by repetition."""

    name: str
    repetitions: Sequence[Repetition]

    @property
    def points(self) -> Spread:
        """Percentage points of SLO attainment, simulated less live."""
        return spread([100 * (x.simulated.slo_attainment - x.live.attainment) for x in self.repetitions])

    @property
    def ratios(self) -> tuple[Spread, Spread]:
        """Simulated over live, of the p50 and the p95 of latency."""
        live_s, simulated_s = self.latencies_s
        p50, p95 = (ratios(a, b) for a, b in zip(simulated_s[:2], live_s[:2], strict=True))
        return p50, p95

    @property
    def latencies_s(self) -> tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]]:
        """Live and simulated, quantile by quantile, one value a repetition."""
        live_s = list(zip(*(quantiles(x.live) for x in self.repetitions), strict=True))
        return live_s, list(zip(*(x.simulated_s for x in self.repetitions), strict=True))


def workloads(asked: Sequence[QueryClass], qps: float) -> dict[str, dict[str, object]]:
    """Scenarios by name, as their files say them: a day in small up to `qps`, and steady rates."""
    rates: dict[str, dict[str, object]] = {
        "changing": {"shape": "fluctuating", "low_qps": qps / 4, "high_qps": qps, "period_s": 15.0}
    }
    rates |= {f"steady {share:.0%}": _steady(share * qps) for share in (0.5, 1.0)}
    return {name: _scenario(asked, shape, WARMUP_S, COUNTED_S) for name, shape in rates.items()}


def _steady(qps: float) -> dict[str, object]:
    return {"shape": "flat", "rate_qps": qps}


def _scenario(
    asked: Sequence[QueryClass], shape: Mapping[str, object], warmup_s: float, counted_s: float
) -> dict[str, object]:
    duration_s = warmup_s + counted_s
    queries = {
        "target": USE_CASE.name,
        "classes": [{"share": x.parts, "latency_ms": x.bound_s * 1e3, "min_accuracy": x.least_accuracy} for x in asked],
    }
    return {
        "catalogue": "catalogue.yaml",
        "duration_s": duration_s,
        "warmup_s": warmup_s,
        "workload": {"rates": {**shape, "duration_s": duration_s}, "queries": [queries]},
    }


def measure_parity(
    cache: Path, asked: Sequence[QueryClass], qps: float, repetitions: int, say: Say
) -> tuple[list[Pair], bool]:
    """All workloads both ways, and whether the live decision log replays."""
    settings = live_settings(cache)
    files = {name: _written(settings, name, x) for name, x in workloads(asked, qps).items()}
    steady = _written(settings, "measuring", _scenario(asked, _steady(_MEASURED_SHARE * qps), *_MEASURED_S))
    images = pictures(cache, _ROWS)
    found: dict[str, list[Repetition]] = {name: [] for name in files}
    with _live(settings) as system:
        _load_all(system, asked, images)
        for repetition in range(repetitions):
            for name, file in files.items():
                say(f"repetition {repetition + 1}: {name}")
                found[name].append(_repetition(system, file, steady, images, seed=repetition + 1))
                say(f"the way of a query: {_in_words(found[name][-1].way)}")
    with (settings.home / "decisions.jsonl").open("rb") as lines:
        replays = replay(lines) is None
    return [Pair(name=name, repetitions=x) for name, x in found.items()], replays


def _repetition(system: System, file: Path, steady: Path, images: Array, seed: int) -> Repetition:
    """Measure the way with a steady load of other arrivals, then run a workload live and simulated."""
    apart = _OTHER_SEEDS + seed
    way = measure_way(
        system, read_scenario(steady), _Inputs(images), apart, lambda world: _simulated(steady, world, apart)[1]
    )
    scenario = read_scenario(file)
    live = run_live(
        system,
        scenario.workload,
        _Inputs(images),
        seed=seed,
        duration_s=scenario.duration_s,
        warmup_s=scenario.warmup_s,
    )
    simulated, simulated_s = _simulated(file, way.world(), seed)
    return Repetition(live=live, simulated=simulated, simulated_s=simulated_s, way=way)


def _written(settings: Settings, name: str, content: Mapping[str, object]) -> Path:
    """The scenario's file, with the catalogue of the home folder beside it."""
    catalogue = {"profiles": [{"home": ".", "worker_types": ["this-machine"]}]}
    (settings.home / "catalogue.yaml").write_text(yaml.safe_dump(catalogue))
    file = settings.home / f"{name.replace(' ', '-').replace('%', '')}.yaml"
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return file


@contextlib.contextmanager
def _live(settings: Settings) -> Iterator[System]:
    with ours.running(settings), launch.open_system(settings) as system:
        yield system


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
    file.write_text(yaml.safe_dump(content, sort_keys=False))  # so that `infaas simulate` gives the same
    scenario = read_scenario(file)
    (strategy,) = scenario.strategies  # the default, as live
    made = scenario.make(strategy, seed)
    made.run()
    p50_s, p95_s, p99_s = (made.meter.latency.quantile_s(x) or 0.0 for x in SHARES)
    return result_of(made, strategy, seed), (p50_s, p95_s, p99_s)


def parity_table(pairs: Sequence[Pair], replays: bool) -> str:
    """Both sides of each workload, and every way that was measured."""
    heads = ["workload", "queries", "SLO attainment", "p50 ms", "simulated / live", "p95 ms", "simulated / live"]
    lines = ["Live / simulated.", "", f"| {' | '.join(heads)} | answered by |", "|---" * (len(heads) + 1) + "|"]
    for x in pairs:
        first = x.repetitions[0]
        met = [[y.live.attainment for y in x.repetitions], [y.simulated.slo_attainment for y in x.repetitions]]
        cells = [x.name, f"{first.live.arrived:,}", _both(met, ".4f")]
        for live_s, simulated_s, ratio in zip(*x.latencies_s, x.ratios, strict=False):
            cells += [_both((live_s, simulated_s), ".2f", 1e3), _told(ratio, ".2f")]
        cells.append(f"{_shares(first.live.by_variant)} / {_shares(Counter(first.simulated.answered_by))}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "The way of a query, as it was measured before each run:", ""]
    lines += [f"- {x.name}: {_in_words(y.way)}" for x in pairs for y in x.repetitions]
    lines += ["", f"The live decision log {'replays without a difference' if replays else 'DOES NOT REPLAY'}."]
    return "\n".join(lines) + "\n"


def _in_words(way: WayCost) -> str:
    p50_p95_p99 = " / ".join(f"{x * 1e3:.2f}" for x in way.quantiles_s)
    return f"p50 / p95 / p99 {p50_p95_p99} ms, {way.cpu_s * 1e3:.2f} ms of it in the driver's event loop"


def _both(sides: Sequence[Sequence[float]], digits: str, times: float = 1.0) -> str:
    return " / ".join(_told(spread(x), digits, times) for x in sides)


def _told(found: Spread, digits: str, times: float = 1.0) -> str:
    low, high = found.least * times, found.greatest * times
    return f"{found.median * times:{digits}} [{low:{digits}}-{high:{digits}}]"


def parity_numbers(pairs: Sequence[Pair]) -> dict[str, float]:
    """The worst of all workloads, each the median of its repetitions."""
    p50, p95 = (max(abs(x.ratios[which].median - 1) for x in pairs) for which in (0, 1))
    points = max(abs(x.points.median) for x in pairs)
    return {"parity_attainment_points": points, "parity_p50": p50, "parity_p95": p95}


def _shares(counts: Counter[str]) -> str:
    total = max(1, counts.total())
    return json.dumps({name.partition("-cpu-")[0]: round(n / total, 3) for name, n in sorted(counts.items())})
