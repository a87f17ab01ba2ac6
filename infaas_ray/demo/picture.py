"""The demonstration's picture: accuracy against latency of all variants and who answered; replicas over time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infaas_ray.demo.story import Told

_MARKS = {"torch": "s", "onnxruntime": "o"}


def draw(told: "Told", path: Path) -> Path:
    """Write the picture as a PNG and return its path."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    use_cases = sorted({x.use_case.name for x in told.catalog.architectures.values()})
    figure, axes = plt.subplots(1, len(use_cases) + 1, figsize=(5.2 * (len(use_cases) + 1), 4.6), layout="constrained")
    for use_case, axis in zip(use_cases, axes, strict=False):
        _variants(told, use_case, axis)
    _replicas(told, axes[-1])
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _variants(told: "Told", use_case: str, axis: Any) -> None:
    """Each variant by its p50 latency at batch 1 and its accuracy; those that answered are filled, by their share."""
    names = told.catalog.targets()[use_case]
    most = max((told.answered_by[x] for x in names), default=0) or 1
    colours: dict[str, str] = {}
    for name in names:
        offer = told.catalog.offers[name]
        colour = colours.setdefault(offer.variant.architecture, f"C{len(colours)}")
        answers = told.answered_by[name]
        axis.scatter(
            offer.profile.latencies[0].p50_s * 1e3,
            offer.accuracy,
            s=40 + 200 * answers / most,
            marker=_MARKS.get(offer.variant.runtime, "^"),
            facecolors=colour if answers else "none",
            edgecolors=colour,
            alpha=0.75,
        )
    for architecture, colour in colours.items():
        axis.scatter([], [], color=colour, label=architecture)
    for runtime, mark in _MARKS.items():
        axis.scatter([], [], marker=mark, facecolors="none", edgecolors="grey", label=runtime)
    axis.set(xscale="log", xlabel="latency of one row, p50 (ms)", ylabel="accuracy (measured)")
    axis.set_title(f"{use_case}\nfilled: answered queries", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _replicas(told: "Told", axis: Any) -> None:
    """Ready replicas over time, by variant, with the burst shaded."""
    if told.history:
        start, end = told.history[0][0], max(told.burst[1], told.history[-1][0])
        for name in sorted({x for _, counts in told.history for x in counts}):
            times = [t - start for t, _ in told.history]
            counts = [c.get(name, 0) for _, c in told.history]
            axis.step([*times, end - start], [*counts, counts[-1]], where="post", label=name, alpha=0.8)
        axis.axvspan(told.burst[0] - start, told.burst[1] - start, color="grey", alpha=0.15, label="burst")
        axis.legend(fontsize=6)
    axis.set(xlabel="time (s)", ylabel="ready replicas")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_title("replicas over time", fontsize=10)
    axis.grid(alpha=0.3)
