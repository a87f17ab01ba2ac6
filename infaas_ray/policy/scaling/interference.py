"""Moves interfered replicas away: a new one on the least-loaded other worker with room, then the old one drains.

INFaaS first looks for idle resources on the same worker. Here a worker is one pool of cores and devices that replicas
share anyway, so there is nothing to move to on it.
"""

from dataclasses import dataclass

from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.scaling.states import States
from infaas_ray.policy.scaling.strategy import Orders, Situation

_PATIENCE = 3.0  # times the start of a replica, after which a move that did not come about is given up


@dataclass(frozen=True, slots=True)
class _Move:
    ordered_at: float
    until: float


class Interference:
    """The moves that are under way, by the replica that leaves."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._moves: dict[str, _Move] = {}

    def variants(self, situation: Situation) -> set[str]:
        """The variants of which a replica moves."""
        replicas = situation.fleet.replicas
        return {replicas[x].variant for x in self._moves if x in replicas}

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Start successors, and drain what has one."""
        fleet, now = situation.fleet, situation.now
        for name, move in list(self._moves.items()):
            replica = fleet.replicas.get(name)
            if replica is None or replica.state is not State.READY or now >= move.until:
                del self._moves[name]
            elif any(x.requested_at >= move.ordered_at for x in fleet.staying(replica.variant, State.READY)):
                del self._moves[name]
                orders.drain(name, "a replica elsewhere has taken over from it, which is interfered")
        for replica in self._states.interfered.values():
            if replica.id not in self._moves and replica.variant not in self.variants(situation):
                self._begin(replica, situation, orders)

    def _begin(self, replica: Replica, situation: Situation, orders: Orders) -> None:
        fleet = situation.fleet
        if fleet.blocks.reason(replica.variant, situation.now) is not None:
            return
        others = [x for x in fleet.workers.values() if x.name != replica.worker]
        for worker in sorted(others, key=lambda x: (x.cpu_share, len(x.replicas), x.name)):
            slowdown = situation.traffic.slowdown(replica.id)
            because = f"{replica.id} is interfered: {slowdown:.1f} times slower than profiled"
            if orders.start_at(worker.name, replica.variant, because):
                until = situation.now + _PATIENCE * fleet.start_s(replica.variant)
                self._moves[replica.id] = _Move(situation.now, until)
                return
