"""The picture of the HTTP parts: answers per second with 64 connections, and the median latency of one."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Spread, spread
from benchmarks.serving.http import CONNECTIONS, Measured
from benchmarks.serving.numbers import is_ours

_FAR = 20.0  # values further apart than this are drawn on a logarithmic axis


def draw(parts: Sequence[Measured], path: Path) -> None:
    """Write a small PNG; one row of two panels per workload, with least and greatest as whiskers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(parts), 2, figsize=(10, 0.8 + 1.9 * len(parts)), squeeze=False)
    for row, part in zip(axes, parts, strict=True):
        most = CONNECTIONS[-1]
        rates = {x: spread(part.rate[x, most]) for x in part.doors}
        if part.floor:
            rates["floor"] = spread(part.floor)
        _bars(row[0], rates, f"{part.workload}: answers/s, {most} connections")
        _bars(row[1], {x: spread(part.p50_ms[x, 1]) for x in part.doors}, f"{part.workload}: p50 in ms, 1 connection")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _bars(axis: object, values: dict[str, Spread], title: str) -> None:
    names = list(values)[::-1]
    middles = [values[x].median for x in names]
    below = [values[x].median - values[x].least for x in names]
    above = [values[x].greatest - values[x].median for x in names]
    colours = ["#1f6f8b" if is_ours(x) else "#777777" if x == "floor" else "#c9a66b" for x in names]
    axis.barh(names, middles, xerr=[below, above], color=colours, height=0.7)  # type: ignore[attr-defined]
    if max(middles) > _FAR * min(middles):
        axis.set_xscale("log")  # type: ignore[attr-defined]
    axis.margins(x=0.18)  # type: ignore[attr-defined]  # room for the figures
    axis.set_title(title, fontsize=9)  # type: ignore[attr-defined]
    axis.tick_params(labelsize=8)  # type: ignore[attr-defined]
    for at, value in enumerate(middles):
        axis.text(value, at, f" {value:,.3g}" if value < 100 else f" {value:,.0f}", va="center", fontsize=7)  # type: ignore[attr-defined]
