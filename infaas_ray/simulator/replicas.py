"""A simulated replica: the live batcher, and a pool on which its batches compute.

Mirrors `serving/replica`: the batcher decides what runs together and what has expired, one batch computes at a time,
and a replica that drains takes no more. Every query that is taken leaves once: answered, expired, or lost with it.
"""

from collections.abc import Callable, Iterable

from infaas_ray.policy.batching import Batcher, Waiting
from infaas_ray.policy.routing import Offer
from infaas_ray.simulator.engine import Engine
from infaas_ray.simulator.flights import Batch, Flight
from infaas_ray.simulator.jitter import BatchTimes
from infaas_ray.simulator.pool import Pool


class Replica:
    """One replica on one worker. `answer` and `expire` get what leaves it; `emptied` is told when a drain is done."""

    __slots__ = (
        "_answer",
        "_armed_at",
        "_batcher",
        "_emptied",
        "_engine",
        "_expire",
        "_pending",
        "_running",
        "_taken",
        "_times",
        "_units",
        "_wake_at",
        "draining",
        "gone",
        "id",
        "pool",
        "ready",
        "variant",
        "worker",
    )

    def __init__(
        self,
        engine: Engine,
        name: str,
        worker: str,
        offer: Offer,
        times: BatchTimes,
        pool: Pool,
        units: float,
        answer: Callable[[Batch], None],
        expire: Callable[[Flight], None],
    ) -> None:
        self.id = name
        self.variant = offer.name
        self.worker = worker
        self.pool = pool
        self.draining = False
        self.ready = False
        self.gone = False
        self._engine = engine
        self._batcher = Batcher(offer.profile, offer.variant.batch_limit)
        self._times = times
        self._units = units
        self._answer = answer
        self._expire = expire
        self._emptied: Callable[[Replica], None] | None = None
        self._pending: dict[int, Flight] = {}
        self._running: tuple[tuple[int, ...], Batch] | None = None
        self._taken = 0
        self._wake_at: float | None = None
        self._armed_at: float | None = None

    def take(self, flight: Flight) -> bool:
        """Queue a query; False where this replica takes no more."""
        if self.draining or self.gone:
            return False
        now = self._engine.now
        kind = flight.kind
        self._taken += 1
        self._pending[self._taken] = flight
        flight.reached_s = now
        left_s = kind.bound_s - (flight.sent_s - flight.arrived_s)
        self._batcher.add(
            Waiting(id=self._taken, rows=kind.rows, deadline=now + left_s, arrived=now, offline=kind.offline)
        )
        self._turn()
        return True

    def drain(self, emptied: Callable[["Replica"], None]) -> None:
        """Take no more queries; tell `emptied` when the last one has left."""
        self.draining = True
        self._emptied = emptied
        self._look_whether_empty()

    def end(self) -> list[Flight]:
        """End at once, and return the queries that were here."""
        self.gone = True
        if self._running is not None:
            self.pool.drop(self)
        left = list(self._pending.values())
        self._pending.clear()
        return left

    def _look_whether_empty(self) -> None:
        if self._emptied is not None and not self._pending and not self.gone:
            emptied, self._emptied = self._emptied, None
            emptied(self)

    def _turn(self) -> None:
        """Ask the batcher what to do now, and do it."""
        turn = self._batcher.step(self._engine.now, busy=self._running is not None)
        if turn.expired:
            self._leave(turn.expired)
        if turn.run:
            self._run(turn.run)
        self._wake_at = turn.wake_at
        if turn.wake_at is not None and (self._armed_at is None or turn.wake_at < self._armed_at):
            self._arm(turn.wake_at)

    def _leave(self, expired: Iterable[int]) -> None:
        for number in expired:
            self._expire(self._pending.pop(number))
        self._look_whether_empty()

    # One timer is arranged at a time: one that is due too early looks again, one that was overtaken does nothing.

    def _arm(self, at_s: float) -> None:
        self._armed_at = at_s
        self._engine.at(at_s, self._wake, at_s)

    def _wake(self, at_s: float) -> None:
        if at_s != self._armed_at:
            return
        self._armed_at = None
        if self._wake_at is None or self.gone:
            return
        if self._engine.now < self._wake_at:
            self._arm(self._wake_at)
        else:
            self._turn()

    def _run(self, numbers: tuple[int, ...]) -> None:
        flights = [self._pending[x] for x in numbers]
        rows = sum([x.kind.rows for x in flights])
        batch = Batch(flights, self.variant, rows, self._engine.now)
        self._running = (numbers, batch)
        self.pool.start(self._times.draw(rows), self._units, self._done, self)

    def _done(self, _replica: object) -> None:
        assert self._running is not None
        numbers, batch = self._running
        now = self._engine.now
        batch.compute_s = now - batch.started_s
        self._batcher.done(batch.rows, batch.compute_s, now)
        batch.queued_rows = self._batcher.queued_rows
        for number in numbers:
            del self._pending[number]
        self._running = None
        self._answer(batch)
        self._look_whether_empty()
        self._turn()
