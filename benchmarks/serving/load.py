"""The load generator: raw HTTP/1.1 over kept-alive connections, in a process of its own.

`python -m benchmarks.serving.load` reads one `Job` a line (JSON) and writes one `Outcome` a line, until its input
ends. Requests are whole byte strings made beforehand; an answer is looked at only as far as its status, its length
and the headers that say whether the SLO was met and which variant answered.

Rules. Closed loop: each connection asks again as soon as it has its answer. Open loop: arrivals are Poisson, drawn
before the run; latency counts from the moment a request should have left, whether or not a connection was free then
or this process was late, so that a server that stalls cannot make its own load lighter. Every job is bounded in time.
"""

import asyncio
import os
import random
import re
import sys
from collections import Counter, deque
from time import perf_counter

import msgspec
import uvloop

from benchmarks.measure import percentile

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ON_TIME = re.compile(rb"\r\nx-slo-met: *true", re.IGNORECASE)
_VARIANT = re.compile(rb"\r\nx-variant: *([^\r]+)", re.IGNORECASE)
_REFUSED = (422, 429, 503)
_DRAIN_S = 5.0
_SAMPLES = 8
_MOST_BROKEN = 200  # connections that a server may drop within one job, idle ones left out
_FIRST = 8  # connections that an open loop begins with


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `rate` 0: closed loop, else the mean arrivals per second of an open one.

    `requests` are asked in turn (closed) or at random (open). `bounds_s`, where given, has the latency bound of each
    of them; what comes later than that is late. `classes`, where given, has the class of each of them, for whoever
    wants counts by class. The first `warm_s` seconds do not count.
    """

    host: str
    port: int
    requests: list[bytes]
    connections: int
    seconds: float
    warm_s: float = 0.3
    rate: float = 0.0
    bounds_s: list[float] = []
    classes: list[str] = []
    seed: int = 1


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of a kind of answers; zeros where there was none."""

    count: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    most_ms: float = 0.0


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The same counts for one class, and its answers on time by variant, where the server names the variant."""

    offered: int
    on_time: int
    late: int
    refused: int
    failed: int
    variants: dict[str, int]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job's requests after its warm-up, which took `seconds`.

    `offered` = `on_time` + `late` + `refused` + `failed`; `late` counts answers after their bound; `failed` counts
    other statuses, broken connections and what was never answered. `false_on_time` counts answers that the server
    called on time although they came after their bound. `lateness` is how long after their time requests left this
    process (open loop). `parts` holds the counts of each class.
    """

    seconds: float
    offered: int
    on_time: int
    late: int
    refused: int
    failed: int
    false_on_time: int
    statuses: dict[int, int]
    answers: Times
    refusals: Times
    lateness: Times
    bodies: list[bytes]
    parts: dict[str, Part] = {}

    @property
    def rate(self) -> float:
        """Answers with status 200 per second."""
        return (self.on_time + self.late) / self.seconds

    @property
    def goodput(self) -> float:
        """Answers on time per second."""
        return self.on_time / self.seconds


def times(seconds: list[float]) -> Times:
    """Percentiles of durations in seconds, which are sorted in place."""
    if not seconds:
        return Times()
    seconds.sort()
    return Times(
        count=len(seconds),
        p50_ms=percentile(seconds, 0.5) * 1e3,
        p99_ms=percentile(seconds, 0.99) * 1e3,
        most_ms=seconds[-1] * 1e3,
    )


