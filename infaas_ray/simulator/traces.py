"""Recorded workloads: reads the formats in which public traces come, and cuts, cleans and scales them.

Counts per time step become rates, out of which arrivals are drawn anew; one row per query is taken as it is. Files
ending in `.gz` are read as they are. A wrong file raises InvalidInput that names it, and the line where that helps.
"""

import csv
import gzip
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf, isfinite
from pathlib import Path
from typing import Literal, TextIO

import numpy as np

from infaas_ray.errors import InvalidInput
from infaas_ray.simulator.rates import BLOCK, MOST_STEPS, Floats, positive

_AZURE_COLUMNS = ("HashOwner", "HashApp", "HashFunction", "Trigger")
_MINUTE_S = 60.0
_ENCODING = "utf-8-sig"  # with the mark that some programs begin a file with, or without
_MOST_COUNT = 1e12
_SECONDS: dict[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Queries per second, one number for each step of `step_s` seconds. It is a `Rates`."""

    qps: Floats
    step_s: float

    def __post_init__(self) -> None:
        positive(step_s=self.step_s)
        if self.qps.ndim != 1 or not len(self.qps) or not np.all(np.isfinite(self.qps)) or np.any(self.qps < 0):
            raise InvalidInput("a trace is a row of rates, each 0 or more, and not empty")

    @property
    def duration_s(self) -> float:
        """See Rates."""
        return len(self.qps) * self.step_s

    @property
    def mean_qps(self) -> float:
        """The mean rate."""
        return float(self.qps.mean())

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """See Rates."""
        for first in range(0, len(self.qps), BLOCK):
            yield self.qps[first : first + BLOCK]

    def window(self, from_s: float, until_s: float) -> "Trace":
        """The part between two times; steps count as a whole."""
        part = self.qps[int(from_s // self.step_s) : int(np.ceil(until_s / self.step_s))]
        if from_s < 0 or not len(part):
            raise InvalidInput(f"the trace of {self.duration_s:g} s has nothing from {from_s:g} to {until_s:g} s")
        return replace(self, qps=part)

    def scaled(self, *, mean_qps: float | None = None, peak_qps: float | None = None) -> "Trace":
        """All rates times one factor, so that the mean or the greatest becomes this."""
        if (mean_qps is None) == (peak_qps is None):
            raise InvalidInput("scale to a mean or to a peak")
        positive(**{"mean_qps" if peak_qps is None else "peak_qps": mean_qps or peak_qps or 0.0})
        now = self.mean_qps if peak_qps is None else float(self.qps.max())
        if now <= 0:
            raise InvalidInput("a trace without queries cannot be scaled")
        return replace(self, qps=self.qps * ((mean_qps or peak_qps or 0.0) / now))

    def thinned(self, share: float) -> "Trace":
        """As if each query had been kept with this probability."""
        if not 0 < share <= 1:
            raise InvalidInput(f"a share to keep is above 0 and at most 1, not {share!r}")
        return replace(self, qps=self.qps * share)

    def faster(self, speed: float) -> "Trace":
        """The same rates in less time: a day in an hour where `speed` is 24."""
        positive(speed=speed)
        return replace(self, step_s=self.step_s / speed)

    def smoothed(self, step_s: float) -> "Trace":
        """Means over longer steps; what is left of a last one is dropped."""
        size = round(step_s / self.step_s)
        if size < 1 or size > len(self.qps):
            raise InvalidInput(f"steps of {step_s:g} s do not fit a trace with steps of {self.step_s:g} s")
        whole = self.qps[: len(self.qps) // size * size]
        return Trace(qps=whole.reshape(-1, size).mean(axis=1), step_s=size * self.step_s)

    def without_gaps(self, least_s: float, how: Literal["cut", "bridge"] = "cut") -> "Trace":
        """Where nothing was recorded for `least_s` seconds or longer, the recorder was off, not the users.

        "cut" takes such runs of zeros out; "bridge" replaces them by a line from the step before to the one after.
        """
        qps = self.qps.copy()
        positive(gap_s=least_s)
        gap = np.zeros(len(qps), dtype=bool)
        for first, end in _zero_runs(qps):
            if (end - first) * self.step_s >= least_s:
                gap[first:end] = True
        if gap.all():
            raise InvalidInput("the trace is one gap")
        if how == "cut":
            return replace(self, qps=qps[~gap])
        places = np.arange(len(qps))
        qps[gap] = np.interp(places[gap], places[~gap], qps[~gap])
        return replace(self, qps=qps)


def _zero_runs(numbers: Floats) -> list[tuple[int, int]]:
    """Runs of zeros as (first, one past the last)."""
    edges = np.diff(np.concatenate(([0], (numbers == 0).astype(np.int8), [0])))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    try:
        with (
            gzip.open(path, "rt", encoding=_ENCODING, newline="")
            if path.suffix == ".gz"
            else path.open(encoding=_ENCODING, newline="")
        ) as file:
            yield file
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from None


def read_counts(path: Path, step_s: float = 1.0) -> Trace:
    """A file with one count of queries a line, each for `step_s` seconds. Empty lines are no steps."""
    counts: list[float] = []
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                counts.append(_number(line, path, number))
    if not counts:
        raise InvalidInput(f"{path} holds no counts")
    return Trace(qps=np.asarray(counts) / step_s, step_s=step_s)


def _number(text: str, path: Path, line: int) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _MOST_COUNT:
        raise InvalidInput(f"{path}, line {line}: {text.strip()!r} is not a count")
    return number


def read_azure(paths: Sequence[Path], most: int = 1) -> dict[str, Trace]:
    """Invocations of Azure Functions: one file a day, one row a function, one column a minute.

    The `most` functions with the most invocations over all days, by falling number, each under its hash. A function
    that has no row on a day had no invocations. Two passes, so that memory grows with `most`, not with the rows.
    Format: the public dataset "Azure Functions Invocation Trace 2019" (`invocations_per_function_md.anon.dNN.csv`).
    """
    totals: Counter[str] = Counter()
    lengths: list[int] = []
    for path in paths:
        minutes = 0
        for name, counts in _azure_rows(path):
            totals[name] += int(counts.sum())
            minutes = len(counts)
        if not minutes:
            raise InvalidInput(f"{path} holds no functions")
        lengths.append(minutes)
    chosen = [name for name, _ in sorted(totals.items(), key=lambda x: (-x[1], x[0]))[:most]]
    found = {name: [np.zeros(x) for x in lengths] for name in chosen}
    for day, path in enumerate(paths):
        for name, counts in _azure_rows(path):
            if name in found:
                found[name][day] += counts
    return {name: Trace(qps=np.concatenate(days) / _MINUTE_S, step_s=_MINUTE_S) for name, days in found.items()}


def _azure_rows(path: Path) -> Iterator[tuple[str, Floats]]:
    with _open(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header[:4]) != _AZURE_COLUMNS or len(header) < 5:
            raise InvalidInput(f"{path} does not begin with the columns {', '.join(_AZURE_COLUMNS)}, 1, 2, ...")
        for row in reader:
            if len(row) != len(header):
                raise InvalidInput(f"{path}, line {reader.line_num}: {len(row)} columns instead of {len(header)}")
            yield row[2], np.asarray([_number(x or "0", path, reader.line_num) for x in row[4:]])


def read_queries(path: Path, column: str, unit: Literal["s", "ms", "us", "ns", "iso"] = "s") -> Floats:
    """A CSV file with one row a query: the times in `column`, in seconds from the first, ascending.

    `unit` is that of the numbers; "iso" reads dates such as 2024-05-12 10:00:00.25, in UTC where they do not say
    otherwise. Times that fall are sorted.
    """
    times = array("d")
    with _open(path) as file:
        reader = csv.DictReader(file)
        if column not in (reader.fieldnames or ()):
            raise InvalidInput(f"{path} has no column {column!r}; it has {', '.join(reader.fieldnames or ['none'])}")
        times.extend(_time(row[column], unit, path, reader.line_num) for row in reader)
    if not times:
        raise InvalidInput(f"{path} holds no queries")
    found: Floats = np.sort(np.frombuffer(times))
    found -= found[0]
    return found


def _time(text: str, unit: str, path: Path, line: int) -> float:
    try:
        if unit == "iso":
            date = datetime.fromisoformat(text.strip())
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        time_s = float(text) * _SECONDS[unit]
    except (ValueError, AttributeError, TypeError):
        time_s = inf
    if not isfinite(time_s):
        raise InvalidInput(f"{path}, line {line}: {text!r} is not a time in {unit}")
    return time_s


def counted(times: Floats, step_s: float = 1.0) -> Trace:
    """Times of queries as rates per step, to be scaled or drawn anew."""
    positive(step_s=step_s)
    if times[-1] / step_s > MOST_STEPS:
        raise InvalidInput(
            f"the queries are {times[-1]:.3g} s apart, too long for steps of {step_s:g} s: is the unit right?"
        )
    counts = np.bincount((times // step_s).astype(np.int64))
    return Trace(qps=counts / step_s, step_s=step_s)


def thinned(times: Floats, share: float, rng: np.random.Generator) -> Floats:
    """Times of queries, each kept with this probability."""
    if not 0 < share <= 1:
        raise InvalidInput(f"a share to keep is above 0 and at most 1, not {share!r}")
    return times[rng.random(len(times)) < share]
