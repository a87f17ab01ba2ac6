"""Remembers the loads that queries ask for, until a replica comes or the wait is over.

Rule: a variant that a query asks to load is wanted at once; so is one that lost its last replica while in use.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Situation


@dataclass(frozen=True, slots=True)
class _Pending:
    because: str
    until: float


class Loads:
    """The loads that are awaited, by variant."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._pending: dict[str, _Pending] = {}

    def note(self, situation: Situation) -> None:
        """Take in what was asked for and lost since the last turn."""
        fleet, now = situation.fleet, situation.now
        until = now + self._settings.request_ttl_s
        for variant, because in situation.requests.items():
            if fleet.blocks.reason(variant, now) is None:
                self._pending.setdefault(variant, _Pending(because, until))
        for variant in situation.lost:
            seen = situation.traffic.last_seen(variant)
            if seen is not None and now - seen < self._settings.idle_timeout_s:
                because = f"its last replica was lost, and it was used {now - seen:.1f} s ago"
                self._pending.setdefault(variant, _Pending(because, until))

    def awaited(self, situation: Situation) -> Iterator[tuple[str, str]]:
        """The variants of which no replica starts or is ready, and why one is awaited."""
        fleet = situation.fleet
        for variant, pending in list(self._pending.items()):
            over = situation.now >= pending.until or variant not in fleet.catalog.offers
            if over or fleet.staying(variant, State.STARTING, State.READY):
                self._pending.pop(variant, None)
            else:
                yield variant, pending.because

    def forget(self, variant: str) -> None:
        """Await it no more."""
        self._pending.pop(variant, None)
