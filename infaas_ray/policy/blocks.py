"""Which variants (or worker types) are not to be started for now, and why.

Rule: a failed start blocks its variant for `first_s`, then twice as long each time, up to `most_s`; a failure that
cannot heal blocks it until the catalogue changes. A replica that dies soon after its start counts as a failed start;
one that had served for a while does not, so that its successor can start at once. A variant without a failure for
twice `most_s` starts afresh.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0
STABLE_S = 10.0  # a replica that was ready for so long had not failed to start


@dataclass(frozen=True, slots=True)
class Block:
    """A reason that holds until a time, for ever where infinite. `failing`: starts fail, rather than want room."""

    reason: str
    until: float
    failing: bool = False


class Blocks:
    """The blocks by variant."""

    def __init__(self, first_s: float = BACKOFF_FIRST_S, most_s: float = BACKOFF_MOST_S) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._blocks: dict[str, Block] = {}
        self._failures: dict[str, tuple[int, float]] = {}

    def add(self, variant: str, reason: str, until: float, failing: bool = False) -> None:
        """Block a variant; a block that lasts longer stays."""
        known = self._blocks.get(variant)
        if known is None or until >= known.until:
            self._blocks[variant] = Block(reason, until, failing)

    def reason(self, variant: str, now: float) -> str | None:
        """Why the variant is blocked now; None if it is not."""
        block = self._blocks.get(variant)
        return block.reason if block is not None and now < block.until else None

    def failing(self, variant: str, now: float) -> bool:
        """Whether the variant is blocked now because its starts fail, and not for want of room."""
        block = self._blocks.get(variant)
        return block is not None and now < block.until and block.failing

    def permanent(self, variant: str) -> bool:
        """Whether only a change of the catalogue lifts the block."""
        block = self._blocks.get(variant)
        return block is not None and block.until == inf

    def at(self, now: float) -> Mapping[str, str]:
        """The blocked variants and the reasons."""
        self._blocks = {name: block for name, block in self._blocks.items() if now < block.until}
        return {name: block.reason for name, block in self._blocks.items()}

    def forget_permanent(self) -> None:
        """The catalogue changed: what could not heal may have been repaired."""
        self._blocks = {name: block for name, block in self._blocks.items() if block.until < inf}

    def failed(self, variant: str, reason: str, permanent: bool, now: float) -> None:
        """A start failed."""
        if permanent:
            self.add(variant, f"it cannot start: {reason}", inf, failing=True)
            return
        count, last = self._failures.get(variant, (0, now))
        count = 1 if now - last > 2 * self._most_s else count + 1
        self._failures[variant] = (count, now)
        wait_s = min(self._most_s, self._first_s * 2.0 ** min(count - 1, 30))
        times = "" if count == 1 else f" ({count} times)"
        self.add(variant, f"its start failed{times}: {reason}; next try in {wait_s:g} s", now + wait_s, failing=True)

    def died(self, variant: str, lived_s: float, now: float) -> None:
        """A replica died that had been ready for `lived_s` seconds."""
        if lived_s < STABLE_S:
            self.failed(variant, f"a replica died after {lived_s:.1f} s", False, now)
