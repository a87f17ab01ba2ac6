"""What every benchmark here shares: medians with spread, percentiles, and a description of the machine.

Rule: a number that is compared is the median of several repetitions, and its least and greatest stand next to it.
"""

import datetime
import math
import os
import platform
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of repetitions, with the least and the greatest."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{figure(self.median)} [{figure(self.least)}-{figure(self.greatest)}]"


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(median=statistics.median(values), least=min(values), greatest=max(values))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The spread of the ratios of two series that were measured in turns, repetition by repetition."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of an ascending, non-empty sequence lies: nearest rank, never invented."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def figure(value: float) -> str:
    """A number with three significant digits, readable from nanoseconds to millions."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def tidy_on_sigterm() -> None:
    """Let SIGTERM end the process by SystemExit, so that what was started is ended too. Only the first one counts."""

    def ended(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # make passes it on to those who had it already
        sys.exit("ended by SIGTERM")

    signal.signal(signal.SIGTERM, ended)


def machine() -> str:
    """Processor, cores, load at this moment, Python and date: what a number needs to be judged later."""
    load = os.getloadavg()[0]
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    python = platform.python_version()
    return f"{_processor()}, {os.cpu_count()} cores, load average {load:.1f}, Python {python}, {today}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine())
