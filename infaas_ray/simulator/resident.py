"""For how long something that can answer must have been in memory, whoever scales.

Rule: a query that came at t and is answered within its bound D by a variant that takes L for one row and loads in T
was answered by a replica whose load began at t + D - L - T at the latest, and which was there at t. So where T + L
exceeds D, a replica was held from t - (T + L - D) to t. With the least T + L of all variants that may answer a kind,
the union of these times over its queries is a time in which at least one of them was held.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from infaas_ray.simulator.workload import Chunk

Floats = NDArray[np.float64]


class Residence:
    """Gathers, kind by kind, the share of each window in which a replica must be held."""

    def __init__(self, held_s: Floats, from_s: float, window_s: float, windows: int) -> None:
        """`held_s`: by kind, for how long before a query at least (0: it can wait for a load)."""
        self._held_s = held_s
        self._from_s = from_s
        self._window_s = window_s
        self._seconds = np.zeros((windows, len(held_s)))
        self._last = np.full(len(held_s), from_s)

    def take(self, chunk: Chunk) -> None:
        """Note arrivals, which come in order of time; those before `from_s` are passed over."""
        for kind in np.unique(chunk.kinds).tolist():
            held_s = float(self._held_s[kind])
            times = chunk.times[chunk.kinds == kind]
            times = times[times >= self._from_s]
            if held_s <= 0 or not len(times):
                continue
            before = np.concatenate(([self._last[kind]], times[:-1]))
            self._last[kind] = times[-1]
            self._cover(kind, np.maximum(before, times - held_s), times)

    def _cover(self, kind: int, starts: Floats, ends: Floats) -> None:
        """Add intervals, each to the windows that it touches."""
        windows, width = len(self._seconds), self._window_s
        first = ((starts - self._from_s) // width).astype(np.int64)
        last = ((ends - self._from_s) // width).astype(np.int64)
        for step in range(int((last - first).max()) + 1):
            at = first + step
            opening = self._from_s + at * width
            inside = np.minimum(ends, opening + width) - np.maximum(starts, opening)
            here = (at <= last) & (at < windows) & (inside > 0)
            np.add.at(self._seconds[:, kind], at[here], inside[here])

    def shares(self, lengths: Floats) -> Floats:
        """By window and kind, from 0 to 1; `lengths` of the windows in seconds."""
        found: Floats = np.clip(self._seconds / lengths[:, None], 0.0, 1.0)
        return found


def gathered(chunks: Iterable[Chunk], residence: Residence, until_s: float) -> Iterable[Chunk]:
    """The chunks up to that time, noted as they pass."""
    for chunk in chunks:
        kept = chunk.times < until_s
        passing = Chunk(chunk.times[kept], chunk.kinds[kept])
        residence.take(passing)
        yield passing
        if not kept.all():
            return
