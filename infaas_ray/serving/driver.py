"""For Python programs on the cluster: queries to the same routers that answer HTTP, without HTTP.

    with infaas_ray.connect() as system:
        answer = system.query("digit-classification:digits", {"image": image}, latency_ms=20)
        for answer in system.query_many("digit-classification:digits", {"image": images}, latency_ms=50):
            ...

A background thread runs the event loop, so the calls here are ordinary ones.
"""

import asyncio
import itertools
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from infaas_ray.domain import SLO, Answer, Array, OnMiss
from infaas_ray.errors import InfaasError, InvalidInput, NotRunning
from infaas_ray.serving.channel import Connection, Reply, connect

T = TypeVar("T")
Outcome = Answer | InfaasError


class System:
    """A running system, as a driver sees it. Make it with `infaas_ray.connect`; close it, or use `with`."""

    def __init__(self, addresses: list[str], secret: bytes) -> None:
        if not addresses:
            raise NotRunning("no router answers yet; wait a moment, or look at 'infaas status'")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="infaas-driver", daemon=True)
        self._thread.start()
        self._ids = itertools.count(1)
        self._prefix = uuid.uuid4().hex[:12]
        self._connections: list[Connection] = self._wait(self._open(addresses, secret))
        self._turn = itertools.cycle(self._connections)

    @staticmethod
    async def _open(addresses: list[str], secret: bytes) -> list[Connection]:
        return [await connect(x, secret) for x in addresses]

    def _wait(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result()

    def query(
        self,
        target: str,
        inputs: Mapping[str, Array],
        *,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
        on_miss: str = "reject",
    ) -> Answer:
        """Answer one query of one or more rows. Raises the errors of `infaas_ray.errors`."""
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, on_miss)
        outcome = self._wait(self._ask(target, inputs, slo))
        if isinstance(outcome, InfaasError):
            raise outcome
        return outcome

    def submit(
        self,
        target: str,
        inputs: Mapping[str, Array],
        *,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
        on_miss: str = "reject",
    ) -> Future[Outcome]:
        """Ask one query and go on; the future gives its answer, or its error as a value."""
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, on_miss)
        return asyncio.run_coroutine_threadsafe(self._ask(target, inputs, slo), self._loop)

    def query_many(
        self,
        target: str,
        inputs: Mapping[str, Array],
        *,
        rows_per_query: int = 1,
        window: int = 256,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
        on_miss: str = "reject",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Outcome]:
        """Ask one query per `rows_per_query` rows of `inputs`, at most `window` at once; yield outcomes in order.

        A query that is not answered yields its error instead of raising it, so that none is lost.
        """
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, on_miss)
        lengths = {len(x) for x in inputs.values()}
        if len(lengths) != 1 or rows_per_query < 1:
            raise InvalidInput("all inputs need the same number of rows, and rows_per_query must be at least 1")
        starts = range(0, lengths.pop(), rows_per_query)
        waiting: list[Future[Outcome]] = []
        for done, start in enumerate(starts):
            part = {name: x[start : start + rows_per_query] for name, x in inputs.items()}
            waiting.append(asyncio.run_coroutine_threadsafe(self._ask(target, part, slo), self._loop))
            if len(waiting) >= window:
                yield waiting.pop(0).result()
                if on_progress is not None:
                    on_progress(done + 1 - len(waiting), len(starts))
        for left in range(len(waiting), 0, -1):
            yield waiting.pop(0).result()
            if on_progress is not None:
                on_progress(len(starts) - left + 1, len(starts))

    def explain(
        self,
        target: str,
        *,
        rows: int = 1,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
    ) -> list[dict[str, Any]]:
        """Every candidate for such a query now, and why it would win or lose."""
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, "reject")
        fields = {"target": target, "rows": rows, "slo": slo_fields(slo)}
        reply = self._wait(next(self._turn).call("explain", fields, {}))
        found: list[dict[str, Any]] = reply.fields["candidates"]
        return found

    async def _ask(self, target: str, inputs: Mapping[str, Array], slo: SLO) -> Outcome:
        rows = len(next(iter(inputs.values()), ()))
        query_id = f"{self._prefix}-{next(self._ids)}"
        fields = {"id": query_id, "target": target, "rows": rows, "slo": slo_fields(slo)}
        try:
            reply = await next(self._turn).call("query", fields, inputs)
        except InfaasError as error:
            return error
        return answer_from(query_id, reply)

    def close(self) -> None:
        """Close the connections and end the background thread."""
        if self._loop.is_closed():
            return
        self._wait(self._hang_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _hang_up(self) -> None:
        for connection in self._connections:
            await connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_slo(latency_ms: float | None, min_accuracy: float | None, max_usd_per_1k: float | None, on_miss: str) -> SLO:
    """An SLO from the units that people use. Raises InvalidInput."""
    if on_miss not in list(OnMiss):
        raise InvalidInput(f"on_miss must be one of {', '.join(OnMiss)}, not {on_miss!r}")
    latency_s = latency_ms / 1e3 if isinstance(latency_ms, int | float) else latency_ms
    return SLO(latency_s=latency_s, min_accuracy=min_accuracy, max_usd_per_1k=max_usd_per_1k, on_miss=OnMiss(on_miss))


def slo_fields(slo: SLO) -> dict[str, Any]:
    """An SLO as the fields in which it travels."""
    return {
        "latency_s": slo.latency_s,
        "min_accuracy": slo.min_accuracy,
        "max_usd_per_1k": slo.max_usd_per_1k,
        "on_miss": str(slo.on_miss),
    }


def answer_from(query_id: str, reply: Reply) -> Answer:
    """The answer from the fields in which it travels."""
    return Answer(query_id=query_id, outputs=reply.arrays, **reply.fields)
