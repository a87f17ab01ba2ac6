"""The table of runtimes, and what is said where a framework is missing."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infaas_ray.domain import Architecture, TensorSpec, UseCase, Variant
from infaas_ray.errors import InvalidInput, MissingExtra
from infaas_ray.variants.runtime import RUNTIMES, runtime_named, runtime_of

ARCHITECTURE = Architecture(
    name="mlp",
    use_case=UseCase(task="classification", dataset="digits"),
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
)
VARIANT = Variant(architecture="mlp", runtime="torch", precision="fp32", artifact="0" * 64)


def test_runtimes_go_by_name() -> None:
    assert runtime_of(VARIANT) is runtime_named("torch") is RUNTIMES["torch"]


def test_an_unknown_runtime_names_the_known() -> None:
    with pytest.raises(InvalidInput, match="known: fake, neuron, onnxruntime, openvino, tensorrt, torch"):
        runtime_named("caffe")


@pytest.mark.parametrize(
    ("runtime", "module"),
    [
        ("torch", "torch"),
        ("torch-compiled", "torch"),
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
        ("tensorrt", "tensorrt"),
    ],
)
def test_a_missing_framework_names_its_extra(monkeypatch: pytest.MonkeyPatch, runtime: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match="pip install") as caught:
        runtime_named(runtime).load(Path("model"), replace(VARIANT, runtime=runtime), ARCHITECTURE)
    assert caught.value.extra == runtime_named(runtime).extra
