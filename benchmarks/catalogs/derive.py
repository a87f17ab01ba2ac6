"""Makes configs/catalogs/infaas-2021.csv from the published figures in figures.yaml: `python -m benchmarks.catalogs`.

Every row says where its latencies and its accuracy are from (ids of configs/catalogs/infaas-2021.yaml) and whether they
are estimated, that is, anything but a published measurement of this network, precision and hardware. The rules:

- CPU, all 8 vCPUs of an m5.2xlarge: MXNet's figures for a c5.2xlarge, which has the same number of cores of the same
  generation, times 3.4/3.1 (the turbo clocks). Networks that are not there: Intel's figures for 4 cores of a newer
  processor, times the ratio that both have for the networks in both (geometric mean). Those in neither: the latency of
  the relative named `like` times the ratio on the Keras page. ResNeXt: the larger of Intel's table, by multiply-adds.
  Batches: as ResNet-50's.
- CPU, 2 vCPUs (one core): times the square of what ResNet-50 gains from 4 to 8 cores, at most at this batch size.
- CPU, int8: fp32 / 1.33, the gain of 8-bit arithmetic on processors without VNNI.
- GPU, fp32: measured, or depth x d + multiply-adds x (batch - 1) x m x per_mac; d and m are the means over MXNet's
  networks with a depth above 100 (d at batch 1, m at batch 64).
- TensorRT: ResNet-50 measured; others as fp32 times the ratio of ResNet-50's latencies at the same batch.
- Inferentia, one core: ResNet-50 at batch 5 measured; a line through it with 1 ms fixed; others by the ratio on inf2 or
  by multiply-adds x per_mac.
- A latency is never above one of a larger batch.
- Loading: the line through the paper's range (0.59 s for the smallest artifact, 11 s for the largest).
- Memory: a process of a size that depends on the runtime, twice the weights, and activations of 50 MiB per row of 224
  x 224 pixels in fp32; on a device 600 MiB for its context.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
BATCHES = (1, 2, 4, 8, 16, 32, 64)
COLUMNS = (
    "architecture runtime precision hardware threads batch_limit worker_types "
    + " ".join(f"ms_{b}" for b in BATCHES)
    + " p95_ratio p99_ratio load_s memory_mib device_memory_mib artifact_mib accuracy metric"
    + " latency_source latency_estimated accuracy_source accuracy_estimated footprint_source"
).split()
_CPU_TYPES, _GPU_TYPES, _NEURON_TYPES = "m5.2xlarge inf1.2xlarge", "p3.2xlarge", "inf1.2xlarge"
_CLOCK = 3.4 / 3.1
_INT8_GAIN_CPU = 1.33
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
_PROCESS_MIB = {"tensorflow": 450, "mxnet": 350, "pytorch": 450, "tensorrt": 900, "neuron": 600}
_CONTEXT_MIB = 600
_ROW_MIB = 50
_LOAD_RANGE_S = (0.59, 11.0)
_TAILS = {"cpu": (1.1, 1.25), "gpu": (1.02, 1.05), "neuron": (1.05, 1.1)}
_NEURON_FIXED_MS = 1.0

Curve = list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Latencies in ms by batch size, where they are from, and whether they are estimated."""

    ms: Curve
    source: str
    estimated: bool = True
    runtime: str = "tensorflow"

    def times(self, factors: Sequence[float] | float, source: str, runtime: str = "") -> "Timed":
        """Estimated from these."""
        by = [factors] * len(self.ms) if isinstance(factors, float) else factors
        ms = [x * f for x, f in zip(self.ms, by, strict=True)]
        return Timed(ms=ms, source=f"{self.source}; {source}", runtime=runtime or self.runtime)


