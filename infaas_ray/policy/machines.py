"""The books of machines: how many of each type were asked for, which are still to come, and which types cannot be had.

Rules: what is asked for and has not joined is *booting*. A launch that fails blocks its type: for `FIRST_BLOCK_S`, then
twice as long each time; what was asked for of it is given up, but for what is known to be starting. What has not joined
after `OVERDUE` times the type's usual boot time (at least `_OVERDUE_LEAST_S`) has failed, too. How long a boot takes is
learned from every join.
"""

from collections.abc import Mapping

from infaas_ray.domain import WorkerType
from infaas_ray.policy.blocks import Attempt, Blocks

OVERDUE = 3.0
_OVERDUE_LEAST_S = 60.0
FIRST_BLOCK_S = 30.0
_LONGEST_BLOCK_S = 1800.0
_LEARNING = 0.3  # weight of one boot in the usual boot time


class Machines:
    """Change it only by the methods. `blocks` by worker type."""

    def __init__(self) -> None:
        self.blocks = Blocks(FIRST_BLOCK_S, _LONGEST_BLOCK_S)
        self._asked: dict[str, list[float]] = {}
        self._boot_s: dict[str, float] = {}
        self._failed: dict[str, str] = {}

    def booting(self, worker_type: str) -> int:
        """How many were asked for and have not joined."""
        return len(self._asked.get(worker_type, ()))

    def boot_s(self, worker_type: WorkerType) -> float:
        """How long a boot usually takes, as seen here, else as the type says."""
        return self._boot_s.get(worker_type.name, worker_type.boot_s)

    def want(self, worker_type: str, booting: int, now: float) -> None:
        """Book that so many of a type are to come; the latest requests are taken back first."""
        asked = self._asked.setdefault(worker_type, [])
        del asked[max(0, booting) :]
        asked += [now] * (booting - len(asked))

    def joined(self, worker_type: str, now: float) -> None:
        """One came."""
        asked = self._asked.get(worker_type)
        if asked:
            took_s = now - asked.pop(0)
            usual = self._boot_s.get(worker_type, took_s)
            self._boot_s[worker_type] = usual + _LEARNING * (took_s - usual)

    def failed(self, worker_type: str, reason: str, now: float, coming: int = 0) -> None:
        """A launch failed: no more of this type than the `coming` are to come for a while."""
        if self.booting(worker_type):
            asked = self._asked[worker_type]
            ended = max(0, len(asked) - coming)
            attempt = Attempt(worker_type, ordered_at=asked[max(0, ended - 1)])
            del asked[:ended]
            self._failed[worker_type] = reason
            self.blocks.failed(attempt, reason, permanent=False, now=now)

    def give_up_overdue(self, types: Mapping[str, WorkerType], now: float) -> None:
        """End what should have joined long ago."""
        for name, asked in self._asked.items():
            if asked and name in types:
                limit_s = max(_OVERDUE_LEAST_S, OVERDUE * self.boot_s(types[name]))
                timely = sum(now - at <= limit_s for at in asked)
                if timely < len(asked):
                    self.failed(name, f"a worker did not come within {limit_s:.0f} s", now, timely)

    def take_failed(self) -> dict[str, str]:
        """The types that failed since the last call, and why."""
        failed, self._failed = self._failed, {}
        return failed
