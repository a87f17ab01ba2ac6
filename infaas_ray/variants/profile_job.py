"""The child process of `profiler`: loads one variant and measures it as a replica would run it.

Run as `python -m infaas_ray.variants.profile_job` by `jobs.run_job`. The framework is imported by the load that is
timed, so load time is that of a cold start without the interpreter's own.
"""

import platform
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from infaas_ray.domain import Architecture, Array, BatchLatency, Hardware, HardwareKind, Variant
from infaas_ray.errors import InvalidModel
from infaas_ray.variants.jobs import Emit, serve_job
from infaas_ray.variants.machine import forget_cached, gpu_used_bytes, hardware, memory_bytes
from infaas_ray.variants.runtime import LoadedModel, Runtime, runtime_of
from infaas_ray.variants.timing import first_rows, time_batches


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
    """What was measured; seconds and bytes. `warm_load_s` is None where nothing was timed."""

    load_s: float
    first_call_s: float
    warm_load_s: float | None
    latencies: list[BatchLatency]
    baseline_memory_bytes: int
    peak_memory_bytes: int
    peak_device_memory_bytes: int
    outside_load: float
    versions: dict[str, str]
    hardware: Hardware


def work(job: ProfileJob, emit: Emit) -> None:
    """Load, call once, time the batch sizes, read the memory peak, compute the rows, then load once more."""
    with np.load(job.sample, allow_pickle=False) as file:
        sample = dict(file)
    runtime, one = runtime_of(job.variant), first_rows(sample, 1)
    forget_cached(Path(job.artifact))
    on_gpu = job.variant.hardware is HardwareKind.GPU
    baseline, device_before = memory_bytes("VmRSS"), gpu_used_bytes() if on_gpu else 0
    model, load_s, first_call_s = _load(runtime, job, one)
    timed = time_batches(model, sample, job.batches, threads=0 if on_gpu else job.variant.threads)
    peak, device_peak = memory_bytes("VmHWM"), model.device_memory_bytes()
    if on_gpu:  # the driver knows of the context and of libraries, too
        device_peak = max(device_peak, gpu_used_bytes() - device_before)
    if job.rows is not None:
        np.save(job.outputs, _compute(model, job))
    model.close()
    emit(
        Measured(
            load_s=load_s,
            first_call_s=first_call_s,
            warm_load_s=_warm_load_s(runtime, job, one) if job.batches else None,
            latencies=timed.latencies,
            baseline_memory_bytes=baseline,
            peak_memory_bytes=peak,
            peak_device_memory_bytes=device_peak,
            outside_load=timed.outside_load,
            versions={"python": platform.python_version(), **runtime.versions()},
            hardware=hardware(job.variant.hardware),
        )
    )


def _load(runtime: Runtime, job: ProfileJob, one: Mapping[str, Array]) -> tuple[LoadedModel, float, float]:
    """The model, the seconds of its load and those of its first call."""
    started = time.perf_counter()
    model = runtime.load(Path(job.artifact), job.variant, job.architecture)
    loaded = time.perf_counter()
    first = model.predict(one)
    called = time.perf_counter()
    _check(first, job.architecture, 1)
    return model, loaded - started, called - loaded


def _warm_load_s(runtime: Runtime, job: ProfileJob, one: Mapping[str, Array]) -> float:
    model, load_s, first_call_s = _load(runtime, job, one)
    model.close()
    return load_s + first_call_s


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


if __name__ == "__main__":
    serve_job(ProfileJob, work)
