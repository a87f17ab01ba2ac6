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
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
import uvloop

from infaas_ray.domain import SLO, Answer, Array, OnMiss, application_name
from infaas_ray.errors import InfaasError, InvalidInput, NotRunning
from infaas_ray.serving.channel import Connection, connect
from infaas_ray.serving.sender import Collector, Message, Outcome, Sender

T = TypeVar("T")

_BUNDLE_QUERIES = 32  # small queries that travel in one message
_BUNDLE_BYTES = 256 * 1024


class System:
    """A running system, as a driver sees it. Make it with `infaas_ray.connect`; close it, or use `with`.

    `application` says whose the queries are, for the accounts, where a call does not say otherwise.
    """

    def __init__(self, addresses: list[str], secret: bytes, application: str = "") -> None:
        self._application = application_name(application)
        if not addresses:
            raise NotRunning("no router answers yet; wait a moment, or look at 'infaas status'")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="infaas-driver", daemon=True)
        self._thread.start()
        self._connections: list[Connection] = self._wait(self._open(addresses, secret))
        self._turn = itertools.cycle(self._connections)
        self._sender = Sender(self._loop, self._connections)

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
        offline: bool = False,
        application: str | None = None,
    ) -> Answer:
        """Answer one query of one or more rows. Raises the errors of `infaas_ray.errors`."""
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, on_miss, offline)
        outcome = self._ask(target, inputs, slo, application).result()
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
        offline: bool = False,
        application: str | None = None,
    ) -> Future[Outcome]:
        """Ask one query and go on; the future gives its answer, or its error as a value."""
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, on_miss, offline)
        return self._ask(target, inputs, slo, application)

    def query_many(
        self,
        target: str,
        inputs: Mapping[str, Array] | Iterable[Mapping[str, Array]],
        *,
        rows_per_query: int = 1,
        window: int = 64,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
        on_miss: str = "reject",
        offline: bool = False,
        application: str | None = None,
        progress: bool = False,
    ) -> Iterator[Outcome]:
        """Ask many queries and yield their outcomes in the order of the queries.

        `inputs` is a mapping of arrays, cut into one query per `rows_per_query` rows (small ones travel together), or
        any iterable with the inputs of one query per item. At most `window` messages are under way at once. A query
        that is not answered yields its error instead of raising it, so that none is lost. `progress` draws a bar.
        """
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, on_miss, offline)
        parts, total = _parts(inputs, rows_per_query)
        early: dict[int, list[Outcome]] = {}
        due = 0
        with _bar(progress, target, total) as advance:
            for first, outcomes in self._stream(target, slo, parts, window, application):
                early[first] = outcomes
                while due in early:
                    now = early.pop(due)
                    due += len(now)
                    yield from advance(now)

    def as_completed(
        self,
        target: str,
        inputs: Mapping[str, Array] | Iterable[Mapping[str, Array]],
        *,
        rows_per_query: int = 1,
        window: int = 64,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
        on_miss: str = "reject",
        offline: bool = False,
        application: str | None = None,
        progress: bool = False,
    ) -> Iterator[tuple[int, Outcome]]:
        """Like `query_many`, but yield each outcome as soon as it is there, with the number of its query (from 0)."""
        slo = make_slo(latency_ms, min_accuracy, max_usd_per_1k, on_miss, offline)
        parts, total = _parts(inputs, rows_per_query)
        with _bar(progress, target, total) as advance:
            for first, outcomes in self._stream(target, slo, parts, window, application):
                yield from enumerate(advance(outcomes), first)

    def _stream(
        self,
        target: str,
        slo: SLO,
        parts: Iterator[tuple[Mapping[str, Array], int]],
        window: int,
        application: str | None,
    ) -> Iterator[tuple[int, list[Outcome]]]:
        """Ask messages and yield the outcomes of each as they come, with the number of its first query."""
        if not isinstance(window, int):
            raise InvalidInput(f"window must be a number of messages, not {window!r}")
        fields, collector, whose = slo_fields(slo), Collector(self._loop), self._whose(application)
        under_way = first = 0
        for part, count in parts:
            self._sender.send(Message(target, fields, part, count, partial(collector.put, first), whose))
            first += count
            under_way += 1
            while under_way >= max(1, window):
                found = collector.get()
                under_way -= len(found)
                yield from found
        while under_way:
            found = collector.get()
            under_way -= len(found)
            yield from found

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

    def _whose(self, application: str | None) -> str:
        return self._application if application is None else application_name(application)

    def _ask(
        self, target: str, inputs: Mapping[str, Array], slo: SLO, application: str | None = None
    ) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()  # what was sent cannot be called back

        def done(outcomes: list[Outcome]) -> None:
            future.set_result(outcomes[0])

        self._sender.send(Message(target, slo_fields(slo), inputs, 1, done, self._whose(application)))
        return future

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


