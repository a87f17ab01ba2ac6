import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from infaas_ray.domain import Answer
from infaas_ray.errors import InfaasError, InvalidInput, ReplicaLost
from infaas_ray.serving.channel import Reply
from infaas_ray.serving.sender import Message, Outcome, Sender

NUMBERS = {
    "variant": "v",
    "replica": "r",
    "accuracy": 0.9,
    "usd_per_1k": 0.1,
    "queue_s": 0.0,
    "compute_s": 0.0,
    "latency_s": 0.0,
    "batch_rows": 1,
    "slo_met": True,
}


class Router:
    """A connection to a router that repeats inputs, wants at most `most` queries in a message, and may be gone."""

    def __init__(self, most: int = 100, gone: bool = False) -> None:
        self.most = most
        self.gone = gone
        self.full = False
        self.asked: list[int] = []
        self.whose: list[str | None] = []

    async def writable(self) -> None:
        self.full = False
        await asyncio.sleep(0)

    def ask(self, verb: str, fields: dict[str, Any], arrays: Mapping[str, Any], done: Callable[[Any], None]) -> int:
        if self.gone:
            raise ReplicaLost("gone")
        self.asked.append(fields["bundle"])
        self.whose.append(fields.get("application"))
        copied = {name: x[: x.nbytes] for name, x in arrays.items()}  # lists have no such number, as on a real one
        reply = Reply({"split": True}, {}) if fields["bundle"] > self.most else Reply(NUMBERS, copied)
        asyncio.get_running_loop().call_soon(done, reply)
        return len(self.asked)


async def outcomes_of(router: Router, inputs: Mapping[str, Any], count: int, whose: str = "") -> list[Outcome]:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[list[Outcome]] = loop.create_future()
    sender = Sender(loop, [router])  # type: ignore[list-item]
    sender.send(Message("t", {}, inputs, count, told.set_result, whose))
    return await asyncio.wait_for(told, 5)


async def test_the_answers_of_a_message_are_cut_into_its_queries() -> None:
    x = np.arange(12).reshape(6, 2)
    answers = await outcomes_of(Router(), {"x": x}, 3)
    assert [a.outputs["x"].tolist() for a in answers if isinstance(a, Answer)] == x.reshape(3, 2, 2).tolist()


async def test_what_is_too_much_is_halved_until_it_is_not_and_stays_in_order() -> None:
    router = Router(most=2)
    x = np.arange(7).reshape(7, 1)
    answers = await outcomes_of(router, {"x": x}, 7)
    assert [a.outputs["x"].item() for a in answers if isinstance(a, Answer)] == list(range(7))
    assert max(router.asked[1:]) < 7
    assert sum(n for n in router.asked if n <= 2) == 7


async def test_every_query_of_a_message_that_cannot_be_sent_has_the_error() -> None:
    assert [type(x) for x in await outcomes_of(Router(gone=True), {"x": np.zeros((2, 1))}, 2)] == [ReplicaLost] * 2
    (wrong,) = await outcomes_of(Router(), {"x": [1.0]}, 1)
    assert isinstance(wrong, InvalidInput)
    assert "NumPy arrays" in wrong.message


async def test_messages_wait_while_the_router_takes_none_and_none_is_lost() -> None:
    loop = asyncio.get_running_loop()
    router, told = Router(), list[int]()
    router.full = True
    sender = Sender(loop, [router])  # type: ignore[list-item]
    everybody = asyncio.Event()

    def done(number: int, outcomes: list[Outcome]) -> None:
        assert not any(isinstance(x, InfaasError) for x in outcomes)
        told.append(number)
        if len(told) == 50:
            everybody.set()

    for number in range(50):
        sender.send(Message("t", {}, {"x": np.zeros((1, 1))}, 1, lambda found, n=number: done(n, found)))  # type: ignore[misc]
        if number % 7 == 0:
            router.full = True
            await asyncio.sleep(0)
    await asyncio.wait_for(everybody.wait(), 5)
    assert told == list(range(50))


async def test_whose_queries_they_are_is_told_with_every_part_and_only_where_known() -> None:
    router = Router(most=1)
    await outcomes_of(router, {"x": np.zeros((4, 2))}, 4, "shop")
    assert router.whose == ["shop"] * 7
    await outcomes_of(router, {"x": np.zeros((1, 2))}, 1)
    assert router.whose[-1] is None
