"""The child process of `profiler`: loads one variant and measures it as a replica would run it.

Run as `python -m infaas_ray.variants.profile_job` by `jobs.run_job`. The framework is imported by the load that is
timed, so load time is that of a cold start without the interpreter's own.
"""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from infaas_ray.domain import Architecture, Array, BatchLatency, Hardware, HardwareKind, Variant
from infaas_ray.errors import InvalidModel
from infaas_ray.variants.jobs import Emit, serve_job
from infaas_ray.variants.runtime import LoadedModel, runtime_of

_WARM_UPS = 3
_FEWEST_RUNS, _LEAST_RUNS, _MOST_RUNS = 5, 20, 200
_ENOUGH_S, _TOO_LONG_S = 0.25, 3.0


class ProfileJob(msgspec.Struct, kw_only=True):
    """Measure `variant` from the file `artifact`.

    `sample` is an `.npz` of input rows for timing; `batches` are the batch sizes to time, none to skip timing.
    `rows`, if given, is an `.npz` of input rows whose first outputs are written to `outputs` (`.npy`).
    """

    artifact: str
    variant: Variant
    architecture: Architecture
    sample: str
    batches: list[int]
    rows: str | None
    outputs: str


class Measured(msgspec.Struct, kw_only=True):
    """What was measured; seconds and bytes."""

    load_s: float
    first_call_s: float
    latencies: list[BatchLatency]
    peak_memory_bytes: int
    versions: dict[str, str]
    hardware: Hardware


def work(job: ProfileJob, emit: Emit) -> None:
    """Load, call once, time each batch size, read the memory peak, then compute the rows."""
    with np.load(job.sample, allow_pickle=False) as file:
        sample = dict(file)
    runtime = runtime_of(job.variant)
    started = time.perf_counter()
    model = runtime.load(Path(job.artifact), job.variant, job.architecture)
    loaded = time.perf_counter()
    first = model.predict(_first_rows(sample, 1))
    called = time.perf_counter()
    _check(first, job.architecture, 1)
    latencies = [time_batch(model, _first_rows(sample, batch), batch) for batch in job.batches]
    measured = Measured(
        load_s=loaded - started,
        first_call_s=called - loaded,
        latencies=latencies,
        peak_memory_bytes=_peak_memory_bytes(),
        versions={"python": platform.python_version(), **runtime.versions()},
        hardware=hardware(job.variant.hardware),
    )
    if job.rows is not None:
        np.save(job.outputs, _compute(model, job))
    emit(measured)


def time_batch(model: LoadedModel, inputs: Mapping[str, Array], batch: int) -> BatchLatency:
    """Latency quantiles of one batch size, of 20 to 200 runs or about a quarter of a second.

    A batch so slow that 20 runs would take long gets fewer, but at least 5.
    """
    for _ in range(_WARM_UPS):
        model.predict(inputs)
    runs: list[float] = []
    spent = 0.0
    while not _enough(len(runs), spent):
        started = time.perf_counter()
        model.predict(inputs)
        runs.append(time.perf_counter() - started)
        spent += runs[-1]
    p50, p95, p99 = np.maximum.accumulate(np.percentile(runs, (50, 95, 99)))
    return BatchLatency(batch=batch, p50_s=float(p50), p95_s=float(p95), p99_s=float(p99))


def hardware(kind: HardwareKind) -> Hardware:
    """This machine; cores are those that this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = _gpu_model() if kind is HardwareKind.GPU else _cpu_model()
    return Hardware(kind=kind, model=model, cores=len(os.sched_getaffinity(0)), memory_bytes=memory)


def _enough(runs: int, spent_s: float) -> bool:
    slow = runs >= _FEWEST_RUNS and spent_s >= _TOO_LONG_S
    return runs >= _MOST_RUNS or slow or (runs >= _LEAST_RUNS and spent_s >= _ENOUGH_S)


def _first_rows(sample: Mapping[str, Array], count: int) -> dict[str, Array]:
    return {name: np.resize(array, (count, *array.shape[1:])) for name, array in sample.items()}


def _compute(model: LoadedModel, job: ProfileJob) -> Array:
    """First outputs of all rows, in batches as large as the variant takes."""
    name, limit = job.architecture.outputs[0].name, job.variant.batch_limit
    with np.load(str(job.rows), allow_pickle=False) as file:
        rows = dict(file)
    count = len(next(iter(rows.values())))
    parts = []
    for start in range(0, count, limit):
        batch = {key: array[start : start + limit] for key, array in rows.items()}
        parts.append(model.predict(batch)[name])
    return np.concatenate(parts)


def _check(outputs: Mapping[str, Array], architecture: Architecture, rows: int) -> None:
    for spec in architecture.outputs:
        found = outputs[spec.name]
        if found.dtype != spec.dtype or found.shape[:1] != (rows,) or found.ndim != len(spec.shape):
            raise InvalidModel(
                f"output {spec.name!r} is {found.dtype} of shape {list(found.shape)} for {rows} rows, "
                f"expected {spec.dtype} of shape {list(spec.shape)}"
            )


def _peak_memory_bytes() -> int:
    # Not getrusage: its peak includes that of the parent at the fork.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _gpu_model() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


if __name__ == "__main__":
    serve_job(ProfileJob, work)