def make_slo(
    latency_ms: float | None,
    min_accuracy: float | None,
    max_usd_per_1k: float | None,
    on_miss: str,
    offline: bool = False,
) -> SLO:
    """An SLO from the units that people use. Raises InvalidInput."""
    if on_miss not in list(OnMiss):
        raise InvalidInput(f"on_miss must be one of {', '.join(OnMiss)}, not {on_miss!r}")
    wrong_type = isinstance(latency_ms, bool) or not isinstance(latency_ms, int | float)  # which SLO tells
    latency_s = latency_ms if latency_ms is None or wrong_type else latency_ms / 1e3
    return SLO(
        latency_s=latency_s,
        min_accuracy=min_accuracy,
        max_usd_per_1k=max_usd_per_1k,
        on_miss=OnMiss(on_miss),
        offline=offline,
    )


def slo_fields(slo: SLO) -> dict[str, Any]:
    """An SLO as the fields in which it travels."""
    return {
        "latency_s": slo.latency_s,
        "min_accuracy": slo.min_accuracy,
        "max_usd_per_1k": slo.max_usd_per_1k,
        "on_miss": str(slo.on_miss),
        "offline": slo.offline,
    }


def _parts(
    inputs: Mapping[str, Array] | Iterable[Mapping[str, Array]], rows_per_query: int
) -> tuple[Iterator[tuple[Mapping[str, Array], int]], int | None]:
    """Messages as (inputs, number of queries), and how many queries there are where that is known."""
    if not isinstance(inputs, Mapping):
        return ((x, 1) for x in inputs), None
    for name, x in inputs.items():
        if not isinstance(x, np.ndarray) or x.ndim == 0:
            raise InvalidInput(
                f"input {name!r} must be a NumPy array with a row for each query, not {type(x).__name__}"
            )
    lengths = {len(x) for x in inputs.values()}
    if len(lengths) != 1 or rows_per_query < 1:
        raise InvalidInput("all inputs need the same number of rows, and rows_per_query must be at least 1")
    (length,) = lengths
    whole, rest = divmod(length, rows_per_query)
    if rest:
        raise InvalidInput(f"{length} rows do not make whole queries of {rows_per_query} rows each")
    query_bytes = max(1, sum(x.nbytes for x in inputs.values()) // max(1, whole))
    count = max(1, min(_BUNDLE_QUERIES, _BUNDLE_BYTES // query_bytes))
    return _slices(inputs, rows_per_query, whole, count), whole


def _slices(
    inputs: Mapping[str, Array], rows_per_query: int, queries: int, count: int
) -> Iterator[tuple[Mapping[str, Array], int]]:
    for first in range(0, queries, count):
        last = min(first + count, queries)
        rows = slice(first * rows_per_query, last * rows_per_query)
        yield {name: x[rows] for name, x in inputs.items()}, last - first


@contextmanager
def _bar(shown: bool, target: str, total: int | None) -> Iterator[Callable[[list[Outcome]], list[Outcome]]]:
    """A progress bar on stderr, moved by the outcomes that pass through what is yielded."""
    if not shown:
        yield lambda outcomes: outcomes
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(target, total=total)

        def advance(outcomes: list[Outcome]) -> list[Outcome]:
            bar.advance(task, len(outcomes))
            return outcomes

        yield advance
