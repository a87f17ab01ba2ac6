"""What a workload asks for, as far as somebody can know who provisions before it comes: what such days were like.

Rule: a few other drawings of the workload are the past. Rates are means over minutes; the peak of some kinds is their
highest minute, by the median of the past drawings. No drawing of the past is one that is simulated.
"""

from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from infaas_ray.simulator.scenario import Scenario
from infaas_ray.simulator.workload import Workload
from infaas_ray.simulator.world import arrivals_rng

PAST_SEEDS = tuple(range(1_000_001, 1_000_006))
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Rows a second by minute and kind, one table for each past drawing."""

    days: tuple[NDArray[np.float64], ...]

    def mean_qps(self, kind: int) -> float:
        """Rows a second of a kind, over all drawings."""
        return float(np.mean([day[:, kind].mean() for day in self.days]))

    def peak_qps(self, kinds: Collection[int]) -> float:
        """Rows a second of these kinds together in the highest minute of a usual drawing."""
        return median(float(day[:, sorted(kinds)].sum(axis=1).max()) for day in self.days)


def past_load(scenario: Scenario) -> Load:
    """What other drawings of a scenario's workload ask for within the time that counts."""
    from_s, until_s = scenario.warmup_s, scenario.duration_s
    window_s = min(_MINUTE_S, until_s - from_s)
    whole = int((until_s - from_s) / window_s + 1e-9)
    days = []
    for seed in PAST_SEEDS:
        rows = _rows(scenario.workload, arrivals_rng(seed), from_s, window_s, whole)
        days.append(rows / window_s)
    return Load(days=tuple(days))


def _rows(
    workload: Workload, rng: np.random.Generator, from_s: float, window_s: float, windows: int
) -> NDArray[np.float64]:
    """Rows by window and kind."""
    kinds, until_s = len(workload.kinds), from_s + windows * window_s
    found = np.zeros(windows * kinds)
    for chunk in workload.chunks(rng):
        inside = (chunk.times >= from_s) & (chunk.times < until_s)
        at = np.minimum(windows - 1, ((chunk.times[inside] - from_s) / window_s).astype(np.int64))
        found += np.bincount(at * kinds + chunk.kinds[inside], minlength=len(found))
        if len(chunk.times) and chunk.times[-1] >= until_s:
            break
    rows: NDArray[np.float64] = found.reshape(windows, kinds) * np.array([x.rows for x in workload.kinds])
    return rows
