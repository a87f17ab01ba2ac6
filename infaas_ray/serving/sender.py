"""How a driver's messages reach the routers: handed to the event loop's thread in piles, answered through callbacks.

Waking another thread for every message would cost more than the message. So what one thread hands over while the other
is busy is taken together, in both directions.
"""

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from infaas_ray.domain import Answer, Array
from infaas_ray.errors import InfaasError, InvalidInput
from infaas_ray.serving.channel import Connection, Reply

Outcome = Answer | InfaasError


@dataclass(frozen=True, slots=True)
class Message:
    """`count` queries of equal rows. `done` is called once, on the loop's thread, with their outcomes in order."""

    target: str
    slo: dict[str, Any]
    inputs: Mapping[str, Array]
    count: int
    done: Callable[[list[Outcome]], None]
    application: str = ""

    @property
    def rows(self) -> int:
        """The first dimension of the inputs."""
        return len(next(iter(self.inputs.values()), ()))


class Sender:
    """Sends messages over connections in turn. `send` may be called on any thread, the rest runs on the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: Sequence[Connection]) -> None:
        self._loop = loop
        self._turn = itertools.cycle(connections)
        self._prefix = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        self._waiting: deque[Message] = deque()
        self._woken = False
        self._pump: asyncio.Task[None] | None = None

    def send(self, message: Message) -> None:
        """Hand a message over."""
        self._waiting.append(message)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = False  # before looking, so that what is handed over from now on wakes again
        if self._pump is None:
            self._pump = self._loop.create_task(self._send_all())

    async def _send_all(self) -> None:
        """Send what waits, as fast as the routers take it."""
        while self._waiting:
            connection = next(self._turn)
            if connection.full:
                await connection.writable()
            self._ask(self._waiting.popleft(), connection)
        self._pump = None

    def _ask(self, message: Message, connection: Connection) -> None:
        query_id = f"{self._prefix}-{next(self._numbers)}"

        def replied(reply: Reply | InfaasError) -> None:
            if isinstance(reply, InfaasError):
                message.done([reply] * message.count)
            elif reply.fields.get("split"):
                self._ask_halves(message)
            else:
                message.done(_answers(query_id, reply, message.count))

        try:
            fields: dict[str, Any] = {
                "id": query_id,
                "target": message.target,
                "rows": message.rows,
                "slo": message.slo,
                "bundle": message.count,
            }
            if message.application:
                fields["application"] = message.application
            connection.ask("query", fields, message.inputs, replied)
        except Exception as error:
            words = f"inputs must be NumPy arrays by name ({type(error).__name__}: {error})"
            failure = error if isinstance(error, InfaasError) else InvalidInput(words)
            message.done([failure] * message.count)

    def _ask_halves(self, message: Message) -> None:
        """The router wants smaller messages; their outcomes are told together."""
        half = message.count // 2
        cut = half * (message.rows // message.count)
        found: dict[int, list[Outcome]] = {}

        def send(at: int, count: int, part: slice) -> None:
            def done(outcomes: list[Outcome]) -> None:
                found[at] = outcomes
                if len(found) == 2:
                    message.done(found[0] + found[1])

            inputs = {name: x[part] for name, x in message.inputs.items()}
            self.send(Message(message.target, message.slo, inputs, count, done, message.application))

        send(0, half, slice(cut))
        send(1, message.count - half, slice(cut, None))


class Collector:
    """Takes outcomes from the loop's thread to another: `put` there, `get` here, all that came together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pile: list[tuple[int, list[Outcome]]] = []
        self._queue: SimpleQueue[list[tuple[int, list[Outcome]]]] = SimpleQueue()

    def put(self, first: int, outcomes: list[Outcome]) -> None:
        """The outcomes of a message whose first query has that number."""
        if not self._pile:
            self._loop.call_soon(self._pass_on)
        self._pile.append((first, outcomes))

    def _pass_on(self) -> None:
        pile, self._pile = self._pile, []
        self._queue.put(pile)

    def get(self) -> list[tuple[int, list[Outcome]]]:
        """Wait for the outcomes of at least one message."""
        return self._queue.get()


def _answers(query_id: str, reply: Reply, count: int) -> list[Outcome]:
    """The answers of the queries of one message, each with its rows."""
    if count == 1:
        return [Answer(query_id=query_id, outputs=reply.arrays, **reply.fields)]
    rows = len(next(iter(reply.arrays.values()))) // count
    return [
        Answer(
            query_id=f"{query_id}.{n}",
            outputs={name: x[n * rows : (n + 1) * rows] for name, x in reply.arrays.items()},
            **reply.fields,
        )
        for n in range(count)
    ]
