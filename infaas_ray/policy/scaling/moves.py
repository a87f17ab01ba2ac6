"""Moves replicas to other machines of their type, where free room is there for a planned one but in pieces.

Rule: on one machine, replicas are chosen that leave enough room for the planned one and that fit on the others; the
fewest, of these the ones that hold the least. Each is started anew there first, and drained here when its successor is
ready. Looked for once in `_AGAIN_S`, on the `_TRIED` machines with the most free.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Replica, State, Worker
from infaas_ray.policy.placement import Crowd, Needs, Room, Rooms, fits
from infaas_ray.policy.scaling.strategy import Orders, Situation

_AGAIN_S = 10.0
_TRIED = 20
_MOST = 8  # replicas that move for one

_Move = tuple[Replica, str]  # and where it goes


class Moves:
    """Remembers which replica is to follow which."""

    def __init__(self) -> None:
        self._successors: dict[str, str] = {}  # by replica that moves
        self._tried: dict[tuple[str, str], float] = {}

    def advance(self, situation: Situation, orders: Orders) -> None:
        """Drain what has a successor now; forget what came to nothing."""
        fleet = situation.fleet
        replicas = fleet.replicas
        for old, new in list(self._successors.items()):
            there = old in replicas and replicas[old].state is State.READY and new in replicas
            there = there and not fleet.workers[replicas[new].worker].leaving
            if there and replicas[new].state is State.STARTING:
                continue
            if there and replicas[new].state is State.READY:
                orders.drain(old, f"moved: {new} answers instead")
            del self._successors[old]

    def under_way(self, fleet: Fleet) -> Counter[tuple[str, str]]:
        """How many replicas there are twice, by variant and worker type."""
        moving = (fleet.replicas[x] for x in self._successors)
        return Counter((x.variant, fleet.workers[x.worker].worker_type) for x in moving)

    def make_room(self, variant: str, kind: str, situation: Situation, orders: Orders) -> None:
        """Begin to make room for a replica of `variant` on workers of that type, where moving others does it."""
        now = situation.now
        if self._successors or now - self._tried.get((variant, kind), -_AGAIN_S) < _AGAIN_S:
            return
        self._tried[variant, kind] = now
        for replica, worker in _moves_for(variant, kind, situation):
            because = f"moves here from {replica.worker}, where {variant} needs the room"
            successor = orders.start_at(worker, replica.variant, because)
            if successor is not None:
                self._successors[replica.id] = successor


def _moves_for(variant: str, kind: str, situation: Situation) -> list[_Move]:
    """The fewest moves found that make room; none where none do."""
    fleet = situation.fleet
    needs = fleet.needs(variant, kind)
    workers = [x for x in fleet.workers.values() if x.worker_type == kind and not x.leaving]
    rooms = {x.name: x.room() for x in workers}
    workers.sort(key=lambda x: -_share(needs, rooms[x.name]))
    found = [moves for x in workers[:_TRIED] if (moves := _moves_off(x, needs, rooms, situation))]
    return min(found, key=lambda x: (len(x), sum(_held(replica) for replica, _ in x)), default=[])


def _share(needs: Needs, room: Room) -> float:
    """How much of what is needed is free, of the scarcer thing."""
    free = room.free.get(needs.resource, 0.0)
    return min(free / needs.amount, room.free_memory_bytes / max(1, needs.memory_bytes))


def _moves_off(worker: Worker, needs: Needs, rooms: Mapping[str, Room], situation: Situation) -> list[_Move]:
    """Moves off a worker so that the needs fit there: of the smallest replica that does it, or the largest ones."""
    blocks, now = situation.fleet.blocks, situation.now
    able = [x for x in worker.replicas.values() if x.state is State.READY and not blocks.failing(x.variant, now)]
    able.sort(key=lambda x: (_held(x), x.id))
    chosen = [[x] for x in able] + [able[-count:] for count in range(2, min(_MOST, len(able)) + 1)]
    victims = next((x for x in chosen if _fits_without(worker, x, needs)), None)
    others = {name: x for name, x in rooms.items() if name != worker.name}
    return [] if victims is None else _placed(victims, others, situation.fleet)


def _fits_without(worker: Worker, replicas: Sequence[Replica], needs: Needs) -> bool:
    gone = {x.id for x in replicas}
    return fits(needs, worker.room_without(lambda x: x.id in gone))


def _placed(victims: Sequence[Replica], rooms: dict[str, Room], fleet: Fleet) -> list[_Move]:
    """Where these replicas fit in these rooms, one after another; none where one does not."""
    columns = Rooms(list(rooms.values()))
    moves: list[_Move] = []
    for victim in victims:
        crowd = Crowd(failures=fleet.blocks.failed_on(victim.variant), evenly=True)
        best = columns.best(victim.needs, crowd) if victim.needs else None
        if best is None or victim.needs is None:
            return []
        _, name = best
        rooms[name] = _less(rooms[name], victim.needs)
        columns.update(rooms[name])
        moves.append((victim, name))
    return moves


def _less(room: Room, needs: Needs) -> Room:
    free = {**room.free, needs.resource: room.free[needs.resource] - needs.amount}
    return replace(room, free=free, free_memory_bytes=room.free_memory_bytes - needs.memory_bytes)


def _held(replica: Replica) -> int:
    return replica.needs.memory_bytes if replica.needs else 0
