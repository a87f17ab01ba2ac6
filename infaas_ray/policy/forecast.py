"""What demand is to be expected: the rate of rows of one class of queries, some time from now, at a quantile.

Rules, over bins of `BIN_S` seconds:
- level and trend by Brown's double exponential smoothing (R. G. Brown, "Smoothing, Forecasting and Prediction of
  Discrete Time Series", 1963); the trend counts for at most `TREND_S` seconds ahead, a fall not at all;
- the day: in slots of `SLOT_S` seconds the level is remembered; where the same time of a former day is known, what the
  level did from then to the horizon is expected again;
- the quantile: a margin over the forecast, kept so that the share of moments at which the rate exceeded it is
  1 - quantile: each excess raises it by much, each other moment lowers it by little (stochastic approximation).
"""

from collections import deque
from math import exp, inf

BIN_S = 1.0
TREND_S = 60.0
SLOT_S = 300.0
_DAY_S = 86_400.0
_SLOTS = int(_DAY_S / SLOT_S)
_FAST_S, _SLOW_S = 4.0, 20.0  # memory of what is, and of level and trend
_MARGIN_STEP = 0.04
_MARGIN_FIRST, _MARGIN_MOST = 1.05, 2.0
_DAY_LEARNING = 0.3
_MOST_BINS = 600  # of silence, after which nothing is left of a rate


class Forecast:
    """The demand of one class. Feed it with `add`, in order of time; all rates are in rows a second."""

    __slots__ = (
        "_bin",
        "_bin_rows",
        "_day",
        "_fast",
        "_first",
        "_pending",
        "_quantile",
        "_slow",
        "_slower",
        "last_seen",
        "margin",
    )

    def __init__(self, quantile: float, now: float) -> None:
        self._quantile = quantile
        self._bin = int(now // BIN_S)
        self._bin_rows = 0.0
        self._fast = self._slow = self._slower = 0.0
        self._first = True
        self._day: dict[int, float] = {}
        self._pending: deque[tuple[float, float]] = deque()
        self.margin = _MARGIN_FIRST
        self.last_seen = now

    def add(self, rows: float, now: float) -> None:
        """Note that so many rows came up to now."""
        self.advance(now)
        self._bin_rows += rows
        if rows > 0:
            self.last_seen = now

    def advance(self, now: float) -> None:
        """Let time pass."""
        here = int(now // BIN_S)
        for number in range(max(self._bin, here - _MOST_BINS), here):
            self._close(self._bin_rows / BIN_S if number == self._bin else 0.0, (number + 1) * BIN_S)
        if here > self._bin:
            self._bin, self._bin_rows = here, 0.0

    @property
    def rate_qps(self) -> float:
        """The rate now, smoothed over a few seconds."""
        return self._fast

    def expect(self, now: float, horizon_s: float) -> float:
        """The greatest rate expected between now and `horizon_s` seconds from now, at the quantile."""
        expected = self._expected(now, horizon_s)
        if not self._pending or now - self._pending[-1][0] + horizon_s >= BIN_S:
            self._pending.append((now + horizon_s, expected))
        return expected * self.margin

    # ---- inside

    def _expected(self, now: float, horizon_s: float) -> float:
        level = max(self._fast, 2 * self._slow - self._slower)
        alpha = 1.0 - exp(-BIN_S / _SLOW_S)
        trend = alpha / (1.0 - alpha) * (self._slow - self._slower) / BIN_S
        ahead = level + max(0.0, trend) * min(horizon_s, TREND_S)
        before, later = self._day.get(_slot(now)), self._day.get(_slot(now + horizon_s))
        if before and later:
            ahead = max(ahead, level * min(2.0, later / before))
        return max(ahead, self._fast)

    def _close(self, rate: float, end: float) -> None:
        """Take in a bin that ended."""
        if self._first:
            self._fast = self._slow = self._slower = rate
            self._first = False
        else:
            self._fast += (1.0 - exp(-BIN_S / _FAST_S)) * (rate - self._fast)
            alpha = 1.0 - exp(-BIN_S / _SLOW_S)
            self._slow += alpha * (rate - self._slow)
            self._slower += alpha * (self._slow - self._slower)
        slot = _slot(end)
        known = self._day.get(slot)
        self._day[slot] = self._slow if known is None else known + _DAY_LEARNING * BIN_S / SLOT_S * (self._slow - known)
        self._judge(end)

    def _judge(self, now: float) -> None:
        """Compare what was expected for now with what is, and move the margin."""
        expected = inf
        while self._pending and self._pending[0][0] <= now:
            expected = self._pending.popleft()[1]
        if expected < inf:
            exceeded = self._fast > expected * self.margin
            self.margin += _MARGIN_STEP * (self._quantile if exceeded else self._quantile - 1.0)
            self.margin = min(_MARGIN_MOST, max(1.0, self.margin))


def _slot(now: float) -> int:
    return int(now // SLOT_S) % _SLOTS
