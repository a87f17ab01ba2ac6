"""Which variants (or worker types) are not to be started for now, and why; and on which workers their starts failed.

Rules:
- A failed start blocks its variant for `first_s`, then twice as long each time, up to `most_s`; a failure that cannot
  heal blocks it until the catalogue changes. A variant without a failure for twice `most_s` starts afresh.
- A replica that dies soon after it was ready counts as a failed start, but the first such death blocks nothing: its
  successor starts at once, and queries that can wait do. One that had served for a while does not count at all.
- Replicas that were ordered before the last failure show nothing new when they fail too: those that fail together count
  once.
- What failed on a worker shortly before the worker was lost was not the variant's fault, and is forgiven.
- On which workers starts of a variant failed is remembered, so that it is tried elsewhere: until it is ready there, the
  worker goes, or the catalogue changes. What cannot heal would fail anywhere, and is not held against the worker.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0
STABLE_S = 10.0  # a replica that was ready for so long had not failed to start
_SAME_FATE_S = 60.0  # that a worker is lost may be noticed so much later than that its replicas are


@dataclass(frozen=True, slots=True)
class Block:
    """A reason that holds until a time, for ever where infinite. `failing`: starts fail, rather than want room."""

    reason: str
    until: float
    failing: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """A start of a variant (or of a machine of a type): on which worker, and when it was ordered."""

    variant: str
    worker: str = ""
    ordered_at: float = inf


@dataclass(frozen=True, slots=True)
class _Failures:
    """How many there were in a row, and when and on which worker the last was."""

    count: int
    last: float
    worker: str


class Blocks:
    """The blocks by variant."""

    def __init__(self, first_s: float = BACKOFF_FIRST_S, most_s: float = BACKOFF_MOST_S) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._blocks: dict[str, Block] = {}
        self._failures: dict[str, _Failures] = {}
        self._failed_on: dict[str, Counter[str]] = {}

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

    def failed_on(self, variant: str) -> Mapping[str, int]:
        """The workers on which starts of the variant failed, and how many."""
        return self._failed_on.get(variant, {})

    def catalog_changed(self) -> None:
        """The catalogue changed: what could not heal, or failed on some workers, may have been repaired."""
        self._blocks = {name: block for name, block in self._blocks.items() if block.until < inf}
        self._failed_on.clear()

    def ready(self, variant: str, worker: str) -> None:
        """A start succeeded on this worker."""
        if variant in self._failed_on:
            self._failed_on[variant].pop(worker, None)

    def failed(self, attempt: Attempt, reason: str, permanent: bool, now: float) -> None:
        """A start failed."""
        if permanent:
            self.add(attempt.variant, f"it cannot start: {reason}", inf, failing=True)
            return
        if attempt.worker:
            self._failed_on.setdefault(attempt.variant, Counter())[attempt.worker] += 1
        if count := self._count(attempt, now):
            self._block(attempt.variant, count, reason, now)

    def died(self, attempt: Attempt, lived_s: float, now: float) -> None:
        """A replica died that had been ready for `lived_s` seconds."""
        if lived_s < STABLE_S and (count := self._count(attempt, now)) > 1:
            self._block(attempt.variant, count, f"a replica died after {lived_s:.1f} s", now)

    def worker_lost(self, worker: str, now: float) -> None:
        """A worker is gone."""
        for failed in self._failed_on.values():
            failed.pop(worker, None)
        for variant, known in list(self._failures.items()):
            if known.worker == worker and now - known.last <= _SAME_FATE_S:
                self._failures[variant] = _Failures(known.count - 1, known.last, "")
                block = self._blocks.get(variant)
                if block is not None and block.failing and block.until < inf:
                    del self._blocks[variant]

    def _count(self, attempt: Attempt, now: float) -> int:
        """Count a failure: how many there were in a row now; 0 where it shows nothing new."""
        known = self._failures.get(attempt.variant, _Failures(0, now, ""))
        if known.count and attempt.ordered_at < known.last:
            return 0
        count = 1 if now - known.last > 2 * self._most_s else known.count + 1
        self._failures[attempt.variant] = _Failures(count, now, attempt.worker)
        return count

    def _block(self, variant: str, count: int, reason: str, now: float) -> None:
        wait_s = min(self._most_s, self._first_s * 2.0 ** min(count - 1, 30))
        times = "" if count == 1 else f" ({count} times)"
        self.add(variant, f"its start failed{times}: {reason}; next try in {wait_s:g} s", now + wait_s, failing=True)
