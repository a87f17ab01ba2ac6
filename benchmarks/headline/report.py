"""Writes what was found: Markdown, a page with plots, one picture."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from benchmarks.headline import tables
from benchmarks.headline.lineup import CLIPPER, INFAAS, OURS, SM
from benchmarks.headline.runs import Found
from benchmarks.headline.summary import Headline, compare
from infaas_ray.simulator.page import drawn, table_of, write_parts
from infaas_ray.simulator.tables import Row

_COLOURS = {OURS: "#1f6f8b", INFAAS: "#c0392b", CLIPPER: "#7d7d7d", SM: "#c9a66b", "queue-length": "#7a9e4f"}
_OTHER = "#9b7fb8"
_LEAST_MISSED = 1e-5  # where the axis of misses begins; no misses are drawn there


def write(folder: Path, founds: Sequence[Found], headline: Headline, beside: Sequence[Row], about: str) -> None:
    """Write `summary.md`, `report.html` and `summary.png`; `beside`: rows about throughput, empty without them."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = _sections(founds, headline, beside)
    text = f"# What was found\n\n{about}\n"
    for title, rows in sections:
        text += f"\n## {title}\n\n{tables.markdown(rows)}"
    (folder / "summary.md").write_text(text)
    draw(folder / "summary.png", founds)
    parts = [f"<p>{escape(about)}</p>"]
    for title, rows in sections:
        parts.append(f"<h2>{escape(title)}</h2>{table_of(rows)}")
        one = next((x for x in founds if x.name == title), None)
        if one is not None:
            parts.append(_over_time(one))
    write_parts(folder / "report.html", "What serving costs, and how well it is served", parts)


def _sections(founds: Sequence[Found], headline: Headline, beside: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    compared = [compare(x) for x in founds]
    rest = [name for found in founds for name in found.runs if name.split()[0] not in (OURS, CLIPPER, SM)]
    sections: list[tuple[str, Sequence[Row]]] = [("The numbers", tables.targets(headline))]
    sections.append(("Against the better of Clipper+ and SM+", tables.pairs(compared)))
    sections.append(("Against other strategies", tables.others(compared, list(dict.fromkeys(rest)))))
    if beside:
        sections.append(("Throughput", list(beside)))
    for found, comparison in zip(founds, compared, strict=True):
        sections.append((found.name, tables.strategies(found, comparison)))
        sections.append((f"Variants fixed in {found.name}", tables.choices(found)))
    return sections


def _over_time(found: Found) -> str:
    """Ours, INFaaS and the baselines we are compared with, over the time of the first seed."""
    compared = compare(found)
    names = [OURS, INFAAS, *(x.baseline for x in (*compared.fixed, compared.expert) if x is not None)]
    shown = [found.results(x)[0] for x in dict.fromkeys(names) if x in found.runs]
    return drawn(shown, found.bounds)


def draw(path: Path, founds: Sequence[Found]) -> None:
    """Cost against missed queries, one panel per scenario, one point per strategy, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(4, len(founds))
    rows = -(-len(founds) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.6 * columns, 4.0 * rows), layout="constrained", squeeze=False)
    for at, axis in enumerate(grid.flat):
        if at < len(founds):
            _panel(axis, founds[at])
        else:
            axis.set_axis_off()
    figure.supxlabel("US dollars, logarithmic (further left is better)")
    figure.supylabel("queries that missed their SLO, share (further down is better)")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _panel(axis: object, found: Found) -> None:
    for name in dict.fromkeys(found.lineup.twin(x).name for x in found.lineup.entries):
        results = found.results(name)
        missed = 1 - sum(x.met for x in results) / max(1, sum(x.arrived for x in results))
        usd = fmean(x.usd for x in results)
        colour = _COLOURS.get(name.split()[0], _OTHER)
        size = 70 if name == OURS else 28
        axis.scatter([usd], [max(_LEAST_MISSED, missed)], s=size, color=colour, zorder=3)  # type: ignore[attr-defined]
        axis.annotate(  # type: ignore[attr-defined]
            name, (usd, max(_LEAST_MISSED, missed)), textcoords="offset points", xytext=(4, 3), fontsize=6
        )
    if found.bounds:
        axis.axvline(fmean(x.usd_tight for x in found.bounds.values()), color="0.5", linestyle=":")  # type: ignore[attr-defined]
    axis.set(xscale="log", yscale="log", ylim=(_LEAST_MISSED / 1.5, 1.5))  # type: ignore[attr-defined]
    axis.axhline(0.01, color="0.85", linewidth=0.8)  # type: ignore[attr-defined]
    axis.set_title(f"{found.name} (dotted: fluid bound)", fontsize=9)  # type: ignore[attr-defined]
    axis.tick_params(labelsize=7, which="both")  # type: ignore[attr-defined]
    axis.margins(x=0.2)  # type: ignore[attr-defined]
