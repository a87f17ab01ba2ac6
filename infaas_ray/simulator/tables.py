"""Results as tables of texts, for terminals and pages alike."""

from collections.abc import Mapping, Sequence

from infaas_ray.simulator.fluid import FluidBound
from infaas_ray.simulator.report import Figure, RunResult, Summary, mean_of, pair, summarize

Row = tuple[str, ...]

_PLUS_MINUS = "\u00b1"


def overview(runs: Sequence[RunResult], bounds: Mapping[int, FluidBound]) -> list[Row]:
    """One row per strategy, means over its seeds, with half the width of the 95 % confidence interval.

    The last row is the fluid bound, for serving everything; `bounds` by seed.
    """
    head = (
        *("strategy", "SLO met", "eff. accuracy", "USD", "USD / 1k met", "p50 ms", "p99 ms", "p99.9 ms"),
        *("queries", "late", "refused", "expired", "starts", "loads"),
    )
    return [head, *(_row(x) for x in summarize(runs)), *_bound(list(bounds.values()))]


def _bound(bounds: Sequence[FluidBound]) -> list[Row]:
    if not bounds:
        return []
    usd = said(mean_of([x.usd for x in bounds]), 1, 4)
    per_1k = [x.usd_per_1k for x in bounds if x.usd_per_1k is not None]
    queries = said(mean_of([float(x.queries) for x in bounds]), 1, 0)
    return [
        ("fluid bound", "", "", usd, said(mean_of(per_1k) if per_1k else None, 1, 5), "", "", "", queries, *[""] * 5)
    ]


def _row(summary: Summary) -> Row:
    figures = summary.figures
    return (
        summary.strategy,
        said(figures.get("slo_attainment") if figures["arrived"].mean else None, 100, 3, " %"),
        said(figures.get("effective_accuracy"), 1, 4),
        said(figures.get("usd"), 1, 4),
        said(figures.get("usd_per_1k_met"), 1, 5),
        *(said(figures.get(f"latency_{x}_s"), 1e3, 1) for x in ("p50", "p99", "p999")),
        *(said(figures.get(x), 1, 0) for x in ("arrived", "late", "refused", "expired", "starts", "variants_loaded")),
    )


def differences(runs: Sequence[RunResult]) -> list[Row]:
    """How the other strategies differ from the first one, seed by seed."""
    rows: list[Row] = [("strategy", "against", "SLO met, points", "eff. accuracy", "USD", "p99 ms")]
    for found in pair(runs):
        by = found.differences
        rows.append(
            (
                found.strategy,
                found.baseline,
                said(by.get("slo_attainment"), 100, 3),
                said(by.get("effective_accuracy"), 1, 4),
                said(by.get("usd"), 1, 4),
                said(by.get("latency_p99_s"), 1e3, 1),
            )
        )
    return rows


def said(figure: Figure | None, factor: float, digits: int, unit: str = "") -> str:
    """A figure times `factor`, and its uncertainty where it is known; empty where there is none."""
    if figure is None:
        return ""
    text = f"{figure.mean * factor:,.{digits}f}"
    if figure.half_width is not None:
        text += f" {_PLUS_MINUS} {figure.half_width * factor:,.{digits}f}"
    return text + unit
