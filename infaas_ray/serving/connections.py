"""The connections of one router to its replicas: opened when first needed, by one attempt for all who wait.

Rule: a replica that the channel cannot reach is left to Ray's actor call for a while before the channel is tried again.
"""

import asyncio
import time

from infaas_ray.errors import ReplicaLost
from infaas_ray.policy.routing import ReadyReplica
from infaas_ray.serving.channel import Connection, connect

_RAY_S = 5.0


class Connections:
    """Open connections by replica."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._open: dict[str, Connection] = {}
        self._opening: dict[str, asyncio.Task[Connection]] = {}
        self._by_ray_until: dict[str, float] = {}

    def ready(self, replica: str) -> Connection | None:
        """The connection to a replica if it takes a query at once."""
        connection = self._open.get(replica)
        return None if connection is None or connection.full or connection.closed else connection

    async def to(self, entry: ReadyReplica) -> Connection | None:
        """A connection that takes a query, waited for; None where the replica is to be asked through Ray."""
        connection = self._open.get(entry.id)
        if connection is None or connection.closed:
            if time.monotonic() < self._by_ray_until.get(entry.id, 0.0):
                return None
            try:
                connection = await self.open(entry)
            except ReplicaLost:
                self._by_ray_until[entry.id] = time.monotonic() + _RAY_S
                return None
        await connection.writable()
        return connection

    async def open(self, entry: ReadyReplica) -> Connection:
        """Connect to a replica; who comes meanwhile waits for the same attempt. Raises ReplicaLost."""
        task = self._opening.get(entry.id)
        if task is None:
            task = asyncio.get_running_loop().create_task(connect(entry.address, self._secret))
            self._opening[entry.id] = task
        try:
            connection = await asyncio.shield(task)
        finally:
            if self._opening.get(entry.id) is task and task.done():
                del self._opening[entry.id]
        self._by_ray_until.pop(entry.id, None)
        self._open[entry.id] = connection
        return connection

    def names(self) -> set[str]:
        """The replicas of which something is remembered."""
        return set(self._open) | set(self._by_ray_until)

    def drop(self, replica: str) -> None:
        """Forget a replica and close its connection."""
        self._by_ray_until.pop(replica, None)
        connection = self._open.pop(replica, None)
        if connection is not None:
            connection.drop()

    async def close(self) -> None:
        """Close all connections and wait until they are closed."""
        for connection in self._open.values():
            await connection.close()

    def drop_silent(self) -> None:
        """Drop the connections whose peers owe an answer beyond patience."""
        for connection in list(self._open.values()):
            connection.drop_silent()
