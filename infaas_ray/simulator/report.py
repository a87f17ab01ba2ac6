"""What a run came to, and how runs of several strategies compare.

All shares are of all queries that arrived: one that was refused or expired missed its SLO like one that was late.
Effective accuracy adds up the accuracy of the answers that were in time, and nothing for the others. Money is every
second of every machine from its launch on.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import msgspec
from scipy.special import stdtrit

from infaas_ray.simulator.fluid import FluidBound
from infaas_ray.simulator.meter import Tally
from infaas_ray.simulator.world import World


class KindResult(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of query: what it asks for, and what became of it. `met` counts whole SLOs."""

    target: str
    rows: int
    latency_s: float | None
    min_accuracy: float | None
    arrived: int
    met: int
    late: int
    degraded: int
    refused: int
    expired: int
    effective_accuracy: float | None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The course of a run in bins of `bin_s` seconds from `from_s` on; machines and replicas are means over a bin.

    `met` counts by time of arrival.
    """

    from_s: float
    bin_s: float
    arrived: list[int]
    met: list[int]
    machines: dict[str, list[float]]
    replicas: list[float]
    usd_per_hour: list[float]


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Latencies in seconds, of answers; None where there is none. The rest is said at the top of the module.

    `variants_loaded` counts how often a variant came that had no replica ready; `slo_attainment` is the share of
    queries whose whole SLO was met. `dropped` are refused and expired.
    """

    strategy: str
    seed: int
    counted_s: float
    arrived: int
    answered: int
    met: int
    late: int
    degraded: int
    refused: int
    expired: int
    slo_attainment: float
    effective_accuracy: float
    usd: float
    usd_per_1k_met: float | None
    latency_mean_s: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None
    latency_p999_s: float | None
    queue_mean_s: float | None
    starts: int
    stops: int
    variants_loaded: int
    machine_hours: dict[str, float]
    usd_by_type: dict[str, float]
    answered_by: dict[str, int]
    counts: dict[str, int]
    kinds: list[KindResult]
    series: Series

    @property
    def dropped(self) -> int:
        """Refused or expired."""
        return self.refused + self.expired


def result_of(world: World, strategy: str, seed: int) -> RunResult:
    """The result of a world that has run."""
    meter = world.meter
    tallies = meter.tallies
    usd = {name: hours * world.prices[name] for name, hours in meter.machines.hours().items()}
    arrived, met = _sum(tallies, "arrived"), _sum(tallies, "met")
    answered = meter.latency.count
    return RunResult(
        strategy=strategy,
        seed=seed,
        counted_s=meter.until_s - meter.from_s,
        arrived=arrived,
        answered=answered,
        met=met,
        late=_sum(tallies, "late"),
        degraded=_sum(tallies, "degraded"),
        refused=_sum(tallies, "refused"),
        expired=_sum(tallies, "expired"),
        slo_attainment=met / arrived if arrived else 1.0,
        effective_accuracy=sum(x.accuracy_in_time for x in tallies) / arrived if arrived else 0.0,
        usd=sum(usd.values()),
        usd_per_1k_met=1e3 * sum(usd.values()) / met if met else None,
        latency_mean_s=meter.latency.mean_s,
        latency_p50_s=meter.latency.quantile_s(0.5),
        latency_p99_s=meter.latency.quantile_s(0.99),
        latency_p999_s=meter.latency.quantile_s(0.999),
        queue_mean_s=meter.queue_s / answered if answered else None,
        starts=meter.counts["starts"],
        stops=meter.counts["stops"],
        variants_loaded=meter.counts["variants_loaded"],
        machine_hours=meter.machines.hours(),
        usd_by_type=usd,
        answered_by=dict(meter.by_variant.most_common()),
        counts=dict(sorted(meter.counts.items())),
        kinds=[_kind(world, number) for number in range(len(tallies))],
        series=_series(world),
    )


def _sum(tallies: Sequence[Tally], name: str) -> int:
    return sum(getattr(x, name) for x in tallies)


