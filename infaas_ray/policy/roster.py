"""The living replicas, found by id, variant or state without looking at all of them.

Rule: the fleet tells the roster of each replica that comes, changes its state or address, and goes; nothing else
changes it. What routers are told of the ready ones is made once per replica and kept until it changes.
"""

from collections.abc import Collection, Iterator

from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.routing import ReadyReplica


class Roster:
    """Replicas by id in the order of their booking; change it only by the methods."""

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self._by_variant: dict[str, dict[str, Replica]] = {}
        self._by_state: dict[State, dict[str, Replica]] = {x: {} for x in State}
        self._entries: dict[str, ReadyReplica] = {}
        self._published: tuple[ReadyReplica, ...] | None = None

    def add(self, replica: Replica) -> None:
        """A replica was booked or adopted."""
        self.replicas[replica.id] = replica
        self._by_variant.setdefault(replica.variant, {})[replica.id] = replica
        self._by_state[replica.state][replica.id] = replica
        if replica.state is State.READY:
            self._published = None

    def move(self, replica: Replica, to: State, now: float) -> None:
        """A replica enters another state."""
        del self._by_state[replica.state][replica.id]
        if State.READY in (replica.state, to):
            self._published = None
            self._entries.pop(replica.id, None)
        replica.state, replica.since = to, now
        self._by_state[to][replica.id] = replica

    def readdress(self, replica: Replica, address: str) -> None:
        """A replica is to be reached there."""
        if address != replica.address:
            replica.address = address
            self._entries.pop(replica.id, None)
            self._published = None

    def remove(self, replica: Replica) -> None:
        """A replica has ended."""
        del self.replicas[replica.id]
        of_variant = self._by_variant[replica.variant]
        del of_variant[replica.id]
        if not of_variant:
            del self._by_variant[replica.variant]
        del self._by_state[replica.state][replica.id]

    def of(self, variant: str, states: Collection[State]) -> list[Replica]:
        """The replicas of a variant in one of these states, oldest order first."""
        return [x for x in self._by_variant.get(variant, {}).values() if x.state in states]

    def variants(self) -> Iterator[str]:
        """The variants that have replicas."""
        return iter(self._by_variant)

    def within(self, state: State) -> Collection[Replica]:
        """The replicas in a state."""
        return self._by_state[state].values()

    def of_others(self, variants: Collection[str]) -> list[Replica]:
        """The replicas of variants other than these."""
        others = [name for name in self._by_variant if name not in variants]
        return [x for name in others for x in self._by_variant[name].values()]

    def forget_published(self) -> None:
        """The catalogue changed, so that other variants may be offered."""
        self._published = None

    def ready(self, offered: Collection[str]) -> tuple[ReadyReplica, ...]:
        """What routers are told of the ready replicas of these variants; the same object until that changes."""
        if self._published is None:
            self._published = tuple(
                self._entry(x) for x in self.replicas.values() if x.state is State.READY and x.variant in offered
            )
        return self._published

    def _entry(self, replica: Replica) -> ReadyReplica:
        known = self._entries.get(replica.id)
        if known is None:
            known = self._entries[replica.id] = ReadyReplica(
                id=replica.id, variant=replica.variant, worker=replica.worker, address=replica.address
            )
        return known
