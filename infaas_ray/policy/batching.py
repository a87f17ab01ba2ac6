"""Decides, per replica, which waiting queries run together, when it pays to wait, and which have expired.

Rules:
- Online before offline, then the earliest deadline first. A batch takes queries in that order while they fit the
  batch limit; one with more rows than the limit runs alone and whole.
- A query expires when even the median latency of its own rows, on an idle replica, can no longer make its deadline:
  computing it would only delay others. The median is the profile's, or faster where measured so; a replica found slow
  still tries, or it could never be found quick again.
- Deferred, jitter-aware: with b rows queued, the earliest deadline d and the p99 latency L, a free replica waits only
  while one more row could join in time (now < d - L(b + 1)), the batch is not full, and waiting is worth it: rows
  arrive faster than batches of b rows serve them. Otherwise it runs at once, so a quiet replica never waits.
- A full batch that would make its first query late is split, if both parts can then be in time.
"""

from heapq import heappop, heappush
from math import exp, inf

import msgspec

from infaas_ray.domain import Profile
from infaas_ray.errors import InvalidInput
from infaas_ray.policy.latency import LatencyCurve

ARRIVALS_S = 1.0  # memory of the arrival rate
SMOOTHING = 0.1  # weight of one batch in the measured slowdown


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A query in the queue. `deadline` and `arrived` in the seconds of this machine's clock; inf: no deadline."""

    id: int
    rows: int
    deadline: float = inf
    arrived: float
    offline: bool = False


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What to do now: ids to run as one batch, ids that have expired, and when to ask again if nothing happens."""

    run: tuple[int, ...] = ()
    expired: tuple[int, ...] = ()
    wake_at: float | None = None


_Entry = tuple[float, float, int, Waiting]  # deadline, arrival, order of adding


class Batcher:
    """The queue of one replica."""

    def __init__(self, profile: Profile, batch_limit: int) -> None:
        self._limit = batch_limit
        self._high_s = LatencyCurve(profile, batch_limit)
        self._median_s = LatencyCurve.median(profile, batch_limit)
        self._heaps: tuple[list[_Entry], list[_Entry]] = ([], [])  # online, offline
        self._live: dict[int, _Entry] = {}
        self._added = 0
        self._rows = 0
        self._rate_qps = 0.0
        self._last_arrival = -inf
        self.slowdown = 1.0

    def __len__(self) -> int:
        return len(self._live)

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._rows

    def add(self, item: Waiting) -> None:
        """Queue a query. Raises InvalidInput where its id waits already or it has no row."""
        if item.id in self._live or item.rows < 1:
            raise InvalidInput(f"query {item.id} waits already or has no row ({item.rows})")
        entry = (item.deadline, item.arrived, self._added, item)
        self._added += 1
        self._rows += item.rows
        self._live[item.id] = entry
        heappush(self._heaps[item.offline], entry)
        self._rate_qps = self._rate_at(item.arrived) + item.rows / ARRIVALS_S
        self._last_arrival = max(self._last_arrival, item.arrived)

    def cancel(self, id: int) -> bool:
        """Forget a waiting query; False where it does not wait (any more)."""
        entry = self._live.pop(id, None)
        if entry is None:
            return False
        self._rows -= entry[3].rows
        return True

    def done(self, rows: int, compute_s: float, now: float) -> None:
        """Note that a batch of `rows` rows took `compute_s` seconds and ended at `now`."""
        measured = compute_s / self._median_s(rows)
        self.slowdown += SMOOTHING * (measured - self.slowdown)

    def step(self, now: float, busy: bool) -> Turn:
        """Decide at `now`; `busy` while a batch computes, when nothing can run."""
        expired: list[int] = []
        self._expire_heads(now, expired)
        if busy or not self._live:
            return Turn(expired=tuple(expired), wake_at=self._next_expiry())
        until = self._wait_until(now)
        if until > now:
            return Turn(expired=tuple(expired), wake_at=min(until, self._next_expiry() or inf))
        batch = self._fill(now, expired)
        return Turn(run=tuple(x.id for x in batch), expired=tuple(expired), wake_at=self._next_expiry())

    # ---- the queue

    def _first(self, heap: list[_Entry]) -> Waiting | None:
        """The query of a heap with the earliest deadline; cancelled ones before it are dropped on the way."""
        while heap:
            entry = heap[0]
            if self._live.get(entry[3].id) is entry:
                return entry[3]
            heappop(heap)
        return None

    def _head(self) -> Waiting | None:
        """The query that is next: online before offline."""
        online, offline = self._heaps
        return self._first(online) or self._first(offline)

    def _take(self, offline: bool) -> _Entry:
        """Remove the first of a heap, which `_first` found."""
        entry = heappop(self._heaps[offline])
        del self._live[entry[3].id]
        self._rows -= entry[3].rows
        return entry

    def _put_back(self, entry: _Entry) -> None:
        item = entry[3]
        self._live[item.id] = entry
        self._rows += item.rows
        heappush(self._heaps[item.offline], entry)

    # ---- expiry

    def _expires_at(self, item: Waiting) -> float:
        return item.deadline - self._median_s(item.rows) * min(1.0, self.slowdown)

    def _expire_heads(self, now: float, expired: list[int]) -> None:
        for heap in self._heaps:
            while (head := self._first(heap)) is not None and now >= self._expires_at(head):
                expired.append(self._take(head.offline)[3].id)

    def _next_expiry(self) -> float | None:
        """When the first query may expire; those who wait for the others' work expire too."""
        first = min((self._expires_at(x) for heap in self._heaps if (x := self._first(heap))), default=inf)
        return None if first == inf else first

    # ---- waiting

    def _rate_at(self, now: float) -> float:
        """Recent arrivals in rows per second, forgotten exponentially."""
        return self._rate_qps * exp(-max(0.0, now - self._last_arrival) / ARRIVALS_S)

    def _wait_until(self, now: float) -> float:
        """The time to which waiting for more rows is safe and worth it; -inf where it is not."""
        head, rows = self._head(), self._rows
        if head is None or head.deadline == inf or rows >= self._limit:
            return -inf
        if self._rate_at(now) <= rows / (self._median_s(rows) * self.slowdown):
            return -inf
        return head.deadline - self._high_s(rows + 1) * self.slowdown

    # ---- the batch

    def _fill(self, now: float, expired: list[int]) -> list[Waiting]:
        """Take a batch from the queue in order of deadlines."""
        taken: list[_Entry] = []
        rows = 0
        while (head := self._head()) is not None and (not taken or rows + head.rows <= self._limit):
            entry = self._take(head.offline)
            if now >= self._expires_at(head):
                expired.append(head.id)
                continue
            taken.append(entry)
            rows += head.rows
        kept = self._split(now, [x[3] for x in taken])
        for entry in taken[kept:]:
            self._put_back(entry)
        return [x[3] for x in taken[:kept]]

    def _split(self, now: float, batch: list[Waiting]) -> int:
        """How many of the batch to run now: all, unless fewer save the first deadline at no other's cost."""
        total = sum(x.rows for x in batch)
        if len(batch) < 2 or now + self._late_s(total) <= batch[0].deadline:
            return len(batch)
        rows = kept = 0
        while now + self._late_s(rows + batch[kept].rows) <= batch[0].deadline:
            rows += batch[kept].rows
            kept += 1
        if kept and now + self._late_s(rows) + self._late_s(total - rows) <= batch[kept].deadline:
            return kept
        return len(batch)

    def _late_s(self, rows: int) -> float:
        """The p99 latency of a batch here."""
        return self._high_s(rows) * self.slowdown
