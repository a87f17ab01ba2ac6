"""The picture: the share of queries that were answered on time at the asked accuracy, against the rate."""

from collections.abc import Iterable
from pathlib import Path

from benchmarks.live.steps import HOLDS, Climb, rate_qps
from benchmarks.measure import spread

_COLOURS = ("#c9a66b", "#8b5e34", "#1f6f8b", "#7fb2c4")


def draw(climbs: Iterable[Climb], path: Path) -> None:
    """Write a small PNG: medians as lines, least and greatest as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 4.2))
    for climb, colour in zip(climbs, _COLOURS, strict=False):
        steps = sorted({x.step for x in climb.runs})
        found = [spread([x.attainment for x in climb.at(step)]) for step in steps]
        middles = [x.median for x in found]
        bars = [[x.median - x.least for x in found], [x.greatest - x.median for x in found]]
        rates = [rate_qps(x) for x in steps]
        axis.errorbar(rates, middles, yerr=bars, label=climb.system, color=colour, marker="o", markersize=3, capsize=2)
    axis.axhline(HOLDS, color="#777777", linewidth=0.8, linestyle="--")
    axis.set_xscale("log")
    axis.set_ylim(0, 1.03)
    axis.set_xlabel("queries/s offered")
    axis.set_ylabel("answered on time at the asked accuracy")
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
