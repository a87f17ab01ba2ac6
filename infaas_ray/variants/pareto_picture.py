"""The picture at the end of a registration: accuracy against latency, dominated variants apart from the others.

As text for a terminal, and as an image file where matplotlib is installed.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from infaas_ray.domain import Profile, Variant
from infaas_ray.errors import InvalidInput, MissingExtra

Row = tuple[Variant, Profile, bool]  # offered or not

_WIDTH, _HEIGHT = 64, 14
_OFFERED, _OTHER = "●", "·"
_IMAGES = (".png", ".svg", ".pdf")


def as_text(rows: Sequence[Row]) -> str:
    """A scatter plot of latency (logarithmic, to the right) and accuracy (up); an offered variant hides others."""
    if not rows:
        return ""
    points = [(math.log10(p.latencies[0].p50_s * 1e3), p.accuracy.value, offered) for _, p, offered in rows]
    left, right = _span([x for x, _, _ in points], 0.1)
    low, high = _span([y for _, y, _ in points], 0.005)
    field = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for x, y, offered in sorted(points, key=lambda point: point[2]):
        column = round((x - left) / (right - left) * (_WIDTH - 1))
        line = round((high - y) / (high - low) * (_HEIGHT - 1))
        field[line][column] = _OFFERED if offered else _OTHER
    labels = {0: f"{high:.3f}", _HEIGHT - 1: f"{low:.3f}"}
    lines = [f"{labels.get(i, ''):>6} │{''.join(row).rstrip()}" for i, row in enumerate(field)]
    ends = f"{10**left:.3g}", f"{10**right:.3g} ms"
    lines += [f"{'':>6} └{'─' * _WIDTH}", f"{'':>8}{ends[0]}{ends[1]:>{_WIDTH - len(ends[0])}}"]
    return "\n".join(
        ["accuracy", *lines, f"{'':>8}median latency of one row   {_OFFERED} offered   {_OTHER} dominated"]
    )


def require_drawable(path: Path) -> None:
    """Raise InvalidInput for a path that cannot become a picture, MissingExtra where matplotlib is not installed."""
    if path.suffix not in _IMAGES:
        raise InvalidInput(f"a picture is one of {', '.join(_IMAGES)}, not {path.name!r}")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"there is no folder {path.parent} for the picture")
    if find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib is not installed: pip install 'infaas_ray[picture]'", "picture")


def draw(rows: Sequence[Row], path: Path, title: str) -> Path:
    """Write the picture as PNG, SVG or PDF, by the file's suffix; accuracies with their 95 % intervals.

    Raises what `require_drawable` raises.
    """
    require_drawable(path)
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5.5), layout="constrained")
    runtimes = sorted({v.runtime for v, _, _ in rows})
    for variant, profile, offered in rows:
        x, y = profile.latencies[0].p50_s * 1e3, profile.accuracy.value
        colour = f"C{runtimes.index(variant.runtime)}"
        axis.plot(x, y, "o" if offered else "x", color=colour, alpha=1.0 if offered else 0.5)
        axis.annotate(f" {variant.precision} t{variant.threads}", (x, y), fontsize=7, alpha=1.0 if offered else 0.5)
        if offered and profile.accuracy.interval is not None:
            axis.vlines(x, *profile.accuracy.interval, color=colour, alpha=0.2)
    for i, runtime in enumerate(runtimes):
        axis.plot([], [], "s", color=f"C{i}", label=runtime)
    front = sorted((p.latencies[0].p50_s * 1e3, p.accuracy.value) for _, p, offered in rows if offered)
    axis.plot(*zip(*front, strict=True), lw=0.5, color="grey") if front else None
    axis.set(xscale="log", xlabel="median latency of one row (ms)", ylabel="accuracy", title=title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, title="● offered  x dominated", title_fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _span(values: Sequence[float], least: float) -> tuple[float, float]:
    """From smallest to largest, at least `least` apart."""
    low, high = min(values), max(values)
    return (low, high) if high - low >= least else (low - least / 2, high + least / 2)
