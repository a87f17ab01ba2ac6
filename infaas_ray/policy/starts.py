"""How long starts of replicas take, learned from each that became ready.

Rules: a variant's next start takes as long as its last one; of one never seen, the profiled load and what starts
take beyond the load. A start that is late is expected after `_OVERDUE` times the time expected so far, and so on.
"""

from collections.abc import Iterable

_LEARNING = 0.2  # weight of one start in what starts take beyond the load
_OVERDUE = 1.5
_LATER_S = 0.1  # so that even what is expected at once is expected later


class Starts:
    """`overhead_s` is what starts take beyond the load: the making of a process."""

    def __init__(self, overhead_s: float) -> None:
        self.overhead_s = overhead_s
        self._seen_s: dict[str, float] = {}

    def usual_s(self, variant: str, load_s: float) -> float:
        """Seconds that a start of a variant takes whose profile has that load."""
        known = self._seen_s.get(variant)
        return load_s + self.overhead_s if known is None else known

    def learn(self, variant: str, took_s: float, load_s: float | None) -> None:
        """Note a start; `load_s` is the profiled load, where it is known."""
        self._seen_s[variant] = took_s
        if load_s is not None:
            self.overhead_s += _LEARNING * (max(0.0, took_s - load_s) - self.overhead_s)


def next_in_s(usual_s: float, elapsed_s: Iterable[float]) -> float:
    """Seconds until the first of some starts is expected; they usually take that long and are under way for so long."""
    return min(_expected_s(usual_s, x) - x for x in elapsed_s)


def _expected_s(usual_s: float, elapsed_s: float) -> float:
    """How long a start takes in all that has taken `elapsed_s`; changes seldom, so that routers hear little of it."""
    expected = usual_s
    while expected <= elapsed_s:
        expected = expected * _OVERDUE + _LATER_S
    return expected
