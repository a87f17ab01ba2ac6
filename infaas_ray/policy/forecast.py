"""What demand is to be expected: the rate of rows of one class of queries, some time from now, at a quantile.

Rules, over bins of `BIN_S` seconds:
- the rate now is a mean over about `_ROWS` rows (between `_FAST_S` and `_LONG_S` seconds), because rates of few rows
  are mostly chance; where the last seconds differ from it by more than chance could (`_SURPRISE` standard deviations
  of independent arrivals), or a silence is too long for it, it is forgotten and begun anew from them;
- how much of its change is chance: counts of independent rows vary as their mean; where queries bring many rows each,
  or come in clusters, they vary by a factor more (`dispersion`), told from the differences of neighbouring bins;
- the trend by Brown's double exponential smoothing (R. G. Brown, "Smoothing, Forecasting and Prediction of Discrete
  Time Series", 1963), as far as it exceeds what chance would show; it counts for at most `TREND_S` seconds ahead, a
  fall not at all;
- the day: in slots of `SLOT_S` seconds the level is remembered; where the same time of a former day is known, what the
  level did from then to the horizon is expected again;
- surges: what the rate rose to twice within a quarter of an hour, from less than half of it, is expected again;
- the quantile: a margin over the forecast, kept so that the share of moments at which the rate exceeded it is
  1 - quantile: each excess raises it by much, each other moment lowers it by little (stochastic approximation).
"""

from collections import deque
from math import exp, inf, sqrt

BIN_S = 1.0
TREND_S = 60.0
SLOT_S = 300.0
_DAY_S = 86_400.0
_SPELL_S = 15.0
_SLOTS = int(_DAY_S / SLOT_S)
_FAST_S, _SLOW_S = 4.0, 20.0  # memory of the last seconds, and of the trend
_ROWS, _LONG_S = 300.0, 120.0
_SURPRISE = 3.0
_DISPERSION_BINS = 300.0  # memory of the dispersion
_USUAL = 10.0  # times the variance that a squared difference counts for at most
_SILENCE_ROWS = 8.0  # that should have come in a silence: one in three thousand is as long by chance
_SLOW_SHARE = 1.0 - exp(-BIN_S / _SLOW_S)
_TREND_CHANCE = sqrt(2.0) * sqrt(_SLOW_SHARE / 4)  # 1.4 standard deviations of slow - slower, at a rate of 1
_SPELLS = 60  # in which surges are looked for
_SURGE_ROWS = 60.0  # in one of them at least: fewer are chance
_BACK, _AWAY = 0.7, 0.5  # of a height: from where on the rate is there again, and below which it was away
_MARGIN_STEP = 0.01
_MARGIN_FIRST, _MARGIN_MOST = 1.05, 2.0
_DAY_LEARNING = 0.3
_MOST_BINS = 600  # of silence, after which nothing is left of a rate


