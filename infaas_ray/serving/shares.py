"""The processors of replicas that were shells, in Ray's books.

The resources of an actor cannot change, so a shell holds none. When it becomes a replica, a placement group of one
bundle reserves the replica's share on its worker, under the replica's name, until it has ended. Ray then gives that
share to nobody else, as if the actor held it; and a placement group needs no process, so it is there in milliseconds.
"""

import asyncio
import contextlib
from collections.abc import Container
from typing import Any

from ray.util.placement_group import (
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from infaas_ray.errors import Unavailable

_LIMIT_S = 5


class Shares:
    """The shares that are held, by replica."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._held: dict[str, Any] = {}

    async def take(self, replica: str, worker: str, cpus: float) -> None:
        """Reserve `cpus` of the worker's processors. Raises Unavailable where Ray has given them to others."""
        group = placement_group(
            [{"CPU": cpus}],
            name=_name(self._namespace, replica),
            lifetime="detached",  # outlives a controller that dies, as the replica does
            bundle_label_selector=[{"ray.io/node-id": worker}],
        )
        self._held[replica] = group
        if not await asyncio.get_running_loop().run_in_executor(None, group.wait, _LIMIT_S):
            raise Unavailable(f"Ray does not have {cpus:g} CPU free on {worker}: others use it", 0.0)

    def give_back(self, replica: str) -> None:
        """End a reservation; nothing happens where there is none."""
        group = self._held.pop(replica, None)
        if group is not None:
            remove_placement_group(group)

    def adopt(self, living: Container[str]) -> None:
        """Take over the shares of living replicas that a former controller reserved, and end the others."""
        prefix = _name(self._namespace, "")
        for found in placement_group_table().values():
            name = found["name"]
            if name.startswith(prefix) and found["state"] != "REMOVED":
                with contextlib.suppress(ValueError):  # removed meanwhile
                    self._held[name.removeprefix(prefix)] = get_placement_group(name)
        for replica in [x for x in self._held if x not in living]:
            self.give_back(replica)


def _name(namespace: str, replica: str) -> str:
    return f"share:{namespace}:{replica}"