class Figures:
    """The published figures, and what follows from them for each network."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.networks: Mapping[str, Mapping[str, Any]] = raw["architectures"]
        mxnet = raw["mxnet"]
        shape = [mxnet["c5.2xlarge"]["resnet50"][0] / x for x in mxnet["c5.2xlarge"]["resnet50"]]
        self._cpu_shape = _longer([b * x for b, x in zip(BATCHES, shape, strict=False)])
        gains = [b / a for a, b in zip(mxnet["c5.2xlarge"]["resnet50"], mxnet["c5.4xlarge"]["resnet50"], strict=True)]
        self.one_core = [max(gains[: i + 1]) ** 2 for i in range(len(BATCHES))]
        both = set(mxnet["c5.2xlarge"]) & set(raw["intel"]["tensorflow"])
        ratios = [self._intel_ms(x) * mxnet["c5.2xlarge"][x][0] / 1000 for x in sorted(both)]
        self._intel_scale = _CLOCK / prod(ratios) ** (1 / len(ratios))
        self._per_depth, self._per_mac = self._gpu_fit()

    def _intel_ms(self, network: str, framework: str = "tensorflow") -> float:
        intel = self.raw["intel"]
        return float(1000 * intel["instances"] / intel[framework][network][1])

    def cpu(self, network: str) -> Timed:
        """Fp32 on all 8 vCPUs of an m5.2xlarge."""
        measured = self.raw["mxnet"]["c5.2xlarge"].get(network)
        if measured:
            ms = _longer([1000 * b / x for b, x in zip(BATCHES, measured, strict=False)])
            return Timed(ms=ms, source="mxnet-perf", runtime="mxnet").times(_CLOCK, "clock")
        if network in self.raw["intel"]["tensorflow"]:
            first, source, runtime = self._intel_ms(network) * self._intel_scale, "intel-nc; clock", "tensorflow"
        elif "like" in self.networks[network]:
            like = self.networks[network]["like"]
            ratio = self.networks[network]["keras_cpu"] / self.networks[like]["keras_cpu"]
            return self.cpu(like).times(ratio, "keras", "tensorflow")
        else:
            share = self.networks[network]["gmacs"] / self.raw["intel"]["resnext101-32x8d-gmacs"]
            first = self._intel_ms("resnext101-32x8d", "pytorch") * share * self._intel_scale
            source, runtime = "intel-nc; macs; clock", "pytorch"
        return Timed(ms=[first * x for x in self._cpu_shape], source=source, runtime=runtime)

    def _gpu_fit(self) -> tuple[float, float]:
        """Milliseconds per unit of depth at batch 1, and per billion multiply-adds of a row at batch 64."""
        fitted = [x for x in self.raw["mxnet"]["v100-fp32"] if self.networks[x]["depth"] > 100]
        curves = {x: self._mxnet_gpu(x, "fp32") for x in fitted}
        depth = sum(curves[x][0] / self.networks[x]["depth"] for x in fitted) / len(fitted)
        rows = BATCHES[-1]
        mac = sum(curves[x][-1] / rows / self.networks[x]["gmacs"] for x in fitted) / len(fitted)
        return depth, mac

    def _mxnet_gpu(self, network: str, precision: str) -> Curve:
        return [1000 * b / x for b, x in zip(BATCHES, self.raw["mxnet"][f"v100-{precision}"][network], strict=True)]

    def gpu(self, network: str) -> Timed:
        """Fp32 in its framework on a V100."""
        if network in self.raw["mxnet"]["v100-fp32"]:
            return Timed(ms=self._mxnet_gpu(network, "fp32"), source="mxnet-perf", estimated=False, runtime="mxnet")
        if network == "resnext101":
            return Timed(ms=self.raw["resnext101"]["fp32"], source="nvidia-resnext", estimated=False)
        facts = self.networks[network]
        if network == "vgg19":
            return self.gpu("vgg16").times(facts["gmacs"] / self.networks["vgg16"]["gmacs"], "macs", "tensorflow")
        start, row = facts["depth"] * self._per_depth, facts["gmacs"] * facts["per_mac"] * self._per_mac
        return Timed(ms=[start + row * (b - 1) for b in BATCHES], source="mxnet-perf; keras; macs; timm")

    def half(self, network: str) -> Timed | None:
        """Fp16 in its framework on a V100, where it was measured."""
        if network in self.raw["mxnet"]["v100-fp16"]:
            return Timed(ms=self._mxnet_gpu(network, "fp16"), source="mxnet-perf", estimated=False, runtime="mxnet")
        if network == "resnext101":
            return Timed(ms=self.raw["resnext101"]["fp16"], source="nvidia-resnext", estimated=False)
        return None

    def tensorrt(self, network: str, precision: str) -> Timed:
        """TensorRT on a V100."""
        ours = _longer(self.raw["tensorrt"][precision])
        if network == "resnet50":
            return Timed(ms=ours, source="tensorrt4-v100", estimated=False, runtime="tensorrt")
        ratios = [a / b for a, b in zip(ours, self._mxnet_gpu("resnet50", "fp32"), strict=True)]
        return self.gpu(network).times(ratios, "tensorrt4-v100", "tensorrt")

    def neuron(self, network: str) -> Timed:
        """Fp16 on one core of an Inferentia chip."""
        facts, neuron = self.networks[network], self.raw["neuron"]
        point = 1000 * neuron["batch"] * neuron["cores"] / neuron["resnet50"]
        row = (point - _NEURON_FIXED_MS) / neuron["batch"]
        base = Timed(ms=[_NEURON_FIXED_MS + row * b for b in BATCHES], source="neuron-inf1; line", runtime="neuron")
        if network in neuron["inf2"]:
            ratio = neuron["inf2"]["resnet50"] / neuron["inf2"][network]
            return base if ratio == 1 else base.times(ratio, "neuron-inf2")
        return base.times(facts["gmacs"] * facts["per_mac"] / self.networks["resnet50"]["gmacs"], "macs; timm")

    def accuracy(self, network: str, precision: str) -> tuple[float, str, bool]:
        """Top-1 in 0..1, its source, and whether it is estimated. A gain by lower precision counts as none."""
        facts = self.networks[network]
        value, source = facts["top1"] / 100, facts["accuracy"]
        if precision == "fp32":
            return value, source, False
        if precision == "fp16":
            return value, f"{source}; fp16-as-fp32", True
        changes = self.raw["intel"]["int8_change_percent"]
        typical = sorted(changes.values())[len(changes) // 2]
        change = min(0.0, changes.get(network, min(0.0, typical)))
        return value * (1 + change / 100), f"{source}; intel-nc", True


def _longer(curve: Sequence[float]) -> Curve:
    """With a latency for batch 64 where there is none: on from the last two on a line."""
    if len(curve) == len(BATCHES):
        return list(curve)
    slope = (curve[-1] - curve[-2]) / (BATCHES[-2] - BATCHES[-3])
    return [*curve, curve[-1] + slope * (BATCHES[-1] - BATCHES[-2])]


def _rising(curve: Sequence[float]) -> Curve:
    """Where a larger batch was faster, that is noise: no latency is above one of a larger batch."""
    return [min(curve[i:]) for i in range(len(curve))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A variant before its footprint is known."""

    network: str
    precision: str
    hardware: str
    threads: int
    batch_limit: int
    timed: Timed
    tail: tuple[float, float]


