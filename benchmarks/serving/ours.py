"""Our system under measurement: registration of the workloads, one system per workload, and its doors.

One replica with one thread serves each workload, as in the peers: the scaling strategy is static here.
"""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from infaas_ray.config import Settings, load_settings
from infaas_ray.demo.models import DemoModel
from infaas_ray.domain import (
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
)
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import repository_at
from infaas_ray.variants.fake_runtime import FakeModel
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.registration import register

if TYPE_CHECKING:
    from infaas_ray.serving.head import Run

BATCH = 16
LARGE_FLOATS = 3 * 224 * 224  # 602 KB, an image
_NOOP_S = {1: 20e-6, BATCH: 40e-6}  # about what the fake runtime takes to repeat its input


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def bench_settings(home: Path, *keep_warm: str) -> Settings:
    """Settings of a benchmark's system: a free port, and exactly one replica of each of `keep_warm`."""
    scaling = {"strategy": "static", "max_replicas_per_variant": 1, "keep_warm": dict.fromkeys(keep_warm, 1)}
    flags = {"home": home.resolve(), "http": {"port": free_port()}, "cluster": {"cpus": 2}, "scaling": scaling}
    return load_settings(flags=flags, environment={})


def register_onnx(settings: Settings, model: DemoModel) -> None:
    """Make and measure the fp32 ONNX variant of one thread."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Metadata(settings.metadata_url)) as metadata:
        register(
            model.path,
            architecture=model.architecture,
            use_case=UseCase(task=model.task, dataset=model.dataset),
            validation=model.validation,
            metric=model.metric,
            metadata=metadata,
            repository=repository_at(settings.repository),
            options=GenerationOptions(threads=(1,), batch_limit=BATCH, recipes=("onnxruntime-fp32",)),
        )


def artifact_of(settings: Settings, architecture: str) -> Path | None:
    """The model file of the only variant of an architecture; None where it is not registered."""
    if not settings.home.exists():
        return None
    with contextlib.closing(Metadata(settings.metadata_url)) as metadata:
        found = metadata.variants(architecture)
    return repository_at(settings.repository).fetch(found[0][0].artifact) if found else None


def register_noop(settings: Settings) -> None:
    """Offer `noop` (4 floats in, the same out) and `noop-large` (600 KB in, one float out).

    Both are the fake runtime, which takes no time here.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Metadata(settings.metadata_url)) as metadata:
        if not metadata.variants("noop"):
            _offer(settings, metadata, "noop", (4, 4), FakeModel(outputs={"y": "x"}))
            _offer(settings, metadata, "noop-large", (LARGE_FLOATS, 1), FakeModel(outputs={"y": 0.0}))


def _offer(settings: Settings, metadata: Metadata, name: str, widths: tuple[int, int], model: FakeModel) -> None:
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, widths[0]))
    y = TensorSpec(name="y", datatype="FP32", shape=(-1, widths[1]))
    file = settings.home / f"{name}.json"
    file.write_bytes(msgspec.json.encode(model))
    variant = Variant(
        architecture=name,
        runtime="fake",
        precision="fp32",
        batch_limit=BATCH,
        artifact=repository_at(settings.repository).put(file),
        artifact_bytes=file.stat().st_size,
    )
    use_case = UseCase(task=f"{name}-task", dataset="numbers")
    metadata.add_architecture(Architecture(name=name, use_case=use_case, inputs=(x,), outputs=(y,)))
    metadata.put_variant(variant, _noop_profile(variant))


def _noop_profile(variant: Variant) -> Profile:
    points = tuple(BatchLatency(batch=n, p50_s=s, p95_s=s * 1.5, p99_s=s * 2) for n, s in _NOOP_S.items())
    return Profile(
        variant=variant.name,
        hardware=Hardware(kind=HardwareKind.CPU, model="fake", cores=1, memory_bytes=2**34),
        load_s=0.01,
        latencies=points,
        saturation_qps=BATCH / points[-1].p50_s,
        peak_memory_bytes=80 * 2**20,
        accuracy=Accuracy(value=1.0, metric="top1_accuracy", rows=1000, standard_error=0.0),
    )


@contextlib.contextmanager
def running(settings: Settings) -> Iterator["Run"]:
    """A system of ours for a while."""
    from infaas_ray.serving import launch

    launch.down(settings)  # one that a broken run has left behind
    run = launch.up(settings)
    try:
        yield run
    finally:
        launch.down(settings)


def doors(run: "Run") -> dict[str, tuple[str, int]]:
    """Host and port of each door: behind Ray Serve, and the router's own where this version has one."""
    found = {"ours (Serve door)": run.url, "ours (own port)": getattr(run, "direct_url", None) or run.url}
    if found["ours (own port)"] == run.url:
        found.pop("ours (own port)")
    return {name: _place(url) for name, url in found.items()}


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
