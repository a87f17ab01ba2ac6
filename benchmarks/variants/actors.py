"""What a variant's actor really uses in service, against what its profile says.

A running system is asked by variant name, batches of every size; then the peak of the replica's process is read. An
empty actor is measured beside them: a replica of the fake runtime, which loads nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.serving.ours import free_port
from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import Accuracy, Architecture, BatchLatency, HardwareKind, Profile, TensorSpec, UseCase, Variant
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import repository_at
from infaas_ray.variants.fake_runtime import FakeLatency, FakeModel
from infaas_ray.variants.machine import hardware, memory_bytes
from infaas_ray.variants.profiler import ACTOR_BYTES
from infaas_ray.variants.timing import batch_sizes

EMPTY = "empty"
_RUNS = 10
_TENSOR = TensorSpec(name="x", datatype="FP32", shape=(-1, 1))


@contextmanager
def serving(home: Path) -> Iterator[tuple[Settings, System]]:
    """A system of its own that offers all that is registered in `home`, and an empty actor's variant."""
    flags = {"home": home.resolve(), "http": {"port": free_port()}}
    settings = load_settings(flags=flags, environment={})
    metadata = Metadata(settings.metadata_url)
    try:
        _add_empty(metadata, settings, home)
        offered = {name: [x for x, _ in metadata.variants(name, offered=True)] for name in metadata.architectures()}
        for name in offered:
            metadata.offer(name, {x.name for x, _ in metadata.variants(name)})
        launch.up(settings)
        try:
            with launch.open_system(settings) as system:
                yield settings, system
        finally:
            launch.down(settings)
            for name, variants in offered.items():
                metadata.offer(name, {x.name for x in variants})
            metadata.remove_architecture(EMPTY)
    finally:
        metadata.close()


def peak_bytes(settings: Settings, system: System, variant: Variant, rows: Mapping[str, np.ndarray]) -> int:
    """The most memory that the variant's replica has used, after batches of all its sizes."""
    replica = ""
    for batch in batch_sizes(variant.batch_limit):
        inputs = {name: x[:batch] for name, x in rows.items()}
        for _ in range(_RUNS):
            replica = system.query(variant.name, inputs, on_miss="late").replica
    [pid] = [x["pid"] for x in launch.status(settings)["replicas"] if x["replica"] == replica]
    return memory_bytes("VmHWM", pid)


def memory_errors(
    variants: Sequence[tuple[Variant, Profile]], architecture: Architecture, home: Path, validation: Path
) -> dict[str, dict[str, float]]:
    """By variant, and `empty` for an actor without a model: megabytes profiled and used, and the relative error."""
    with np.load(validation, allow_pickle=False) as file:
        rows = {x.name: file[x.name] for x in architecture.inputs}
    found = {}
    with serving(home) as (settings, system):
        empty = _empty_variant("0" * 64)
        used = {EMPTY: peak_bytes(settings, system, empty, {"x": np.zeros((1, 1), np.float32)})}
        used |= {v.name: peak_bytes(settings, system, v, rows) for v, _ in variants}
    profiled = {EMPTY: ACTOR_BYTES, **{v.name: p.peak_memory_bytes for v, p in variants}}
    for name, actual in used.items():
        error = abs(profiled[name] - actual) / actual
        found[name] = {"profiled_mb": profiled[name] / 1e6, "used_mb": actual / 1e6, "error": error}
    return found


def _empty_variant(artifact: str) -> Variant:
    return Variant(architecture=EMPTY, runtime="fake", precision="fp32", batch_limit=1, artifact=artifact)


def _add_empty(metadata: Metadata, settings: Settings, folder: Path) -> None:
    """Register a fake variant that gives its input back."""
    file = folder / "empty.json"
    model = FakeModel(outputs={"y": "x"}, latency_s=FakeLatency(fixed=0.0001, per_row=0.0), load_s=0.0)
    file.write_bytes(msgspec.json.encode(model))
    variant = _empty_variant(repository_at(settings.repository).put(file))
    output = TensorSpec(name="y", datatype="FP32", shape=(-1, 1))
    metadata.add_architecture(
        Architecture(name=EMPTY, use_case=UseCase(task="nothing", dataset="none"), inputs=(_TENSOR,), outputs=(output,))
    )
    latency = BatchLatency(batch=1, p50_s=0.001, p95_s=0.001, p99_s=0.001)
    profile = Profile(
        variant=variant.name,
        hardware=hardware(HardwareKind.CPU),
        load_s=0.01,
        latencies=(latency,),
        saturation_qps=1000.0,
        peak_memory_bytes=ACTOR_BYTES,
        accuracy=Accuracy(value=1.0, metric="top1_accuracy", rows=0, standard_error=0.0),
    )
    metadata.put_variant(variant, profile)