def _image_variants(figures: Figures, network: str) -> Iterator[Row]:
    cpu = figures.cpu(network)
    small = cpu.times(figures.one_core, "mxnet-perf")
    half = figures.half(network)
    by = _TAILS
    common = {"network": network}
    yield Row(**common, precision="fp32", hardware="cpu", threads=8, batch_limit=8, timed=cpu, tail=by["cpu"])
    yield Row(**common, precision="fp32", hardware="cpu", threads=2, batch_limit=4, timed=small, tail=by["cpu"])
    eight = cpu.times(1 / _INT8_GAIN_CPU, "int8-without-vnni")
    yield Row(**common, precision="int8", hardware="cpu", threads=8, batch_limit=8, timed=eight, tail=by["cpu"])
    fp32 = figures.gpu(network)
    yield Row(**common, precision="fp32", hardware="gpu", threads=1, batch_limit=16, timed=fp32, tail=by["gpu"])
    second, limit = (half, 32) if half else (figures.tensorrt(network, "fp16"), 8)
    yield Row(**common, precision="fp16", hardware="gpu", threads=1, batch_limit=limit, timed=second, tail=by["gpu"])
    for precision in ("fp16", "int8"):
        timed = figures.tensorrt(network, precision)
        yield Row(**common, precision=precision, hardware="gpu", threads=1, batch_limit=64, timed=timed, tail=by["gpu"])
    yield Row(
        **common,
        precision="fp16",
        hardware="neuron",
        threads=1,
        batch_limit=4,
        timed=figures.neuron(network),
        tail=by["neuron"],
    )


def _gnmt_variants(figures: Figures) -> Iterator[Row]:
    gnmt = figures.raw["gnmt"]
    halves = _between(gnmt["batches"], gnmt["fp16"])
    fulls = _between(gnmt["batches"], [a * b for a, b in zip(gnmt["fp16"], gnmt["fp32_over_fp16"], strict=True)])
    tail = tuple(gnmt["tail"])
    for precision, ms in (("fp32", fulls), ("fp16", halves)):
        timed = Timed(ms=ms, source="nvidia-gnmt; t4-as-v100", runtime="pytorch")
        for limit in (8, 64):
            yield Row(
                network="gnmt",
                precision=precision,
                hardware="gpu",
                threads=1,
                batch_limit=limit,
                timed=timed,
                tail=tail,
            )
    yield Row(
        network="gnmt",
        precision="fp16",
        hardware="gpu",
        threads=1,
        batch_limit=1,
        timed=Timed(ms=halves, source="nvidia-gnmt; t4-as-v100", runtime="pytorch"),
        tail=tail,
    )
    stream_ms = gnmt["tokens"] * gnmt["parameters"] * 4 / 12e9 * 1000  # 12 GB/s of memory bandwidth
    resnet = figures.cpu("resnet50").ms[3] / 8 / figures.networks["resnet50"]["gmacs"]
    row_ms = gnmt["tokens"] * gnmt["gmacs_per_token"] * resnet
    cpu = Timed(ms=[stream_ms + row_ms * b for b in BATCHES], source="weights-per-token; macs", runtime="pytorch")
    yield Row(network="gnmt", precision="fp32", hardware="cpu", threads=8, batch_limit=8, timed=cpu, tail=tail)
    small = cpu.times(figures.one_core, "mxnet-perf")
    yield Row(network="gnmt", precision="fp32", hardware="cpu", threads=2, batch_limit=4, timed=small, tail=tail)


