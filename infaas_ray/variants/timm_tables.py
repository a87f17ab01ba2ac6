"""Reads the result tables of timm (PyTorch Image Models) as a catalogue of thousands of variants for simulation.

`results-imagenet.csv` has the accuracy of each model; a `benchmark-infer-*.csv` its throughput on one machine at one
batch size, the largest that fits. Both are joined by the model's name up to the first dot, and the image size.

The tables tell one point of each latency curve. Rule: the curve is the line through that point and an assumed fixed
cost of a batch (`fixed_s`, the launch of its kernels), which never takes more than half of the point; quantiles above
the median, load time and memory are assumptions too, stated in `Machine`. Accuracy is marked as declared. Nothing of
this was measured here; it is for planning and simulation, not for serving.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infaas_ray.domain import (
    Accuracy,
    AccuracySource,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    LatencyFit,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
    WorkerType,
)
from infaas_ray.errors import InvalidInput
from infaas_ray.policy.routing import Catalog, Offer

IMAGENET = UseCase(task="image-classification", dataset="imagenet")
_SCORED_ROWS = 50_000
_CLASSES = 1000
_NO_ARTIFACT = "0" * 64
_BYTES_PER_WEIGHT, _BYTES_PER_ACTIVATION = 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One benchmark table and the machine of which it tells.

    `name` and `precision` become part of variant names. `fixed_s` is the assumed fixed cost of a batch; p95, p99 and
    p99.9 are the median times `tail`. A model loads at `load_bytes_per_s` after `load_fixed_s`. On a GPU it takes its
    weights, its activations and `context_bytes`.
    """

    name: str
    table: Path
    precision: str
    hardware: Hardware
    worker_type: WorkerType
    threads: int = 1
    fixed_s: float = 0.005
    tail: tuple[float, float, float] = (1.05, 1.1, 1.2)
    process_bytes: int = 1 << 30
    context_bytes: int = 1 << 29
    load_fixed_s: float = 2.0
    load_bytes_per_s: float = 1e9
    batch_limit: int = 64


def timm_catalog(results: Path, machines: Sequence[Machine], use_case: UseCase = IMAGENET) -> Catalog:
    """The catalogue of all models that are in `results` and in at least one machine's table, priced there.

    Raises InvalidInput for a file that is not such a table.
    """
    accuracies = _accuracies(results)
    architectures: dict[str, Architecture] = {}
    offers: dict[str, Offer] = {}
    for machine in machines:
        for row in _rows(machine.table, ("model", "infer_img_size", "infer_samples_per_sec", "infer_batch_size")):
            key = _key(row["model"], row["infer_img_size"])
            if key not in accuracies:
                continue
            architecture = _architecture(*key, use_case)
            architectures[architecture.name] = architecture
            variant = _variant(architecture, machine)
            profile = _profile(variant, machine, row, accuracies[key])
            price = machine.worker_type.usd_per_1k(variant, profile)
            offers.setdefault(variant.name, Offer(variant=variant, profile=profile, usd_per_1k=price))
    return Catalog(revision=0, architectures=architectures, offers=offers)


def _accuracies(path: Path) -> dict[tuple[str, int], float]:
    """Top-1 accuracy in 0..1 by model and image size; of several weights of one model, the first listed (the best)."""
    found: dict[tuple[str, int], float] = {}
    for row in _rows(path, ("model", "img_size", "top1")):
        found.setdefault(_key(row["model"], row["img_size"]), float(row["top1"]) / 100)
    return found


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = [x for x in columns if x not in (reader.fieldnames or ())]
            if missing:
                raise InvalidInput(f"{path.name} has no column {missing[0]!r}: it is not a table of timm's results")
            for row in reader:
                if all(row[x] for x in columns):
                    yield row
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error}") from None


def _key(model: str, size: str) -> tuple[str, int]:
    return model.split(".", 1)[0].lower(), int(float(size))


def _architecture(model: str, size: int, use_case: UseCase) -> Architecture:
    return Architecture(
        name=f"{model}-{size}",
        use_case=use_case,
        inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 3, size, size)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, _CLASSES)),),
    )


def _variant(architecture: Architecture, machine: Machine) -> Variant:
    return Variant(
        architecture=architecture.name,
        runtime=f"timm.{machine.name}",
        precision=machine.precision,
        hardware=machine.hardware.kind,
        threads=machine.threads,
        batch_limit=machine.batch_limit,
        artifact=_NO_ARTIFACT,
    )


def _profile(variant: Variant, machine: Machine, row: Mapping[str, str], accuracy: float) -> Profile:
    batch, rate = int(float(row["infer_batch_size"])), float(row["infer_samples_per_sec"])
    weights = float(row.get("param_count") or 0) * 1e6 * _BYTES_PER_WEIGHT
    activations = float(row.get("infer_macts") or 0) * 1e6 * _BYTES_PER_ACTIVATION * variant.batch_limit
    fixed = min(machine.fixed_s, batch / rate / 2)
    per_row = (batch / rate - fixed) / batch
    on_gpu = machine.hardware.kind is HardwareKind.GPU
    sizes = sorted({min(1 << power, variant.batch_limit) for power in range(variant.batch_limit.bit_length() + 1)})
    latencies = tuple(_latency(size, fixed + per_row * size, machine.tail) for size in sizes)
    return Profile(
        variant=variant.name,
        hardware=machine.hardware,
        load_s=machine.load_fixed_s + weights / machine.load_bytes_per_s,
        latencies=latencies,
        saturation_qps=max(x.batch / x.p50_s for x in latencies),
        peak_memory_bytes=int(machine.process_bytes + weights + activations),
        peak_device_memory_bytes=int(machine.context_bytes + weights + activations) if on_gpu else 0,
        accuracy=Accuracy(
            value=accuracy,
            metric="top1_accuracy",
            rows=_SCORED_ROWS,
            standard_error=(accuracy * (1 - accuracy) / _SCORED_ROWS) ** 0.5,
            source=AccuracySource.DECLARED,
        ),
        versions={"table": machine.table.name},
        fit=LatencyFit(fixed_s=fixed, per_row_s=per_row, median_error=0.0, p95_error=0.0),
    )


def _latency(batch: int, median_s: float, tail: tuple[float, float, float]) -> BatchLatency:
    p95, p99, p999 = (median_s * x for x in tail)
    return BatchLatency(batch=batch, p50_s=median_s, p95_s=p95, p99_s=p99, p999_s=p999)