class Tally:
    """Counts answers; `begin` and `end` bound the moments of asking (open) or answering (closed) that count."""

    def __init__(self, job: Job, begin: float, end: float) -> None:
        self.begin = begin
        self.end = end
        self._bounds_s = job.bounds_s
        self._classes = job.classes
        self._by_class: Counter[tuple[str, str]] = Counter()  # class, and what became of it
        self._by_variant: Counter[tuple[str, str]] = Counter()  # class and variant of answers on time
        self._answers: list[float] = []
        self._refusals: list[float] = []
        self.lateness: list[float] = []
        self._counts: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self.bodies: deque[bytes] = deque(maxlen=_SAMPLES)

    def add(self, kind: int, status: int, latency_s: float, head: bytes = b"") -> None:
        """One answer with its head, or status 0 for a request that will never have one."""
        self._statuses[status] += 1
        if status == 200:
            self._answers.append(latency_s)
            late = bool(self._bounds_s) and latency_s > self._bounds_s[kind]
            fate = "late" if late else "on_time"
            self._counts["false_on_time"] += late and _ON_TIME.search(head) is not None
        elif status in _REFUSED:
            self._refusals.append(latency_s)
            fate = "refused"
        else:
            fate = "failed"
        self._counts[fate] += 1
        if self._classes:
            self._note_class(self._classes[kind], fate, head)

    def _note_class(self, name: str, fate: str, head: bytes) -> None:
        self._by_class[name, fate] += 1
        if fate == "on_time" and (variant := _VARIANT.search(head)) is not None:
            self._by_variant[name, variant[1].decode()] += 1

    def outcome(self) -> Outcome:
        """Everything counted."""
        return Outcome(
            seconds=self.end - self.begin,
            offered=self._statuses.total(),
            **{x: self._counts[x] for x in ("on_time", "late", "refused", "failed", "false_on_time")},
            statuses=dict(self._statuses),
            answers=times(self._answers),
            refusals=times(self._refusals),
            lateness=times(self.lateness),
            bodies=list(self.bodies),
            parts={name: self._part(name) for name in dict.fromkeys(self._classes)},
        )

    def _part(self, name: str) -> Part:
        counts = {x: self._by_class[name, x] for x in ("on_time", "late", "refused", "failed")}
        variants = {variant: count for (of, variant), count in self._by_variant.items() if of == name}
        return Part(offered=sum(counts.values()), **counts, variants=variants)


