"""A page about simulated runs: one HTML file, with its plots inside. Needs the extra `picture`."""

from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from infaas_ray.errors import MissingExtra
from infaas_ray.simulator.fluid import FluidBound
from infaas_ray.simulator.report import KindResult, RunResult, Series
from infaas_ray.simulator.tables import Row, overview

_KINDS_SHOWN = 40
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; }
"""


def write_page(path: Path, title: str, runs: Sequence[RunResult], bounds: Mapping[int, FluidBound]) -> None:
    """Write the page. Raises MissingExtra without matplotlib."""
    first_of = {x.strategy: x for x in reversed(runs)}  # the first seed of each strategy is drawn
    shown = [first_of[name] for name in dict.fromkeys(x.strategy for x in runs)]
    parts = [table_of(overview(runs, bounds)), f"<h2>Over time (seed {shown[0].seed})</h2>", drawn(shown, bounds)]
    parts += [f"<h2>{escape(run.strategy)}</h2>{_kinds(run)}" for run in shown]
    write_parts(path, title, parts)


def write_parts(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page in the same style out of pieces of HTML, under its title."""
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{''.join(parts)}</html>"
    )
    path.write_text(page)


def table_of(rows: Sequence[Row]) -> str:
    """Rows of texts as an HTML table; the first is its head."""
    lines = []
    for number, row in enumerate(rows):
        cell = "td" if number else "th"
        lines.append("<tr>" + "".join(f"<{cell}>{escape(x)}</{cell}>" for x in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _kinds(run: RunResult) -> str:
    """The kinds of query that came most often."""
    head = ("target", "latency", "accuracy", "queries", "SLO met", "late", "refused", "expired")
    most = sorted(run.kinds, key=lambda x: -x.arrived)[:_KINDS_SHOWN]
    return table_of([head, *map(_kind, most)])


def _kind(kind: KindResult) -> Row:
    return (
        kind.target,
        "" if kind.latency_s is None else f"{kind.latency_s * 1e3:.4g} ms",
        "" if kind.min_accuracy is None else f"{kind.min_accuracy:g}",
        f"{kind.arrived:,}",
        f"{kind.met / kind.arrived:.3%}" if kind.arrived else "",
        f"{kind.late:,}",
        f"{kind.refused:,}",
        f"{kind.expired:,}",
    )


def drawn(runs: Sequence[RunResult], bounds: Mapping[int, FluidBound]) -> str:
    """Arrivals and answers in time, machines, money and replicas over time, one column per strategy, as SVG."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtra("plots need matplotlib: pip install 'infaas_ray[picture]'", "picture") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(
        4, len(runs), figsize=(6.0 * len(runs), 9.0), layout="constrained", squeeze=False, sharex=True, sharey="row"
    )
    for column, run in enumerate(runs):
        _column([grid[row][column] for row in range(4)], run.series, run.strategy, bounds.get(run.seed))
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    picture = text.getvalue()
    return picture[picture.index("<svg") :]


def _column(axes: Sequence[Any], series: Series, title: str, bound: FluidBound | None) -> None:
    bins = range(len(series.arrived))
    times = [(series.from_s + (x + 0.5) * series.bin_s) / 60 for x in bins]
    rates, machines, money, replicas = axes
    rates.set_title(title)
    rates.plot(times, [x / series.bin_s for x in series.arrived], color="0.6", label="arrived")
    rates.plot(times, [x / series.bin_s for x in series.met], color="C0", label="SLO met")
    rates.set_ylabel("queries / s")
    if series.machines:
        machines.stackplot(times, list(series.machines.values()), labels=list(series.machines), step="mid", alpha=0.8)
    machines.set_ylabel("machines")
    money.plot(times, series.usd_per_hour, color="C3", drawstyle="steps-mid")
    if bound is not None:
        windows = [(series.from_s + (x + 0.5) * bound.window_s) / 60 for x in range(len(bound.usd_per_hour))]
        money.plot(windows, bound.usd_per_hour, color="0.4", drawstyle="steps-mid", label="fluid bound")
        money.legend(fontsize=8)
    money.set_ylabel("US dollars / h")
    replicas.plot(times, series.replicas, color="C2", drawstyle="steps-mid")
    replicas.set(ylabel="replicas ready", xlabel="minutes")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    rates.legend(fontsize=8)
    machines.legend(fontsize=8)
