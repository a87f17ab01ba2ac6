"""Fits the median latency by batch size, and says how far such a prediction is off.

The line `fixed + per_row x rows` is fitted by least squares of relative errors, so that batch 1 counts as much as the
largest. Rule: the stated error is that of leaving each size out in turn, and it is the error of the whole prediction
(interpolation between neighbours, the line beyond the last), not of the line alone.
"""

from collections.abc import Sequence

import numpy as np

from infaas_ray.domain import BatchLatency, LatencyFit

_LEAST_SIZES = 3


def fit_latency(latencies: Sequence[BatchLatency]) -> LatencyFit | None:
    """The fit of latencies sorted by batch size; None for fewer than three sizes, where nothing can be left out."""
    if len(latencies) < _LEAST_SIZES:
        return None
    sizes = np.array([x.batch for x in latencies], np.float64)
    medians = np.array([x.p50_s for x in latencies])
    fixed, per_row = _line(sizes, medians)
    errors = [_left_out(sizes, medians, place) for place in range(1, len(sizes))]
    return LatencyFit(
        fixed_s=fixed,
        per_row_s=per_row,
        median_error=float(np.median(errors)),
        p95_error=float(np.percentile(errors, 95)),
    )


def _line(sizes: np.ndarray, medians: np.ndarray) -> tuple[float, float]:
    """Intercept and slope, neither negative."""
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / medians[:, None]
    (fixed, per_row), *_ = np.linalg.lstsq(design, np.ones_like(sizes), rcond=None)
    if per_row < 0:
        return float(1 / np.mean(1 / medians)), 0.0
    if fixed < 0:
        rates = sizes / medians
        return 0.0, float(rates.sum() / (rates**2).sum())
    return float(fixed), float(per_row)


def _left_out(sizes: np.ndarray, medians: np.ndarray, place: int) -> float:
    """Relative error at one size, predicted from the others."""
    kept = np.arange(len(sizes)) != place
    if place < len(sizes) - 1:
        predicted = float(np.interp(sizes[place], sizes[kept], medians[kept]))
    else:
        fixed, per_row = _line(sizes[kept], medians[kept])
        predicted = max(float(medians[kept][-1]), fixed + per_row * float(sizes[place]))
    return abs(predicted - float(medians[place])) / float(medians[place])