class Caller(asyncio.Protocol):
    """One connection; it carries one request at a time. `kind` and `since` belong to that request."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.busy = False
        self.kind = 0
        self.since = 0.0

    def ask(self, kind: int, since: float) -> None:
        """Send a request of that kind, to be counted from `since`."""
        assert self._transport is not None
        self.busy, self.kind, self.since = True, kind, since
        self._transport.write(self._run.job.requests[kind])

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport, but acts as one

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        head = data.find(b"\r\n\r\n")
        found = _LENGTH.search(data, 0, head + 2) if head >= 0 else None
        if found is None:
            if head >= 0:
                self._run.give_up("an answer without Content-Length, which this load generator does not read")
            self._rest = data
            return
        if len(data) < head + 4 + int(found[1]):
            self._rest = data
            return
        self._rest = b""
        self.busy = False
        self._run.answered(self, int(data[9:12]), data, head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest = b""
        self._run.broken(self)


class Run:
    """One job under way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._free: deque[Caller] = deque()
        self._callers: set[Caller] = set()
        self._waiting: deque[tuple[int, float]] = deque()
        self._finished = asyncio.Event()
        self._over = False
        self._broken = 0
        self._reason = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._tally = Tally(job, 0.0, 0.0)
        self._arrivals: list[float] = []
        self._kinds: list[int] = []
        self._next = 0

    async def go(self) -> Outcome:
        """Do the job. Raises ConnectionError where the server cannot be talked to."""
        job = self.job
        for _ in range(min(job.connections, _FIRST) if job.rate else job.connections):
            await self._connect()
        begin = perf_counter()
        self._tally = Tally(job, begin + job.warm_s, begin + job.warm_s + job.seconds)
        if job.rate:
            self._plan(begin)
            self._due()
        else:
            for number, caller in enumerate(list(self._free)):
                caller.ask(number % len(job.requests), begin)
            self._free.clear()
            asyncio.get_running_loop().call_later(job.warm_s + job.seconds, self._finished.set)
        try:
            async with asyncio.timeout(job.warm_s + job.seconds + _DRAIN_S):
                await self._finished.wait()
        except TimeoutError:
            self._abandon()
        self._over = True
        for caller in list(self._callers):
            caller.close()
        await asyncio.sleep(0.05)
        if self._reason:
            raise ConnectionError(self._reason)
        return self._tally.outcome()

    async def _connect(self) -> None:
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda: Caller(self), self.job.host, self.job.port
        )
        self._callers.add(caller)
        self._release(caller)

    def give_up(self, reason: str) -> None:
        """End the job; there is nothing to measure."""
        self._reason = reason
        self._finished.set()

    def answered(self, caller: Caller, status: int, data: bytes, head: int) -> None:
        """An answer is in: count it, and let the connection ask again."""
        if self._over:
            return
        now = perf_counter()
        tally = self._tally
        moment = caller.since if self.job.rate else now
        if tally.begin <= moment < tally.end:
            tally.add(caller.kind, status, now - caller.since, data[: head + 2])
            if status == 200 and len(tally.bodies) < _SAMPLES:
                tally.bodies.append(data[head + 4 :])
        if self.job.rate:
            self._release(caller)
        elif now < tally.end:
            caller.ask((caller.kind + 1) % len(self.job.requests), now)

    def broken(self, caller: Caller) -> None:
        """A connection is gone: what it carried has failed; open another."""
        self._callers.discard(caller)
        if self._over:
            return
        if caller.busy:
            self._tally.add(caller.kind, 0, 0.0)
            caller.busy = False
        elif caller in self._free:
            self._free.remove(caller)
            if self.job.rate:
                return  # closed because it was idle; another is opened when one is needed
        self._broken += 1
        if self._broken > _MOST_BROKEN:
            self.give_up(f"the server broke {self._broken} connections")
            return
        self._open_another()

    def _open_another(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reconnect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except OSError as error:
            self.give_up(f"the server takes no more connections: {error}")
            return
        if not self.job.rate and not self._over and perf_counter() < self._tally.end:
            self._free.pop().ask(0, perf_counter())

    # -- open loop

    def _plan(self, begin: float) -> None:
        """Draw all arrivals and what each asks."""
        job = self.job
        rng = random.Random(job.seed)
        at = begin + rng.expovariate(job.rate)
        while at < begin + job.warm_s + job.seconds:
            self._arrivals.append(at)
            self._kinds.append(rng.randrange(len(job.requests)))
            at += rng.expovariate(job.rate)

    def _due(self) -> None:
        """Send what is due, and come back for the next arrival."""
        now = perf_counter()
        while self._next < len(self._arrivals) and self._arrivals[self._next] <= now:
            self._send(self._kinds[self._next], self._arrivals[self._next], now)
            self._next += 1
        if self._next < len(self._arrivals):
            asyncio.get_running_loop().call_later(self._arrivals[self._next] - now, self._due)
        else:
            self._maybe_finished()

    def _send(self, kind: int, since: float, now: float) -> None:
        if self._tally.begin <= since:
            self._tally.lateness.append(now - since)
        while self._free:
            caller = self._free.pop()  # the one used last, so that a server closes what is too many
            if caller.open:
                caller.ask(kind, since)
                return
        self._waiting.append((kind, since))
        if len(self._callers) + len(self._tasks) < self.job.connections:
            self._open_another()

    def _release(self, caller: Caller) -> None:
        if not caller.open:
            return  # `broken` is about to be called
        if self._waiting:
            caller.ask(*self._waiting.popleft())
            return
        self._free.append(caller)
        self._maybe_finished()

    def _maybe_finished(self) -> None:
        sent = self._next == len(self._arrivals) and not self._waiting
        if self._arrivals and sent and not any(x.busy for x in self._callers):
            self._finished.set()

    def _abandon(self) -> None:
        """What is not answered by now never will be."""
        left = [(x.kind, x.since) for x in self._callers if x.busy] + list(self._waiting)
        for kind, since in left if self.job.rate else ():
            if self._tally.begin <= since < self._tally.end:
                self._tally.add(kind, 0, 0.0)


def main() -> None:
    """Do the jobs that come in, one after the other."""
    decode = msgspec.json.Decoder(Job).decode
    out = os.fdopen(sys.stdout.fileno(), "wb", closefd=False)  # buffered under PYTHONUNBUFFERED too: writes all it gets
    for line in sys.stdin.buffer:
        job = decode(line)
        try:
            answer = msgspec.json.encode(uvloop.run(Run(job).go()))
        except OSError as error:
            answer = msgspec.json.encode({"error": str(error)})
        out.write(answer + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
