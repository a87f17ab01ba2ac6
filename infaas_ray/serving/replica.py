"""What runs inside a variant actor, without Ray: one loaded model, its queue, and the loop that batches.

The batcher (policy) decides what runs together; the model runs on one thread of its own, so the event loop is never
blocked. That thread takes batch after batch by itself while there are any: two hand-overs between threads take longer
than a small batch. Every query that is admitted leaves exactly once: answered, expired, failed with a reason, or
cancelled while it waited.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from infaas_ray.domain import Architecture, Array, Profile, Variant
from infaas_ray.errors import DeadlineExceeded, InfaasError, ReplicaLost, Unavailable, VariantFailed, told
from infaas_ray.policy.batching import Batcher, Turn, Waiting
from infaas_ray.variants.runtime import LoadedModel


class Result(NamedTuple):
    """The outputs of one query, and how they came about."""

    outputs: dict[str, Array]
    queue_s: float
    compute_s: float
    batch_rows: int
    queued_rows: int


class _Pending(NamedTuple):
    inputs: Mapping[str, Array]
    rows: int
    arrived: float
    done: Callable[[Result | InfaasError], None]


class _Batch(NamedTuple):
    """What ran together, taken from the queue at `taken`, and what became of it; `queued_rows` still waited then."""

    numbers: Sequence[int]
    queries: Sequence[_Pending]
    rows: int
    taken: float
    compute_s: float
    outputs: dict[str, Array] | BaseException
    queued_rows: int


class Replica:
    """A model that answers, one batch at a time.

    All methods run on one event loop, but those of the model's own thread. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        model: LoadedModel,
        variant: Variant,
        architecture: Architecture,
        profile: Profile,
        executor: ThreadPoolExecutor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._variant = variant
        self._outputs = tuple(x.name for x in architecture.outputs)
        self._batcher = Batcher(profile, variant.batch_limit)
        self._executor = executor
        self._clock = clock
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # of the batcher and `_running`: never while a model computes
        self._running = False  # the model's thread computes, and takes the next batch by itself
        self._turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.counts = {"answered": 0, "expired": 0, "failed": 0, "cancelled": 0, "batches": 0}

    @property
    def queued_rows(self) -> int:
        """Rows that wait, without those that run."""
        with self._lock:
            return self._batcher.queued_rows

    def submit(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        remaining_s: float | None,
        done: Callable[[Result | InfaasError], None],
        offline: bool = False,
    ) -> int:
        """Queue a query; `done` is called once, on the event loop, with its result or its error.

        Returns the number by which `cancel` knows it.
        """
        if self._draining:
            done(ReplicaLost(f"this replica of {self._variant.name} is retiring"))
            return 0
        now = self._clock()
        number = next(self._ids)
        self._pending[number] = _Pending(inputs, rows, now, done)
        self._empty.clear()
        deadline = float("inf") if remaining_s is None else now + remaining_s
        item = Waiting(id=number, rows=rows, deadline=deadline, arrived=now, offline=offline)
        with self._lock:
            self._batcher.add(item)
        if not self._turning:  # one turn for all that arrives together
            self._turning = True
            self._loop.call_soon(self._turn)
        return number

    def cancel(self, number: int) -> None:
        """Nobody waits for that query any more: let it go, unless it runs or has left."""
        with self._lock:
            waited = self._batcher.cancel(number)
        if waited:
            self._leave(number, "cancelled", Unavailable("whoever asked has gone", 0.0))

    async def drain(self) -> None:
        """Take no more queries; return when the last one has left."""
        self._draining = True
        await self._empty.wait()

    async def close(self) -> None:
        """Unload the model."""
        await self.drain()
        if self._timer is not None:
            self._timer.cancel()
        await self._loop.run_in_executor(self._executor, self._model.close)

    def _turn(self) -> None:
        """Ask the batcher what to do now, and do it."""
        self._turning = False
        with self._lock:
            now = self._clock()
            turn = self._batcher.step(now, busy=self._running)
            self._running = self._running or bool(turn.run)
        if turn.run:
            self._executor.submit(self._work, turn.run, now)
        self._follow(turn, now)

    def _follow(self, turn: Turn, now: float) -> None:
        """Let go who had expired at `now`, and look again when the turn says so."""
        if turn.wake_at is not None:
            self._wake_in(turn.wake_at - self._clock())
        for number in turn.expired:
            waited_ms = (now - self._pending[number].arrived) * 1e3
            words = f"the latency bound passed after {waited_ms:.1f} ms in the queue"
            self._leave(number, "expired", DeadlineExceeded(words))

    def _wake_in(self, seconds: float) -> None:
        """Take a turn by then; a timer that comes earlier stays, because a turn too many does no harm."""
        at = self._loop.time() + max(0.0, seconds)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    # -- on the model's own thread

    def _work(self, numbers: Sequence[int], taken: float) -> None:
        """Compute a batch that was taken from the queue at `taken`, and the next ones until none should run."""
        while numbers:
            queries = [self._pending[x] for x in numbers]
            started = self._clock()
            outputs: dict[str, Array] | BaseException
            try:
                outputs = self._compute(queries)
            except BaseException as error:  # of whatever kind: nobody else would hear of it
                outputs = error
            compute_s = self._clock() - started
            rows = sum(x.rows for x in queries)
            with self._lock:
                now = self._clock()  # here, where it is after the arrival of all that waits
                if not isinstance(outputs, BaseException):
                    self._batcher.done(rows, compute_s, now)
                queued_rows = self._batcher.queued_rows
                turn = self._batcher.step(now, busy=False)
                self._running = bool(turn.run)
            batch = _Batch(numbers, queries, rows, taken, compute_s, outputs, queued_rows)
            self._loop.call_soon_threadsafe(self._finished, batch, turn, now)
            del batch, outputs, queries  # the next batch needs the memory
            numbers, taken = turn.run, now

    # -- on the event loop again

    def _finished(self, batch: _Batch, turn: Turn, now: float) -> None:
        """Give everybody their answer; `turn` is what the model's thread was told at `now`, after this batch."""
        self._follow(turn, now)
        self.counts["batches"] += 1
        if isinstance(batch.outputs, BaseException):
            failure = VariantFailed(f"{self._variant.name} failed: {told(batch.outputs)}")
            for number in batch.numbers:
                self._leave(number, "failed", failure)
        else:
            self._answer(batch, batch.outputs)

    def _answer(self, batch: _Batch, outputs: Mapping[str, Array]) -> None:
        start = 0
        for number, query in zip(batch.numbers, batch.queries, strict=True):
            part = {name: x[start : start + query.rows] for name, x in outputs.items()}
            start += query.rows
            queue_s = batch.taken - query.arrived
            self._leave(number, "answered", Result(part, queue_s, batch.compute_s, batch.rows, batch.queued_rows))

    def _leave(self, number: int, outcome: str, result: Result | InfaasError) -> None:
        self.counts[outcome] += 1
        pending = self._pending.pop(number)
        if not self._pending:
            self._empty.set()
        try:
            pending.done(result)
        except Exception as error:  # it must not take the others of its batch with it
            self._loop.call_exception_handler({"message": "a result could not be told", "exception": error})

    def _compute(self, batch: Sequence[_Pending]) -> dict[str, Array]:
        """Join the inputs, run the model within its batch limit, join the outputs (on the model's own thread)."""
        if len(batch) == 1:
            inputs = {name: np.asarray(x) for name, x in batch[0].inputs.items()}
        else:
            inputs = {name: np.concatenate([x.inputs[name] for x in batch]) for name in batch[0].inputs}
        rows = sum(x.rows for x in batch)
        limit = self._variant.batch_limit
        if rows <= limit:
            return self._checked(self._model.predict(inputs), rows)
        pieces = [
            self._checked(
                self._model.predict({name: x[at : at + limit] for name, x in inputs.items()}), min(limit, rows - at)
            )
            for at in range(0, rows, limit)
        ]
        return {name: np.concatenate([x[name] for x in pieces]) for name in self._outputs}

    def _checked(self, outputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """The named outputs; raises VariantFailed where one is no array, or has another number of rows."""
        found: dict[str, Array] = {}
        for name in self._outputs:
            output = outputs.get(name) if isinstance(outputs, Mapping) else None
            if not isinstance(output, np.ndarray) or output.ndim == 0 or len(output) != rows:
                got: Any = output.shape if isinstance(output, np.ndarray) else type(output).__name__
                raise VariantFailed(f"output {name!r} should be an array of {rows} rows, got {got}")
            found[name] = output
        return found
