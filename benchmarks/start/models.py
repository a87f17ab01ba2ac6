"""Variants to be started once each: copies under other names of one fake model and of one small network on ONNX."""

import contextlib
import dataclasses
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.serving.ours import free_port
from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import Accuracy, Architecture, BatchLatency, Hardware, HardwareKind, Profile, UseCase, Variant
from infaas_ray.domain import TensorSpec as Tensor
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import Repository, repository_at
from infaas_ray.variants.fake_runtime import FakeLatency, FakeModel
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.registration import register

KINDS = ("fake", "onnxruntime")
WIDTH = 64
_FAKE_LOAD_S = 0.05
_FAKE_S = 0.001


def start_settings(home: Path, shells: int) -> Settings:
    """Settings of a system whose replicas, once started, stay; `shells` wait on its one worker."""
    scaling = {"idle_timeout_s": 3600.0, "keep_warm": {f"{KINDS[0]}-0": 1}}
    flags = {"home": home.resolve(), "http": {"port": free_port()}, "cluster": {"cpus": 2}, "scaling": scaling}
    return load_settings(flags=flags | {"shells": {"per_worker": shells}}, environment={})


def offer(settings: Settings, copies: int) -> dict[str, float]:
    """Register `copies` architectures of each kind, `fake-0` and so on; returns their load times in seconds by name."""
    settings.home.mkdir(parents=True, exist_ok=True)
    repository = repository_at(settings.repository)
    with contextlib.closing(Metadata(settings.metadata_url)) as metadata:
        if not metadata.architectures():
            _add_copies(metadata, "fake", *_fake(settings.home, repository), copies)
            _add_copies(metadata, "onnxruntime", *_network(settings.home, metadata, repository), copies)
        return {variant.architecture: profile.load_s for variant, profile in metadata.variants()}


def _add_copies(
    metadata: Metadata, kind: str, architecture: Architecture, variant: Variant, profile: Profile, copies: int
) -> None:
    for number in range(copies):
        name = f"{kind}-{number}"
        use_case = UseCase(task=f"{name}-task", dataset="numbers")
        metadata.add_architecture(dataclasses.replace(architecture, name=name, use_case=use_case))
        copy = dataclasses.replace(variant, architecture=name)
        metadata.put_variant(copy, dataclasses.replace(profile, variant=copy.name))


def _fake(folder: Path, repository: Repository) -> tuple[Architecture, Variant, Profile]:
    x, y = (Tensor(name=name, datatype="FP32", shape=(-1, WIDTH)) for name in "xy")
    file = folder / "fake.json"
    model = FakeModel(outputs={"y": "x"}, latency_s=FakeLatency(fixed=_FAKE_S), load_s=_FAKE_LOAD_S)
    file.write_bytes(msgspec.json.encode(model))
    variant = Variant(
        architecture="fake", runtime="fake", precision="fp32", batch_limit=16, artifact=repository.put(file)
    )
    points = tuple(BatchLatency(batch=n, p50_s=_FAKE_S, p95_s=_FAKE_S * 1.5, p99_s=_FAKE_S * 2) for n in (1, 16))
    profile = Profile(
        variant=variant.name,
        hardware=Hardware(kind=HardwareKind.CPU, model="fake", cores=1, memory_bytes=2**34),
        load_s=_FAKE_LOAD_S,
        latencies=points,
        saturation_qps=16 / _FAKE_S,
        peak_memory_bytes=80 * 2**20,
        accuracy=Accuracy(value=1.0, metric="top1_accuracy", rows=1000, standard_error=0.0),
    )
    use_case = UseCase(task="fake-task", dataset="numbers")
    return Architecture(name="fake", use_case=use_case, inputs=(x,), outputs=(y,)), variant, profile


def _network(folder: Path, metadata: Metadata, repository: Repository) -> tuple[Architecture, Variant, Profile]:
    """Two dense layers, registered and measured as any model would be."""
    register(
        _write_onnx(folder / "network.onnx"),
        architecture="network",
        use_case=UseCase(task="network-task", dataset="numbers"),
        validation=None,
        declared_accuracy=1.0,
        metadata=metadata,
        repository=repository,
        options=GenerationOptions(threads=(1,), recipes=("onnxruntime-fp32",)),
    )
    ((variant, profile),) = metadata.variants("network")
    return metadata.architectures()["network"], variant, profile


def _write_onnx(path: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for _ in range(2)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy")
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    constants = [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
