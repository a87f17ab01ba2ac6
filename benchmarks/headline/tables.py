"""The results as tables of texts, and those as Markdown."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.headline.lineup import OURS
from benchmarks.headline.ratios import Pair
from benchmarks.headline.runs import Found
from benchmarks.headline.summary import TARGETS, Comparison, Headline, bound_ratio
from benchmarks.headline.throughput import Bench
from infaas_ray.simulator.report import Figure, mean_of, pair, summarize
from infaas_ray.simulator.tables import Row, said

_HEAD = (
    *("strategy", "SLO met", "points above ours", "eff. accuracy", "USD", "USD / ours", "USD / 1k met"),
    *("p50 ms", "p99 ms", "late", "refused", "expired", "starts", "CPU s a run"),
)


def strategies(found: Found, comparison: Comparison) -> list[Row]:
    """One row per strategy, means over seeds with half the width of the 95 % confidence interval; the bounds last.

    Strategies with the same variants as one before are left out: their runs are the same.
    """
    rows: list[Row] = [_HEAD]
    distinct = {found.lineup.twin(x).name for x in found.lineup.entries}
    paired = {x.strategy: x.differences for x in pair([x for name in found.runs for x in found.results(name)])}
    for name, runs in ((x, runs) for x, runs in found.runs.items() if x in distinct):
        figures = summarize([x.result for x in runs])[0].figures
        against = said(comparison.others[name].cost, 1, 2) if name != OURS else "1"
        rows.append(
            (
                name,
                said(figures.get("slo_attainment"), 100, 3, " %"),
                said(paired[name].get("slo_attainment"), 100, 3) if name in paired else "",
                said(figures.get("effective_accuracy"), 1, 4),
                said(figures.get("usd"), 1, 3),
                against,
                said(figures.get("usd_per_1k_met"), 1, 5),
                *(said(figures.get(f"latency_{x}_s"), 1e3, 1) for x in ("p50", "p99")),
                *(said(figures.get(x), 1, 0) for x in ("late", "refused", "expired", "starts")),
                f"{fmean(x.cpu_s for x in runs):.1f}",
            )
        )
    return [*rows, *_bound(found)]


def _bound(found: Found) -> list[Row]:
    rows: list[Row] = []
    for name, tight in (("fluid bound", True), ("fluid bound, loose", False)):
        ratio = bound_ratio(found, tight=tight)
        if ratio is not None:
            usd = said(mean_of([x.usd_tight if tight else x.usd for x in found.bounds.values()]), 1, 3)
            against = said(Figure(mean=1 / ratio.mean, half_width=None), 1, 2)
            rows.append((name, "", "", "", usd, against, *[""] * (len(_HEAD) - 6)))
    return rows


def choices(found: Found) -> list[Row]:
    """Which variants were fixed, by target; of many targets the first ones."""
    rows: list[Row] = [("choice", "variants")]
    seen: dict[tuple[str, ...], str] = {}
    for name, chosen in found.lineup.choices.items():
        shown = list(dict.fromkeys(chosen.values()))
        more = f", and {len(shown) - 4} more" if len(shown) > 4 else ""
        first = seen.setdefault(tuple(shown), name)
        rows.append((name, ", ".join(shown[:4]) + more if first == name else f'the same as "{first}"'))
    return rows


def pairs(comparisons: Sequence[Comparison]) -> list[Row]:
    """The better of Clipper+ and SM+ for each choice of variants, against ours."""
    rows: list[Row] = [
        ("scenario", "variants fixed", "the better", "its SLO met", "ours", "its USD / ours", "its misses / ours")
    ]
    for one in comparisons:
        found = (*one.fixed, *([one.expert] if one.expert is not None else []))
        rows += [(one.scenario, x.choice, x.baseline.split()[0], *_pair(x)) for x in found]
    return rows


def others(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[Row]:
    """Other strategies against ours."""
    rows: list[Row] = [("scenario", "strategy", "its SLO met", "ours", "its USD / ours", "its misses / ours")]
    rows += [
        (one.scenario, name, *_pair(one.others[name])) for one in comparisons for name in names if name in one.others
    ]
    return rows


def _pair(pair: Pair) -> Row:
    return (
        f"{pair.attainment:.3%}",
        f"{pair.our_attainment:.3%}",
        said(pair.cost, 1, 2),
        f"{pair.violations:,.2f} ({pair.missed:,} : {pair.our_missed:,})",
    )


def throughput(benches: Sequence[Bench], rates: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Row]:
    """The highest rates that fixed machines serve, by workload and strategy."""
    rows: list[Row] = [("workload", "machines", "strategy", "queries / s", "ours / its")]
    for one in benches:
        machines = " + ".join(f"{count} {name}" for name, count in one.machines.items())
        ours = rates[one.name].get(OURS, [])
        for name, found in rates[one.name].items():
            against = [a / b for a, b in zip(ours, found, strict=True) if b > 0]
            ratio = said(mean_of(against), 1, 2) if len(against) == len(found) else ""
            rows.append((one.name, machines, name, said(mean_of(found), 1, 0), ratio))
    return rows


def targets(headline: Headline) -> list[Row]:
    """The numbers beside what is aimed at."""
    rows: list[Row] = [("number", "found", "aimed at", "reached")]
    for name, (target, more) in TARGETS.items():
        reached = {True: "yes", False: "no", None: "not run"}[headline.reached(name)]
        rows.append((name, said(headline.figures[name], 1, 3), f"{'>=' if more else '<='} {target:.4g}", reached))
    rows += [(name, "" if x is None else f"{x:.4g}", "", "") for name, x in headline.beside.items()]
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """Rows of texts as a Markdown table; the first is its head."""
    head, *rest = rows
    lines = [head, ("---",) * len(head), *rest]
    return "".join(f"| {' | '.join(x.replace('|', chr(92) + '|') for x in line)} |\n" for line in lines)