def _between(batches: Sequence[int], ms: Sequence[float]) -> Curve:
    """Latencies at BATCHES, on lines between those given."""
    found = []
    for b in BATCHES:
        after = next(i for i, x in enumerate(batches) if x >= b)
        before = max(0, after - 1)
        span = batches[after] - batches[before]
        found.append(ms[before] + (ms[after] - ms[before]) * ((b - batches[before]) / span if span else 0))
    return found


def derive(raw: Mapping[str, Any]) -> list[dict[str, str]]:
    """All rows of the catalogue, as text by column."""
    figures = Figures(raw)
    rows = [row for network in figures.networks for row in _image_variants(figures, network)]
    rows += _gnmt_variants(figures)
    sizes = [_artifact_mib(figures, x) for x in rows]
    low, high = min(sizes), max(sizes)
    load = (_LOAD_RANGE_S[1] - _LOAD_RANGE_S[0]) / (high - low)
    return [_text(figures, x, mib, _LOAD_RANGE_S[0] + load * (mib - low)) for x, mib in zip(rows, sizes, strict=True)]


def _artifact_mib(figures: Figures, row: Row) -> float:
    facts = figures.networks.get(row.network) or figures.raw["gnmt"]
    return float(facts["parameters"] * _BYTES[row.precision] / 2**20)


def _text(figures: Figures, row: Row, artifact_mib: float, load_s: float) -> dict[str, str]:
    translates = row.network == "gnmt"
    pixels = 224 if translates else figures.networks[row.network]["pixels"]
    rows_mib = _ROW_MIB * (pixels / 224) ** 2 * row.batch_limit * _BYTES[row.precision] / 4
    on_device = row.hardware != "cpu"
    working = 2 * artifact_mib + rows_mib
    accuracy = (figures.raw["gnmt"]["bleu"] / 100, "nvidia-gnmt", False)
    value, source, estimated = accuracy if translates else figures.accuracy(row.network, row.precision)
    limit = BATCHES.index(row.batch_limit) + 1
    found: dict[str, Any] = {
        "architecture": row.network,
        "runtime": row.timed.runtime,
        "precision": row.precision,
        "hardware": row.hardware,
        "threads": row.threads,
        "batch_limit": row.batch_limit,
        "worker_types": {"cpu": _CPU_TYPES, "gpu": _GPU_TYPES, "neuron": _NEURON_TYPES}[row.hardware],
        **{f"ms_{b}": f"{ms:.4g}" for b, ms in zip(BATCHES[:limit], _rising(row.timed.ms), strict=False)},
        "p95_ratio": row.tail[0],
        "p99_ratio": row.tail[1],
        "load_s": f"{load_s:.3g}",
        "memory_mib": round(_PROCESS_MIB[row.timed.runtime] + artifact_mib + (0 if on_device else working)),
        "device_memory_mib": round(_CONTEXT_MIB + working) if row.hardware == "gpu" else 0,
        "artifact_mib": f"{artifact_mib:.3g}",
        "accuracy": f"{value:.4f}",
        "metric": "bleu" if translates else "top1_accuracy",
        "latency_source": row.timed.source,
        "latency_estimated": "yes" if row.timed.estimated else "no",
        "accuracy_source": source,
        "accuracy_estimated": "yes" if estimated else "no",
        "footprint_source": "footprint",
    }
    return {x: str(found.get(x, "")) for x in COLUMNS}


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows as the text of a CSV file."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def figures_file() -> Mapping[str, Any]:
    """The published figures."""
    found: Mapping[str, Any] = yaml.safe_load((HERE / "figures.yaml").read_text())
    return found
