"""The channel over real sockets, within one process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from infaas_ray.errors import InvalidInput, ReplicaLost, Unavailable, Unsatisfiable, VariantFailed
from infaas_ray.serving import channel
from infaas_ray.serving.channel import connect
from infaas_ray.serving.listener import Incoming, Server

SECRET = b"s" * 32
held: list[Incoming] = []


def handle(call: Incoming) -> None:
    match call.verb:
        case "echo":
            call.reply(call.fields, call.arrays)
        case "refuse":
            call.fail(Unsatisfiable("no", {"a": "slow"}, {"latency_ms": 3.0}))
        case "busy":
            call.fail(Unavailable("busy", 2.5))
        case "break":
            call.fail(ValueError("bug"))
        case "unsendable":
            call.reply({}, {"x": np.zeros(2, np.complex64)})
        case "strange":
            call.reply({}, {"x": [1.0]})  # type: ignore[dict-item]
        case "hold":
            held.append(call)


@pytest.fixture(params=["tcp", "unix"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    server = Server(handle, SECRET)
    address = await server.listen("127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path / 's'}")
    yield server, address
    await server.close()


async def test_many_calls_at_once_find_their_own_answers(server: tuple[Server, str]) -> None:
    connection = await connect(server[1], SECRET)
    rows = (0, 1, 40, 500, 8000)  # joined with others, or written by themselves
    arrays = [np.full((rows[n % 5], 3), n, np.float32) for n in range(300)]
    replies = await asyncio.gather(*(connection.call("echo", {"n": n}, {"x": x}) for n, x in enumerate(arrays)))
    for n, reply in enumerate(replies):
        assert reply.fields == {"n": n}
        np.testing.assert_array_equal(reply.arrays["x"], arrays[n])
    await connection.close()


async def test_large_tensors_pass_whole(server: tuple[Server, str]) -> None:
    connection = await connect(server[1], SECRET)
    x = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
    replies = await asyncio.gather(*(connection.call("echo", {}, {"x": x}) for _ in range(6)))
    assert all(np.array_equal(reply.arrays["x"], x) for reply in replies)
    await connection.close()


async def test_errors_arrive_as_themselves(server: tuple[Server, str]) -> None:
    connection = await connect(server[1], SECRET)
    with pytest.raises(Unsatisfiable) as refused:
        await connection.call("refuse", {}, {})
    assert refused.value.nearest == {"latency_ms": 3.0}
    with pytest.raises(Unavailable) as busy:
        await connection.call("busy", {}, {})
    assert busy.value.retry_after_s == 2.5
    with pytest.raises(Exception, match="ValueError: bug"):
        await connection.call("break", {}, {})
    with pytest.raises(InvalidInput, match="complex64"):
        await connection.call("unsendable", {}, {})
    await connection.close()


async def test_a_stranger_is_not_heard(server: tuple[Server, str]) -> None:
    with pytest.raises(ReplicaLost):
        await connect(server[1], b"w" * 32)


async def test_a_server_that_does_not_know_the_secret_is_not_trusted(tmp_path: Path) -> None:
    impostor = Server(handle, b"w" * 32)
    address = await impostor.listen(f"unix:{tmp_path / 's'}")
    with pytest.raises(ReplicaLost):
        await connect(address, SECRET)
    await impostor.close()


async def test_calls_on_a_connection_that_ends_fail_at_once(server: tuple[Server, str]) -> None:
    lost: list[object] = []
    connection = await connect(server[1], SECRET, lost.append)
    waiting = [asyncio.create_task(connection.call("hold", {}, {})) for _ in range(5)]
    await connection.call("echo", {}, {})
    await server[0].close()
    for one in waiting:
        with pytest.raises(ReplicaLost):
            await one
    assert lost == [connection]
    with pytest.raises(ReplicaLost):
        await connection.call("echo", {}, {})


async def test_a_call_that_is_taken_back_is_told_and_answered_once(server: tuple[Server, str]) -> None:
    connection = await connect(server[1], SECRET)
    waiting = asyncio.create_task(connection.call("hold", {}, {}))
    await connection.call("echo", {}, {})
    call, told = held.pop(), []
    call.on_taken_back(lambda: told.append("back"))
    waiting.cancel()
    await asyncio.wait([waiting])
    await connection.call("echo", {}, {})  # frames come in order
    assert told == ["back"]
    call.fail(Unavailable("nobody waits"))
    assert (await connection.call("echo", {"n": 1}, {})).fields == {"n": 1}
    await connection.close()
    assert told == ["back"]


async def test_what_is_asked_by_who_is_gone_is_taken_back_unless_it_was_answered(server: tuple[Server, str]) -> None:
    connection = await connect(server[1], SECRET)
    waiting = [asyncio.create_task(connection.call("hold", {"n": n}, {})) for n in range(3)]
    await connection.call("echo", {}, {})
    gone, told = asyncio.Event(), []
    for call in (held.pop(), held.pop(), held.pop()):
        if call.fields["n"] == 0:
            call.reply({}, {})
        call.on_taken_back(lambda n=call.fields["n"]: (told.append(n), gone.set()))  # type: ignore[misc]
    await waiting[0]
    connection.drop()
    await asyncio.wait(waiting)
    await asyncio.wait_for(gone.wait(), 10.0)
    assert sorted(told) == [1, 2]


async def test_who_answers_others_is_not_gone(server: tuple[Server, str]) -> None:
    connection = await connect(server[1], SECRET)
    waiting = asyncio.create_task(connection.call("hold", {}, {}, patience_s=0.0))
    await connection.call("echo", {}, {})
    connection.drop_silent()
    with pytest.raises(Unavailable, match="others go before"):
        await waiting
    held.pop().reply({}, {})  # too late, and heard by nobody
    assert (await connection.call("echo", {"n": 1}, {})).fields == {"n": 1}
    connection.drop_silent()
    assert not connection.closed
    await connection.close()


async def test_who_owes_an_answer_and_says_nothing_is_gone(
    server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_SILENCE_S", 0.0)
    connection = await connect(server[1], SECRET)
    patient, impatient = (asyncio.create_task(connection.call("hold", {}, {}, patience_s=x)) for x in (60.0, 0.0))
    await asyncio.sleep(0.01)
    connection.drop_silent()
    for call in (patient, impatient):
        with pytest.raises(ReplicaLost):
            await call


async def test_outputs_that_are_no_arrays_are_told(server: tuple[Server, str]) -> None:
    connection = await connect(server[1], SECRET)
    with pytest.raises(VariantFailed, match="AttributeError"):
        await connection.call("strange", {}, {})
    await connection.close()


async def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReplicaLost, match="no channel"):
        await connect(f"unix:{tmp_path / 'nothing'}", SECRET)


async def test_the_first_address_that_answers_is_used(server: tuple[Server, str], tmp_path: Path) -> None:
    connection = await connect(f"unix:{tmp_path / 'nothing'},{server[1]}", SECRET)
    assert (await connection.call("echo", {"a": 1}, {})).fields == {"a": 1}
    await connection.close()


async def test_garbage_from_a_peer_ends_its_connection_and_no_other(server: tuple[Server, str]) -> None:
    good = await connect(server[1], SECRET)
    if server[1].startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(server[1].removeprefix("unix:"))
    else:
        host, _, port = server[1].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
    await reader.read()
    writer.close()
    await writer.wait_closed()
    assert (await good.call("echo", {"a": 1}, {})).fields == {"a": 1}
    await good.close()
