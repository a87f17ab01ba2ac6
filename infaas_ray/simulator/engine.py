"""Virtual time: a clock and what is due when.

Rule: what is due first happens first; at the same moment, what was arranged first. Nothing here is random.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

Act = Callable[[Any], None]


class Engine:
    """The clock of a simulation, in seconds from its beginning. `now` is for reading only."""

    __slots__ = ("_arranged", "_due", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Act, Any]] = []
        self._arranged = 0

    def at(self, time_s: float, act: Act, subject: Any = None) -> None:
        """Call `act(subject)` at a time that is not past."""
        self._arranged += 1
        heappush(self._due, (time_s, self._arranged, act, subject))

    def after(self, seconds: float, act: Act, subject: Any = None) -> None:
        """Call `act(subject)` so much later."""
        self.at(self.now + seconds, act, subject)

    def next_at(self) -> float:
        """When the next thing is due; infinite where nothing is."""
        return self._due[0][0] if self._due else inf

    def advance(self, time_s: float) -> None:
        """Set the clock forward; the caller knows that nothing is due before."""
        self.now = time_s

    def run(self, until_s: float = inf) -> None:
        """Let happen what is due, up to and including `until_s`."""
        due = self._due
        while due and due[0][0] <= until_s:
            self.now, _, act, subject = heappop(due)
            act(subject)
