"""The nouns of model-less serving, as frozen values that check themselves.

use case (task + dataset) → architecture (a trained network) → variant (architecture x runtime x precision x
hardware x threads x batch limit) → profile (what was measured of it). A query names a target (any of the first
three) and an SLO; an answer says who answered.

Rules: seconds, bytes and US dollars as floats or ints with the unit in the name; names are lower-case and
unambiguous; a wrong value raises `InvalidInput` where it is made, so nothing behind the border re-checks.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from infaas_ray.errors import InvalidInput

Array = np.ndarray[Any, np.dtype[Any]]

MOST_BATCH = 4096  # rows that a variant can take at once
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_APPLICATION = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Open Inference Protocol datatype -> NumPy dtype name. BYTES is absent on purpose: variants take numbers.
DATATYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
DATATYPE_OF: Mapping[str, str] = {dtype: name for name, dtype in DATATYPES.items()}
_BY_DTYPE = {np.dtype(dtype): name for name, dtype in DATATYPES.items()}


def datatype_of(array: Array) -> str:
    """The protocol's datatype of an array. Raises InvalidInput where it has none."""
    try:
        return _BY_DTYPE[array.dtype]
    except KeyError:
        raise InvalidInput(f"arrays of {array.dtype.name} cannot be sent; supported: {', '.join(DATATYPES)}") from None


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{what} {name!r} is not a valid name: use 1 to 100 of a-z, 0-9, '.', '_', '-', "
            "starting with a letter or digit"
        )


def application_name(name: object) -> str:
    """The name of an application, for the accounts; empty where there is none. Raises InvalidInput for a wrong one."""
    if name == "":
        return ""
    if not isinstance(name, str) or not _APPLICATION.fullmatch(name):
        raise InvalidInput(f"application must be 1 to 64 of a-z, A-Z, 0-9, '.', '_', '-', not {name!r:.80}")
    return name


def _check_number(
    what: str, value: float | None, low: float, high: float = math.inf, *, open_low: bool = False
) -> None:
    if value is None:
        return
    wrong_type = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong_type or math.isnan(value) or not low <= value <= high or (open_low and value == low):
        least = f"above {low:g}" if open_low else f"at least {low:g}"
        most = "" if high == math.inf else f" and at most {high:g}"
        raise InvalidInput(f"{what} must be a number {least}{most}, not {value!r}")


class HardwareKind(StrEnum):
    """What a replica computes on."""

    CPU = "cpu"
    GPU = "gpu"
    NEURON = "neuron"


class Level(StrEnum):
    """How specific a target is, from least to most."""

    USE_CASE = "use_case"
    ARCHITECTURE = "architecture"
    VARIANT = "variant"


class OnMiss(StrEnum):
    """What to do with a query whose SLO no replica can meet right now."""

    REJECT = "reject"  # refuse at once, with reasons
    DEGRADE = "degrade"  # answer with less accuracy than asked, in time
    LATE = "late"  # answer as soon as possible, and call it late


