"""Driver part: queries per second of one Python program, through our driver and by plain Ray actor calls.

Small queries carry 4 floats, large ones 602 KB; both models take no time. Each side runs on a Ray cluster of its own,
measured in turns.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.serving import ours
from benchmarks.serving.generator import MeasurementFailed
from benchmarks.serving.http import Options
from infaas_ray.domain import Answer
from infaas_ray.serving.driver import System

SIZES = ("small", "large")
_ROWS = {"small": 4096, "large": 64}
_WINDOW = {"small": 1000, "large": 32}
_TARGET = {"small": "noop", "large": "noop-large"}
_WIDTH = {"small": 4, "large": ours.LARGE_FLOATS}


@dataclass(slots=True, kw_only=True)
class DriverRates:
    """Queries per second by size, per repetition."""

    ours: dict[str, list[float]] = field(default_factory=lambda: {x: [] for x in SIZES})
    ray: dict[str, list[float]] = field(default_factory=lambda: {x: [] for x in SIZES})


def measure_driver(options: Options) -> DriverRates:
    """Both sides, `repetitions` times."""
    from infaas_ray.serving.launch import open_system

    found = DriverRates()
    settings = ours.bench_settings(options.cache / "noop", *_TARGET.values())
    ours.register_noop(settings)
    options.say("driver: starting ours and Ray")
    with ours.running(settings), _ray_calls(options.cache / "logs") as calls, open_system(settings) as system:
        for size in SIZES:
            _until_ready(system, size)
            our_rate(system, size, 0.5)
            _ray_rate(calls, size, 0.5)
        for repetition in range(options.repetitions):
            options.repetition("driver", repetition)
            for size in SIZES:
                found.ours[size].append(our_rate(system, size, options.seconds))
                found.ray[size].append(_ray_rate(calls, size, options.seconds))
    return found


def our_rate(system: System, size: str, seconds: float) -> float:
    """Queries per second of `query_many`. Raises MeasurementFailed where one is not answered."""
    rows = np.zeros((_ROWS[size], _WIDTH[size]), np.float32)
    started = time.perf_counter()
    done = 0
    while (passed := time.perf_counter() - started) < seconds:
        for outcome in system.query_many(_TARGET[size], {"x": rows}, window=_WINDOW[size]):
            if not isinstance(outcome, Answer):
                raise MeasurementFailed(f"our driver got {outcome!r}")
            done += 1
    return done / passed


def _until_ready(system: System, size: str) -> None:
    """Wait for the replica: a query for a model that is still loading waits by itself, one that is unknown fails."""
    end = time.monotonic() + 60.0
    x = np.zeros((1, _WIDTH[size]), np.float32)
    while time.monotonic() < end:
        if all(isinstance(y, Answer) for y in system.query_many(_TARGET[size], {"x": x})):
            return
        time.sleep(0.2)
    raise MeasurementFailed(f"{_TARGET[size]} did not become ready")


@contextlib.contextmanager
def _ray_calls(logs: Path) -> Iterator["subprocess.Popen[str]"]:
    script = Path(__file__).parent / "peers" / "ray_calls.py"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"
    environment["RAY_worker_niceness"] = "0"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "ray-calls.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ray_rate(process: "subprocess.Popen[str]", size: str, seconds: float) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{size} {seconds}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise MeasurementFailed(f"plain Ray calls failed with code {process.wait()}; see ray-calls.log")
    return float(line)