def _kind(world: World, number: int) -> KindResult:
    kind, tally = world.kinds[number], world.meter.tallies[number]
    return KindResult(
        target=kind.target,
        rows=kind.rows,
        latency_s=kind.slo.latency_s,
        min_accuracy=kind.slo.min_accuracy,
        arrived=tally.arrived,
        met=tally.met,
        late=tally.late,
        degraded=tally.degraded,
        refused=tally.refused,
        expired=tally.expired,
        effective_accuracy=tally.accuracy_in_time / tally.arrived if tally.arrived else None,
    )


def _series(world: World) -> Series:
    meter = world.meter
    machines = meter.machines.series()
    replicas = meter.replicas.series().values()
    bins = range(len(meter.arrived_in))
    return Series(
        from_s=meter.from_s,
        bin_s=meter.bin_s,
        arrived=meter.arrived_in,
        met=meter.met_in,
        machines=machines,
        replicas=[sum(x[at] for x in replicas) for at in bins],
        usd_per_hour=[sum(world.prices[name] * x[at] for name, x in machines.items()) for at in bins],
    )


# ---- several runs ------------------------------------------------------------------------------------------------


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over runs, and half the width of its 95 % confidence interval (Student's t); None with one run."""

    mean: float
    half_width: float | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one strategy over all seeds, by figure."""

    strategy: str
    seeds: list[int]
    figures: dict[str, Figure]


FIGURES = (
    "slo_attainment",
    "effective_accuracy",
    "usd",
    "usd_per_1k_met",
    "latency_p50_s",
    "latency_p99_s",
    "latency_p999_s",
    "arrived",
    "late",
    "refused",
    "expired",
    "starts",
    "stops",
    "variants_loaded",
)


def summarize(runs: Sequence[RunResult]) -> list[Summary]:
    """One summary for each strategy, in the order of the runs."""
    by_strategy: dict[str, list[RunResult]] = {}
    for run in runs:
        by_strategy.setdefault(run.strategy, []).append(run)
    return [
        Summary(
            strategy=name,
            seeds=[x.seed for x in found],
            figures={
                figure: mean_of(values)
                for figure in FIGURES
                if (values := [float(v) for x in found if (v := getattr(x, figure)) is not None])
            },
        )
        for name, found in by_strategy.items()
    ]


def mean_of(values: Sequence[float]) -> Figure:
    """The mean of at least one independent run."""
    if len(values) < 2:
        return Figure(mean=values[0], half_width=None)
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))
    return Figure(mean=fmean(values), half_width=half)


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """By how much a strategy differs from the first one, seed by seed, which leaves the luck of a seed out."""

    strategy: str
    baseline: str
    differences: dict[str, Figure]


def pair(runs: Sequence[RunResult], figures: Sequence[str] = FIGURES) -> list[Paired]:
    """Every other strategy against the first one of the runs, over the seeds that both have."""
    by_strategy: dict[str, dict[int, RunResult]] = {}
    for run in runs:
        by_strategy.setdefault(run.strategy, {})[run.seed] = run
    names = list(by_strategy)
    found: list[Paired] = []
    for name in names[1:]:
        ours, base = by_strategy[name], by_strategy[names[0]]
        pairs = [(ours[x], base[x]) for x in ours if x in base]
        differences: dict[str, Figure] = {}
        for figure in figures:
            both = [(getattr(a, figure), getattr(b, figure)) for a, b in pairs]
            values = [float(a) - float(b) for a, b in both if a is not None and b is not None]
            if values:
                differences[figure] = mean_of(values)
        found.append(Paired(strategy=name, baseline=names[0], differences=differences))
    return found


def to_json(runs: Sequence[RunResult], bounds: Mapping[int, FluidBound]) -> dict[str, Any]:
    """All of it, as JSON takes it; `bounds` by seed."""
    return {
        "summaries": msgspec.to_builtins(summarize(runs)),
        "paired": msgspec.to_builtins(pair(runs)),
        "runs": msgspec.to_builtins(list(runs)),
        "fluid_bounds": {str(seed): msgspec.to_builtins(x) for seed, x in bounds.items()},
    }
