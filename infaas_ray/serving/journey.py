"""What a router remembers of a query under way.

Rule: a query that was admitted leaves once, and whoever asked hears of it once, unless they cancelled it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from infaas_ray.domain import Answer, Query
from infaas_ray.policy.candidates import ReplicaLoad
from infaas_ray.policy.selection import Dispatch, SelectionIndex
from infaas_ray.serving.channel import Connection

Done = Callable[[Answer | Exception], None]


@dataclass(slots=True, eq=False)
class Asked:
    """A query that was admitted at `arrived`. `done` hears of its answer or its error."""

    query: Query
    arrived: float
    done: Done
    counted: bool = False  # as wanted traffic
    left: bool = False
    trip: "Trip | None" = None
    task: "asyncio.Task[None] | None" = None  # what it waits for, where that is no answer of a replica's


@dataclass(slots=True, eq=False)
class Trip:
    """One attempt to have a query answered: where it goes, under which index, and the load that it counts in."""

    to: Dispatch
    load: ReplicaLoad
    index: SelectionIndex
    sent: float
    connection: Connection | None = field(default=None)
    call: int = 0
