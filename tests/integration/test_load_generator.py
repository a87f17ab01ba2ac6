"""The load generator's process against a small server on loopback."""

import asyncio
import threading
from collections.abc import Iterator

import msgspec
import pytest

from benchmarks.serving.generator import Generator, MeasurementFailed, http_request
from benchmarks.serving.load import Job


class Server(threading.Thread):
    """Answers each request with its body's status and an 'x-slo-met' header; counts requests."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.port = 0
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()

    def run(self) -> None:
        server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                status = await reader.readexactly(3)
                self.count += 1
                writer.write(
                    b"HTTP/1.1 "
                    + status
                    + b" X\r\nx-slo-met: true\r\nx-variant: net@fast\r\ncontent-length: 2\r\n\r\nok"
                )
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    started.start()
    started.ready.wait()
    yield started
    started.loop.call_soon_threadsafe(started.loop.stop)
    started.join()


def job(server: Server, *statuses: bytes, **settings: float) -> Job:
    requests = [http_request("127.0.0.1", "/", x) for x in statuses]
    return Job(host="127.0.0.1", port=server.port, requests=requests, seconds=0.5, warm_s=0.1, **settings)  # type: ignore[arg-type]


def test_closed_and_open_loops_count_what_the_server_saw(server: Server) -> None:
    with Generator() as generator:
        closed = generator.measure(job(server, b"200", connections=4))
        assert 0 < closed.on_time == closed.offered < server.count
        assert closed.bodies[0] == b"ok"
        assert 0 < closed.answers.p50_ms <= closed.answers.p99_ms <= closed.answers.most_ms

        before = server.count
        opened = generator.measure(job(server, b"200", b"503", b"500", connections=4, rate=300.0))
        assert opened.offered == opened.on_time + opened.refused + opened.failed <= server.count - before
        assert min(opened.on_time, opened.refused, opened.failed) > 10
        assert opened.refusals.count == opened.refused
        assert opened.lateness.count == opened.offered

        bounded = generator.measure(
            Job(
                host="127.0.0.1",
                port=server.port,
                requests=[http_request("127.0.0.1", "/", b"200")],
                connections=4,
                seconds=0.3,
                rate=100.0,
                bounds_s=[1e-9],
            )
        )
        assert bounded.on_time == 0
        assert bounded.late == bounded.false_on_time == bounded.offered > 0


def test_counts_by_class_and_by_the_variant_that_answered(server: Server) -> None:
    asked = job(server, b"200", b"200", b"503", connections=4, rate=300.0)
    with Generator() as generator:
        found = generator.measure(msgspec.structs.replace(asked, classes=["easy", "hard", "hard"]))
    assert set(found.parts) == {"easy", "hard"}
    easy, hard = found.parts["easy"], found.parts["hard"]
    assert easy.offered == easy.on_time == easy.variants["net@fast"] > 10
    assert hard.on_time == hard.variants["net@fast"]
    assert hard.refused == found.refused > 10
    assert easy.offered + hard.offered == found.offered


def test_a_server_that_is_not_there_is_an_error_and_not_a_number(server: Server) -> None:
    with Generator() as generator, pytest.raises(MeasurementFailed):
        generator.measure(msgspec.structs.replace(job(server, b"200", connections=1), port=1))
