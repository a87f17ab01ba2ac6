"""Builders with defaults, so that a test names only what matters."""

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
    WorkerType,
)
from infaas_ray.policy.routing import Catalog
from infaas_ray.simulator.catalogues import Measured, priced

CPU = WorkerType(name="cpu", resources={"CPU": 8}, memory_bytes=32 << 30, usd_per_hour=0.4)
GPU = WorkerType(name="gpu", resources={"CPU": 8, "GPU": 1}, memory_bytes=64 << 30, usd_per_hour=3.0)
SPOT = WorkerType(name="spot", resources={"CPU": 8}, memory_bytes=32 << 30, usd_per_hour=0.1, spot=True)
USE_CASE = UseCase(task="vision", dataset="things")


def architecture(name: str = "net") -> Architecture:
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
    return Architecture(name=name, use_case=USE_CASE, inputs=(tensor,), outputs=(tensor,))


def measured(
    name: str = "net",
    *,
    p50_s: float = 0.01,
    hardware: HardwareKind = HardwareKind.CPU,
    worker_types: tuple[str, ...] = ("cpu",),
) -> Measured:
    """A variant whose p99 is its median, on a machine of that hardware."""
    variant = Variant(architecture=name, runtime="onnx", precision="fp32", hardware=hardware, artifact="0" * 64)
    profile = Profile(
        variant=variant.name,
        hardware=Hardware(kind=hardware, model="test", cores=8, memory_bytes=1),
        load_s=1.0,
        latencies=(BatchLatency(batch=1, p50_s=p50_s, p95_s=p50_s, p99_s=p50_s),),
        saturation_qps=1 / p50_s,
        peak_memory_bytes=1 << 20,
        accuracy=Accuracy(value=0.9, metric="top1", rows=100, standard_error=0.01),
    )
    return variant, profile, worker_types


def catalog(*variants: Measured) -> Catalog:
    """A catalogue of these on a processor, a GPU and a spot machine."""
    return priced(
        {x.architecture: architecture(x.architecture) for x, _, _ in variants},
        variants,
        {x.name: x for x in (CPU, GPU, SPOT)},
    )
