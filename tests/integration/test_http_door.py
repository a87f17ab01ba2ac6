"""The router's own port over raw sockets: HTTP's edges, in one process, before an application that echoes."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from infaas_ray.serving.http_door import HttpDoor, Request, Response, begin_with
from infaas_ray.serving.ingress import HttpApp
from infaas_ray.serving.targets import Targets
from tests.unit.policy.builders import catalog, offer

MOST_BYTES = 100_000


async def echo(request: Request) -> Response:
    shown = {"method": request.method, "path": request.path.decode(), "body": request.body.decode("latin-1")}
    return Response(200, json.dumps(shown | {"headers": request.headers}).encode())


@pytest.fixture
async def door() -> AsyncIterator[int]:
    server = HttpDoor(begin_with(echo), MOST_BYTES)
    yield await server.listen("127.0.0.1", 0)
    await server.close()


async def send(port: int, *parts: bytes) -> bytes:
    """Everything the server says to these bytes until it, or we, have nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(parts)
    writer.write_eof()  # done sending, still listening
    got = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return got


def statuses(got: bytes) -> list[int]:
    return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d+)", got)]


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "host: a", *headers, "", "")).encode()


class TestPipelines:
    async def test_answers_come_in_order_and_all_of_them(self, door: int) -> None:
        got = await send(door, b"".join(get(f"/{x}") for x in range(3000)))
        paths = [int(x.split(b'"')[0]) for x in got.split(b'"path": "/')[1:]]
        assert paths == list(range(3000))

    async def test_a_pile_does_not_hold_up_another_client(self) -> None:
        begun: list[bytes] = []
        first = asyncio.Event()

        async def count(request: Request) -> Response:
            begun.append(request.path)
            first.set()
            return Response(200, b"{}")

        server = HttpDoor(begin_with(count), MOST_BYTES)
        port = await server.listen("127.0.0.1", 0)
        pile = asyncio.create_task(send(port, get("/pile") * 20_000))
        await first.wait()
        await send(port, get("/other"))
        assert begun.index(b"/other") < 20_000 / 2
        assert (await pile).count(b"HTTP/1.1 200") == 20_000
        await server.close()

    async def test_a_client_that_takes_no_answers_is_not_served_on(self) -> None:
        served = 0

        async def large(_: Request) -> Response:
            nonlocal served
            served += 1
            return Response(200, b"x" * 1_000_000)

        server = HttpDoor(begin_with(large), MOST_BYTES)
        port = await server.listen("127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(get("/") * 200)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert 0 < served < 100
        writer.close()
        await server.close()

    @pytest.mark.parametrize("after", [b"\x00garbage\r\n\r\n", get("/" + "x" * 9000)])
    async def test_a_good_request_before_a_bad_one_is_answered(self, door: int, after: bytes) -> None:
        got = await send(door, get("/good") + after)
        assert b'"path": "/good"' in got
        assert len(statuses(got)) == 2

    async def test_what_follows_connection_close_is_not_answered(self, door: int) -> None:
        got = await send(door, get("/good", "connection: close") + get("/after"))
        assert b'"path": "/good"' in got
        assert statuses(got) == [200]
        assert b"connection: close" in got


class TestForms:
    async def test_head_has_no_body_but_its_length(self, door: int) -> None:
        got = await send(door, get("/x", method="HEAD"))
        head, _, body = got.partition(b"\r\n\r\n")
        assert body == b""
        assert b"content-length: 0" not in head

    @pytest.mark.parametrize(
        "length", ["content-length: 3\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
    )
    async def test_upgrades_are_ignored(self, door: int, length: str) -> None:
        head = "POST /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
        got = await send(door, (head + length).encode() + get("/next"))
        assert b'"body": "abc"' in got
        assert b'"path": "/next"' in got
        assert statuses(got) == [200, 200]

    async def test_many_upgrades_in_one_read(self, door: int) -> None:
        got = await send(door, get("/", "connection: upgrade", "upgrade: websocket") * 500)
        assert got.count(b"HTTP/1.1 200") == 500

    async def test_trailers_are_not_headers(self, door: int) -> None:
        head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        got = await send(door, head + b"3\r\nabc\r\n0\r\nx-slo-latency-ms: 5\r\n\r\n")
        assert b'"body": "abc"' in got
        assert b"x-slo-latency-ms" not in got

    async def test_expected_bodies_are_asked_for(self, door: int) -> None:
        got = await send(door, get("/", "expect: 100-continue", "content-length: 3", method="POST"), b"abc")
        assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


class TestLimits:
    @pytest.mark.parametrize(
        ("parts", "status"),
        [
            ([get("/" + "x" * 9000)], 414),
            ([b"GET / HTTP/1.1\r\nx: ", *[b"a" * 10_000] * 20], 431),
            ([b"GET / HTTP/1.1\r\n", *[b"x: " + b"a" * 1000 + b"\r\n"] * 100], 431),
            ([b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ", *[b"a" * 10_000] * 20], 431),
            ([get("/", "expect: 100-continue", "content-length: 100001", method="POST")], 413),
            ([get("a:3", method="CONNECT")], 400),
        ],
    )
    async def test_what_goes_too_far_is_refused_and_the_connection_closed(
        self, door: int, parts: list[bytes], status: int
    ) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", door)
        writer.writelines(parts)
        got = await asyncio.wait_for(reader.read(), 20)  # ends without our closing first
        writer.close()
        assert statuses(got) == [status]
        assert b"connection: close" in got
        assert "error" in json.loads(got.partition(b"\r\n\r\n")[2])

    async def test_a_request_that_trickles_in_is_refused(self) -> None:
        server = HttpDoor(begin_with(echo), MOST_BYTES, receive_s=0.1)
        port = await server.listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        got = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert statuses(got) == [408]
        await server.close()


def app() -> HttpApp:
    router: Any = SimpleNamespace(targets=Targets(catalog(offer("small"))), table=SimpleNamespace(replicas=()))
    metrics: Any = SimpleNamespace(text=lambda: b"")
    return HttpApp(router, metrics, MOST_BYTES)


class TestApplication:
    @pytest.mark.parametrize(
        ("method", "path", "status", "allow"),
        [
            ("DELETE", "/v2", 405, b"GET, HEAD"),
            ("OPTIONS", "/v2/health/live", 405, b"GET, HEAD"),
            ("POST", "/v2/models/small", 405, b"GET, HEAD"),
            ("GET", "/v2/models/small/infer", 405, b"POST"),
            ("DELETE", "/v2/repository/index", 405, b"GET, HEAD, POST"),
            ("HEAD", "/v2", 200, None),
            ("GET", "http://a:3/v2/health/live?x=1", 200, None),
            ("POST", "/v2/repository/index", 200, None),
            ("GET", "/v2/models/small/versions/1/ready", 200, None),
            ("GET", "/v2/models/small/versions/abc/ready", 400, None),
            ("GET", "/v2/models/other/ready", 404, None),
            ("GET", "/" + "x" * 2000, 404, None),
        ],
    )
    async def test_methods_and_paths(self, method: str, path: str, status: int, allow: bytes | None) -> None:
        response = await app().respond(Request(method, path.encode(), {}, b""))
        assert response.status == status
        assert dict(response.headers).get(b"allow") == allow
        assert ("error" in json.loads(response.body)) is (status != 200)

    @pytest.mark.parametrize(
        ("encoding", "body", "status", "says"),
        [
            ("gzip", gzip.compress(b"{"), 400, "not valid JSON"),  # so it was inflated
            ("deflate", zlib.compress(b"{"), 400, "not valid JSON"),
            ("gzip", gzip.compress(bytes(10 * MOST_BYTES)), 413, "inflates to more than"),
            ("gzip", gzip.compress(b"{")[:-4], 400, "cut short"),
            ("gzip", gzip.compress(b"{") * 2, 400, "goes on"),
            ("deflate", b"{}", 400, "the body is not deflate"),
            ("br", b"{", 400, "send gzip, deflate"),
            ("gzip, gzip", b"{", 400, "send gzip, deflate"),
        ],
    )
    async def test_compressed_bodies(self, encoding: str, body: bytes, status: int, says: str) -> None:
        headers = {"content-encoding": encoding, "content-length": str(len(body))}
        response = await app().respond(Request("POST", b"/v2/models/small/infer", headers, body))
        assert (response.status, says in json.loads(response.body)["error"]) == (status, True), response.body

    async def test_a_content_length_of_strange_digits_is_no_error_of_ours(self) -> None:
        for strange in ("²", "1" * 5000):
            response = await app().respond(Request("GET", b"/v2", {"content-length": strange}, b""))
            assert response.status == 200

    async def test_websockets_are_closed(self) -> None:
        told: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def tell(message: Any) -> None:
            told.append(message)

        await app()({"type": "websocket"}, receive, tell)
        assert [x["type"] for x in told] == ["websocket.close"]