class Forecast:
    """The demand of one class. Feed it with `add`, in order of time; all rates are in rows a second."""

    __slots__ = (
        "_bin",
        "_bin_rows",
        "_bins",
        "_day",
        "_fast",
        "_last",
        "_mean",
        "_pending",
        "_quantile",
        "_rate",
        "_silent_s",
        "_slow",
        "_slower",
        "_spells",
        "_variance",
        "last_seen",
        "margin",
    )

    def __init__(self, quantile: float, now: float) -> None:
        self._quantile = quantile
        self._bin = int(now // BIN_S)
        self._bin_rows = 0.0
        self._fast = self._slow = self._slower = self._rate = 0.0
        self._bins = 0.0  # in the mean that is the rate
        self._silent_s = 0.0
        self._last = self._mean = self._variance = 0.0
        self._day: dict[int, float] = {}
        self._spells: deque[float] = deque([0.0], _SPELLS)  # the greatest rate in each of the last ones
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
        if here - self._bin > _MOST_BINS:
            self._fast = self._slow = self._slower = self._rate = 0.0
        for number in range(max(self._bin, here - _MOST_BINS), here):
            self._close(self._bin_rows / BIN_S if number == self._bin else 0.0, (number + 1) * BIN_S)
        if here > self._bin:
            self._bin, self._bin_rows = here, 0.0

    @property
    def rate_qps(self) -> float:
        """The rate now."""
        return self._rate

    @property
    def dispersion(self) -> float:
        """Variance over mean of the rows in a second, at least 1, which independent rows have."""
        return max(1.0, self._variance * BIN_S / self._mean) if self._mean > 0 else 1.0

    def expect(self, now: float, horizon_s: float) -> float:
        """The greatest rate expected between now and `horizon_s` seconds from now, at the quantile."""
        expected = self._expected(now, horizon_s)
        if not self._pending or now - self._pending[-1][0] + horizon_s >= BIN_S:
            self._pending.append((now + horizon_s, expected * self.margin))
        return self._surge(expected * self.margin)

    # ---- inside

    def _surge(self, least: float) -> float:
        """The greatest rate that was reached more than once lately, and left in between; at least so much."""
        rates = list(self._spells)
        least_height = max(least, _SURGE_ROWS / _SPELL_S)
        for height in sorted((x for x in rates if x > least_height), reverse=True):
            there, rises = rates[0] >= _AWAY * height, 0
            for rate in rates[1:]:
                if there:
                    there = rate >= _AWAY * height
                elif rate >= _BACK * height:
                    there, rises = True, rises + 1
            if rises > 1:
                return height
        return least

    def _expected(self, now: float, horizon_s: float) -> float:
        rise = max(0.0, self._slow - self._slower - _TREND_CHANCE * sqrt(self._rate * self.dispersion))
        level = max(self._rate, self._slow + rise) if rise > 0 else self._rate
        trend = _SLOW_SHARE / (1.0 - _SLOW_SHARE) * rise / BIN_S
        ahead = level + trend * min(horizon_s, TREND_S)
        before, later = self._day.get(_slot(now)), self._day.get(_slot(now + horizon_s))
        if before and later:
            ahead = max(ahead, level * min(2.0, later / before))
        return ahead

    def _close(self, rate: float, end: float) -> None:
        """Take in a bin that ended."""
        if not self._bins:
            self._fast = self._slow = self._slower = rate
        else:
            self._fast += (1.0 - exp(-BIN_S / _FAST_S)) * (rate - self._fast)
            self._slow += _SLOW_SHARE * (rate - self._slow)
            self._slower += _SLOW_SHARE * (self._slow - self._slower)
        self._average(rate)
        if int(end // _SPELL_S) > int((end - BIN_S) // _SPELL_S):
            self._spells.append(self._rate)
        self._spells[-1] = max(self._spells[-1], self._rate)
        slot = _slot(end)
        known = self._day.get(slot)
        self._day[slot] = self._slow if known is None else known + _DAY_LEARNING * BIN_S / SLOT_S * (self._slow - known)
        self._judge(end)

    def _average(self, rate: float) -> None:
        """Take a bin into the mean that is the rate, or begin it anew."""
        self._bins += 1.0
        memory_s = min(_LONG_S, max(_FAST_S, _ROWS / self._rate if self._rate > 0 else _LONG_S))
        self._rate += max(1.0 / self._bins, 1.0 - exp(-BIN_S / memory_s)) * (rate - self._rate)
        self._note_chance(rate)
        once = sqrt(self.dispersion)
        chance = once * (_SURPRISE * sqrt(self._rate / (2 * _FAST_S)) + 1.0 / _FAST_S)
        self._silent_s = 0.0 if rate > 0 else self._silent_s + BIN_S
        if abs(self._fast - self._rate) > chance or self._rate * self._silent_s > _SILENCE_ROWS:
            self._rate, self._bins = self._fast, 2 * _FAST_S / BIN_S

    def _note_chance(self, rate: float) -> None:
        """Learn the dispersion: half of the squared difference of neighbours is the variance, whatever the trend.

        A difference far beyond what is usual is a change of demand, and counts for no more than that.
        """
        share = 1.0 / _DISPERSION_BINS
        if self._bins > 1.0:
            usual = _USUAL * max(self._variance, self._mean, rate)
            self._variance += share * (min(0.5 * (rate - self._last) ** 2, usual) - self._variance)
            self._mean += share * (rate - self._mean)
        self._last = rate

    def _judge(self, now: float) -> None:
        """Compare what was expected for now with what is, and move the margin."""
        expected = inf
        while self._pending and self._pending[0][0] <= now:
            expected = self._pending.popleft()[1]
        if expected < inf:
            exceeded = self._rate > expected
            self.margin += _MARGIN_STEP * (self._quantile if exceeded else self._quantile - 1.0)
            self.margin = min(_MARGIN_MOST, max(1.0, self.margin))


def _slot(now: float) -> int:
    return int(now // SLOT_S) % _SLOTS