class AccuracySource(StrEnum):
    """How an accuracy came to be known."""

    MEASURED = "measured"
    DECLARED = "declared"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: its name, Open Inference Protocol datatype, and shape with -1 for a free dimension.

    The first dimension is the batch, always free.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.datatype not in DATATYPES:
            raise InvalidInput(
                f"tensor {self.name!r} has datatype {self.datatype!r}; supported: {', '.join(DATATYPES)}"
            )
        if not self.shape or self.shape[0] != -1:
            raise InvalidInput(
                f"tensor {self.name!r} has shape {list(self.shape)}: the first dimension must be the batch, free (-1)"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return np.dtype(DATATYPES[self.datatype])

    def check(self, array: Array) -> None:
        """Raise InvalidInput unless `array` has this dtype and fits this shape."""
        if array.dtype != self.dtype:
            raise InvalidInput(f"input {self.name!r} has datatype {datatype_of(array)}, expected {self.datatype}")
        fits = array.ndim == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, array.shape, strict=True)
        )
        if not fits or 0 in array.shape:
            raise InvalidInput(
                f"input {self.name!r} has shape {list(array.shape)}, expected {list(self.shape)} "
                "(-1: any length from 1)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCase:
    """What an application wants done: a task on a kind of data. Architectures serve exactly one."""

    task: str
    dataset: str

    def __post_init__(self) -> None:
        _check_name("task", self.task)
        _check_name("dataset", self.dataset)

    @property
    def name(self) -> str:
        """`task:dataset`, by which queries name it."""
        return f"{self.task}:{self.dataset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A trained network, with the tensors it takes and gives."""

    name: str
    use_case: UseCase
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        _check_name("architecture", self.name)
        if not self.inputs or not self.outputs:
            raise InvalidInput(f"architecture {self.name!r} needs at least one input and one output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One executable form of an architecture. `artifact` is the SHA-256 of the stored model file."""

    architecture: str
    runtime: str
    precision: str
    hardware: HardwareKind = HardwareKind.CPU
    threads: int = 1
    batch_limit: int = 16
    artifact: str
    artifact_bytes: int = 0

    def __post_init__(self) -> None:
        _check_name("architecture", self.architecture)
        _check_name("runtime", self.runtime)
        _check_name("precision", self.precision)
        _check_number("threads", self.threads, 1, 1024)
        _check_number("batch_limit", self.batch_limit, 1, MOST_BATCH)
        if not re.fullmatch(r"[0-9a-f]{64}", self.artifact):
            raise InvalidInput(f"artifact {self.artifact!r} is not a SHA-256 in hexadecimal")

    @property
    def name(self) -> str:
        """`architecture@runtime-precision-hardware-tN-bN`, unique and readable."""
        return (
            f"{self.architecture}@{self.runtime}-{self.precision}-{self.hardware}-t{self.threads}-b{self.batch_limit}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The machine on which a profile was measured."""

    kind: HardwareKind
    model: str
    cores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLatency:
    """Latency quantiles of one batch size over `runs` runs, in seconds.

    Fewer than 1,000 runs cannot tell p99.9 from their maximum. `p999_s` is None and `runs` 0 where nobody said.
    """

    batch: int
    p50_s: float
    p95_s: float
    p99_s: float
    p999_s: float | None = None
    runs: int = 0

    def __post_init__(self) -> None:
        _check_number("batch", self.batch, 1)
        _check_number("p50_s", self.p50_s, 0, open_low=True)
        if not self.p50_s <= self.p95_s <= self.p99_s <= (self.p99_s if self.p999_s is None else self.p999_s):
            raise InvalidInput(f"latency quantiles of batch {self.batch} must not decrease from p50 to p99.9")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFit:
    """The median latency of any batch size as `fixed_s` + `per_row_s` x rows.

    Between measured sizes a profile interpolates; the line serves beyond them. `median_error` and `p95_error` are the
    relative errors of that whole prediction at each measured size when it alone is left out.
    """

    fixed_s: float
    per_row_s: float
    median_error: float
    p95_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """An accuracy in 0..1 under a named metric, over `rows` scored rows, and whether it was measured or declared.

    `fidelity` is the mean cosine of the outputs to the reference variant's; None for the reference itself.
    """

    value: float
    metric: str
    rows: int
    standard_error: float
    source: AccuracySource = AccuracySource.MEASURED
    fidelity: float | None = None

    def __post_init__(self) -> None:
        _check_number("accuracy", self.value, 0, 1)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval by Wilson's score, which stays in 0..1; None where nothing was scored.

        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
        """
        if self.rows < 1:
            return None
        z, n, p = 1.959964, self.rows, self.value
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What was measured of one variant on one kind of hardware.

    `latencies` are sorted by batch size and start at 1. `saturation_qps` is the highest rate of single-row
    queries at any batch size. `load_s` is that of a fresh process whose file is on disk, first call included;
    `warm_load_s` that of a second load in the same process. `peak_memory_bytes` is that of a replica's
    process in service, of which `baseline_memory_bytes` are there before the load; a device's own memory is apart.
    `outside_load` is how many cores other processes kept busy meanwhile.
    """

    variant: str
    hardware: Hardware
    load_s: float
    latencies: tuple[BatchLatency, ...]
    saturation_qps: float
    peak_memory_bytes: int
    accuracy: Accuracy
    versions: Mapping[str, str] = field(default_factory=dict)
    measured_at: str = ""
    warm_load_s: float | None = None
    baseline_memory_bytes: int = 0
    peak_device_memory_bytes: int = 0
    outside_load: float | None = None
    fit: LatencyFit | None = None

    def __post_init__(self) -> None:
        batches = [x.batch for x in self.latencies]
        if not batches or batches[0] != 1 or batches != sorted(set(batches)):
            raise InvalidInput(f"profile of {self.variant!r} needs latencies from batch 1 up, ascending")
        _check_number("load_s", self.load_s, 0)
        _check_number("peak_memory_bytes", self.peak_memory_bytes, 0)
        _check_number("peak_device_memory_bytes", self.peak_device_memory_bytes, 0)
        _check_number("saturation_qps", self.saturation_qps, 0, open_low=True)

    def median_s(self, batch: int) -> float:
        """Expected median latency of a batch of any size, in seconds: between measured sizes linear, beyond by the fit.

        Without a fit the last two measured sizes carry on.
        """
        points = self.latencies
        if self.fit is not None and batch > points[-1].batch:
            return max(points[-1].p50_s, self.fit.fixed_s + self.fit.per_row_s * batch)
        if batch <= 1 or len(points) == 1:
            return points[0].p50_s * max(1, batch)
        upper = next((i for i, x in enumerate(points) if x.batch >= batch), len(points) - 1)
        low, high = points[max(0, upper - 1)], points[upper]
        slope = (high.p50_s - low.p50_s) / (high.batch - low.batch)
        return low.p50_s + (max(0.0, slope) if batch > high.batch else slope) * (batch - low.batch)

    def latency_s(self, batch: int) -> float:
        """Expected p99 latency of a batch, in seconds; linear between and beyond measured sizes."""
        points = self.latencies
        if batch <= 1 or len(points) == 1:
            return points[0].p99_s * max(1, batch)
        upper = next((i for i, x in enumerate(points) if x.batch >= batch), len(points) - 1)
        low, high = points[max(0, upper - 1)], points[upper]
        slope = max(0.0, (high.p99_s - low.p99_s) / (high.batch - low.batch))
        return low.p99_s + slope * (batch - low.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerType:
    """A kind of machine and its price. `resources` are Ray's: CPU, GPU, neuron_cores.

    `device_memory_bytes` is that of one accelerator, 0 where unknown. `boot_s` is how long one usually takes from the
    request until it can take replicas. From `min_workers` to `max_workers` of them there may be. A `spot` machine can
    be taken away at short notice.
    """

    name: str
    resources: Mapping[str, float]
    memory_bytes: int
    usd_per_hour: float
    device_memory_bytes: int = 0
    boot_s: float = 60.0
    min_workers: int = 0
    max_workers: int = 100
    spot: bool = False

    def __post_init__(self) -> None:
        _check_name("worker type", self.name)
        for name, units in self.resources.items():
            _check_number(f"resources.{name}", units, 0)
        _check_number("memory_bytes", self.memory_bytes, 0)
        _check_number("device_memory_bytes", self.device_memory_bytes, 0)
        _check_number("usd_per_hour", self.usd_per_hour, 0)
        _check_number("boot_s", self.boot_s, 0)
        _check_number("max_workers", self.max_workers, self.min_workers)

    def usd_per_1k(self, variant: Variant, profile: Profile) -> float:
        """Price in US dollars of 1,000 single-row queries on `variant`, its replica saturated.

        The replica pays for the share of the machine that it occupies: the larger of its share of cores (or of
        accelerators) and its share of memory.
        """
        key = {HardwareKind.CPU: "CPU", HardwareKind.GPU: "GPU", HardwareKind.NEURON: "neuron_cores"}[variant.hardware]
        units = variant.threads if variant.hardware is not HardwareKind.GPU else 1
        available = self.resources.get(key, 0.0)
        if available <= 0:
            return math.inf
        share = max(units / available, profile.peak_memory_bytes / self.memory_bytes)
        return self.usd_per_hour * min(1.0, share) / 3600 / profile.saturation_qps * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SLO:
    """What a query asks for; None means "any".

    `latency_s` bounds the time from arrival at the router to the answer, `min_accuracy` is in 0..1, and
    `max_usd_per_1k` is the greatest price of 1,000 such queries. An `offline` query runs on spare capacity: it stands
    behind every online one.
    """

    latency_s: float | None = None
    min_accuracy: float | None = None
    max_usd_per_1k: float | None = None
    on_miss: OnMiss = OnMiss.REJECT
    offline: bool = False

    def __post_init__(self) -> None:
        _check_number("latency", self.latency_s, 0, 86_400, open_low=True)
        _check_number("min_accuracy", self.min_accuracy, 0, 1)
        _check_number("max_usd_per_1k", self.max_usd_per_1k, 0, open_low=True)


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One question: a target, an SLO, and input tensors that all have `rows` rows (their first dimension).

    A driver that asks thousands may send some as one: then `bundle` queries of equal rows share the fate of all.
    `application` says whose query it is, for the accounts; nothing where nobody said.
    """

    id: str
    target: str
    slo: SLO
    inputs: Mapping[str, Array]
    rows: int
    bundle: int = 1
    application: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of a query and who computed them, at what accuracy, price and time.

    `queue_s` is the wait in the replica, `compute_s` that of the batch the query was in, `latency_s` the whole
    time in the router; `slo_met` tells whether every bound that the query named was kept.
    """

    query_id: str
    outputs: Mapping[str, Array]
    variant: str
    replica: str
    accuracy: float
    usd_per_1k: float
    queue_s: float
    compute_s: float
    latency_s: float
    batch_rows: int
    slo_met: bool
