"""From runs to the numbers that are promised, and to tables. Ratios are taken within a repetition."""

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.live.models import Measured
from benchmarks.live.steps import Climb, Run, rate_qps
from benchmarks.live.systems import ACCURATE, FIXED, OURS, OURS_FIXED
from benchmarks.live.traffic import QueryClass
from benchmarks.measure import Spread, figure, ratios, spread

Numbers = dict[str, Spread]


def numbers_of(climbs: Mapping[str, Climb]) -> Numbers:
    """Sustained rate of ours over that of the others; what part of it is not choosing, but the way to the model."""
    ours = climbs[OURS].sustained_qps
    named = {"vs_accurate_eager": ACCURATE, "vs_best_fixed": FIXED, "vs_best_fixed_on_ours": OURS_FIXED}
    return {
        key: ratios(ours, climbs[name].sustained_qps)
        for key, name in named.items()
        if name in climbs and min(climbs[name].sustained_qps) > 0
    }


def class_table(asked: Sequence[QueryClass]) -> str:
    """What is asked."""
    total = sum(x.parts for x in asked)
    lines = ["| class | share | bound | least accuracy |", "|---|---|---|---|"]
    lines += [
        f"| {x.name} | {x.parts / total:.0%} | {x.bound_s * 1e3:.0f} ms | {x.least_accuracy:.2f} |" for x in asked
    ]
    return "\n".join(lines) + "\n"


def variant_table(variants: Sequence[Measured], chosen: Mapping[str, str]) -> str:
    """What was measured of each variant; `chosen` says for what one was chosen."""
    lines = ["| variant | accuracy | p50 ms of 1 / 16 rows | rows/s | |", "|---|---|---|---|---|"]
    for variant, profile in sorted(variants, key=lambda x: -x[1].saturation_qps):
        first, last = profile.latencies[0], profile.latencies[-1]
        lines.append(
            f"| {variant.name} | {profile.accuracy.value:.4f} | {first.p50_s * 1e3:.3g} / {last.p50_s * 1e3:.3g} "
            f"| {profile.saturation_qps:,.0f} | {chosen.get(variant.name, '')} |"
        )
    return "\n".join(lines) + "\n"


def system_table(climbs: Mapping[str, Climb]) -> str:
    """What each system sustains, and how it fares at that rate and at the rate that the first one sustains."""
    heads = ["system", "sustains, queries/s", "attainment", "effective accuracy", "CPU s per 1,000 good answers"]
    heads += ["p50 / p99 ms", "answered by"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    common = min((x for climb in climbs.values() for x in climb.sustained), default=0)
    for climb in climbs.values():
        place = sorted(climb.sustained)[len(climb.sustained) // 2]
        lines.append(_line(climb.system, str(spread(climb.sustained_qps)), climb.at(place)))
    lines += ["", f"At {rate_qps(common):.0f} queries/s, where all hold:" if common >= 0 else ""]
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [_line(x.system, "", _nearest(x, common)) for x in climbs.values()]
    return "\n".join(lines) + "\n"


def _nearest(climb: Climb, step: int) -> list[Run]:
    """The runs of the measured step that is nearest."""
    nearest = min({x.step for x in climb.runs}, key=lambda x: (abs(x - step), x))
    return climb.at(nearest)


def _line(name: str, sustains: str, runs: Sequence[Run]) -> str:
    if not runs:
        return f"| {name} | {sustains} | | | | | |"
    cells = [
        str(spread([x.attainment for x in runs])),
        str(spread([x.effective_accuracy for x in runs])),
        str(spread([x.cpu_s_per_1k for x in runs])),
        f"{figure(spread([x.outcome.answers.p50_ms for x in runs]).median)} / "
        f"{figure(spread([x.outcome.answers.p99_ms for x in runs]).median)}",
        _answered_by(runs),
    ]
    return f"| {name} | {sustains} | {' | '.join(cells)} |"


def _answered_by(runs: Sequence[Run]) -> str:
    counts: Counter[str] = Counter()
    for run in runs:
        for part in run.outcome.parts.values():
            counts.update(part.variants)
    total = counts.total()
    return ", ".join(f"{name.partition('-cpu-')[0]} {n / total:.0%}" for name, n in counts.most_common())


def step_table(climbs: Mapping[str, Climb]) -> str:
    """Every run."""
    heads = ["system", "repetition", "queries/s", "attainment", "late", "refused", "failed", "by class"]
    heads += ["p50 ms", "p99 ms", "generator late p99 ms"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for climb in climbs.values():
        for run in climb.runs:
            x = run.outcome
            cells = [climb.system, str(run.repetition + 1), f"{rate_qps(run.step):.0f}", f"{run.attainment:.4f}"]
            cells += [f"{n / max(1, x.offered):.4f}" for n in (x.late, x.refused, x.failed)]
            cells.append(" / ".join(f"{share:.3f}" for share in run.by_class.values()))
            cells += [figure(y) for y in (x.answers.p50_ms, x.answers.p99_ms, x.lateness.p99_ms)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def number_table(numbers: Numbers) -> str:
    """The numbers with their spread."""
    return "\n".join(["| number | value |", "|---|---|", *(f"| {name} | {x} |" for name, x in numbers.items()), ""])
