"""Which recipes and cells apply, and what makes an origin."""

from pathlib import Path

import pytest

from infaas_ray.domain import HardwareKind, UseCase
from infaas_ray.errors import InvalidInput
from infaas_ray.variants import recipes
from infaas_ray.variants.generator import GenerationOptions, missing_frameworks, recipe_origin
from infaas_ray.variants.recipes import RECIPES, Form, Recipe
from infaas_ray.variants.registration_run import Request
from infaas_ray.variants.sources import Kind, Source

ONNX_ON_CPU = [
    "onnxruntime-fp32",
    "onnxruntime-int8",
    "onnxruntime-int8-dynamic",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
]


@pytest.fixture(autouse=True)
def _bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "cpu_flags", lambda: frozenset({"avx512_bf16"}))


def labels(options: GenerationOptions, form: Form) -> list[str]:
    return [x.label for x in options.recipes_for(form)]


def named(label: str) -> Recipe:
    return next(x for x in RECIPES if x.label == label)


def test_the_sources_own_format_comes_first() -> None:
    assert labels(GenerationOptions(), Form.PROGRAM) == ["torch-fp32", "torch-bf16", *ONNX_ON_CPU]
    assert labels(GenerationOptions(), Form.ONNX) == ONNX_ON_CPU
    assert labels(GenerationOptions(recipes=("onnxruntime-int8",)), Form.PROGRAM) == ["onnxruntime-int8"]


def test_bf16_is_made_where_the_processor_computes_in_it_or_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "cpu_flags", lambda: frozenset({"avx2"}))
    assert not [x for x in labels(GenerationOptions(), Form.PROGRAM) if "bf16" in x]
    assert labels(GenerationOptions(recipes=("torch-bf16",)), Form.PROGRAM) == ["torch-bf16"]


def test_what_wins_nowhere_is_made_on_request_only() -> None:
    asked = GenerationOptions(recipes=("torch-compiled-fp32",))
    assert labels(asked, Form.PROGRAM) == ["torch-compiled-fp32"]
    assert asked.cells(named("torch-compiled-fp32")) == [(HardwareKind.CPU, 1, 16), (HardwareKind.CPU, 2, 16)]
    assert "torch-compiled-fp32" not in labels(GenerationOptions(), Form.PROGRAM)


def test_accelerators_get_recipes_of_their_own() -> None:
    gpu = labels(GenerationOptions(hardware=(HardwareKind.GPU,)), Form.PROGRAM)
    assert {f"torch-{x}" for x in ("fp32", "tf32", "bf16", "fp16")} < set(gpu)
    assert {f"tensorrt-{x}" for x in ("fp32", "tf32", "fp16", "int8")} < set(gpu)
    assert {"torch-compiled-fp16", "onnxruntime-fp16"} < set(gpu)
    assert not [x for x in gpu if x.startswith("openvino")]
    neuron = GenerationOptions(hardware=(HardwareKind.NEURON,), neuron_cores=(1, 2))
    assert labels(neuron, Form.PROGRAM) == ["neuron-fp32", "neuron-bf16"]
    assert neuron.cells(named("neuron-bf16")) == [(HardwareKind.NEURON, 1, 16), (HardwareKind.NEURON, 2, 16)]


def test_cells_are_threads_on_cpu_and_batch_limits_on_a_gpu() -> None:
    both = (HardwareKind.CPU, HardwareKind.GPU)
    options = GenerationOptions(threads=(1, 4, 1), hardware=both, gpu_batch_limits=(16, 64))
    cpu = [(HardwareKind.CPU, 1, 16), (HardwareKind.CPU, 4, 16)]
    gpu = [(HardwareKind.GPU, 1, 16), (HardwareKind.GPU, 1, 64)]
    assert options.cells(named("torch-fp32")) == [*cpu, *gpu]
    assert options.cells(named("onnxruntime-int8")) == cpu
    assert options.largest_batch == 64


def test_missing_frameworks_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infaas_ray.variants.runtime.installed", lambda runtime: runtime.extra != "openvino")
    options = GenerationOptions()
    assert missing_frameworks(options.recipes_for(Form.ONNX), options) == {
        "openvino": "not installed: pip install 'infaas_ray[openvino]'"
    }
    asked = GenerationOptions(recipes=("openvino-int8",))
    assert missing_frameworks(asked.recipes_for(Form.ONNX), asked) == {}


def test_a_build_for_processors_alone_is_missing_only_where_nothing_else_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infaas_ray.variants.runtime.installed", lambda runtime: True)
    monkeypatch.setattr("infaas_ray.variants.torch_runtime.TorchRuntime.versions", lambda self: {"torch": "2.13.0+cpu"})
    monkeypatch.setattr("infaas_ray.variants.onnx_runtime.OnnxRuntime.versions", lambda self: {"onnxruntime": "1.32"})
    gpu = GenerationOptions(hardware=(HardwareKind.GPU,))
    assert missing_frameworks(gpu.recipes_for(Form.PROGRAM), gpu) == {
        "torch": "a build for CPUs alone: install PyTorch for CUDA",
        "torch-compiled": "a build for CPUs alone: install PyTorch for CUDA",
        "onnxruntime": "a build for CPUs alone: pip install onnxruntime-gpu",
    }
    both = GenerationOptions(hardware=(HardwareKind.CPU, HardwareKind.GPU))
    assert set(missing_frameworks(both.recipes_for(Form.PROGRAM), both)) == {"torch-compiled"}


def test_options_that_give_nothing_are_refused() -> None:
    with pytest.raises(InvalidInput, match="none of the chosen recipes"):
        GenerationOptions(recipes=("torch-fp32",)).recipes_for(Form.ONNX)
    with pytest.raises(InvalidInput, match="none of the chosen recipes"):
        GenerationOptions(hardware=(HardwareKind.NEURON,)).recipes_for(Form.ONNX)
    with pytest.raises(InvalidInput, match=r"recipe 'caffe'.*onnxruntime-fp32"):
        GenerationOptions(recipes=("caffe",))
    with pytest.raises(InvalidInput, match="at least"):
        GenerationOptions(threads=())
    with pytest.raises(InvalidInput, match="at least"):
        GenerationOptions(threads=(0,))
    for wrong in (0, -3, 5000):
        with pytest.raises(InvalidInput, match="from 1 to 4096"):
            GenerationOptions(batch_limit=wrong)
        with pytest.raises(InvalidInput, match="from 1 to 4096"):
            GenerationOptions(gpu_batch_limits=(8, wrong))


def test_an_origin_changes_with_recipe_version_and_settings() -> None:
    first, second = RECIPES[0], RECIPES[1]
    origins = {
        recipe_origin(first, {"metric": "a", "declared": None}),
        recipe_origin(first, {"metric": "b", "declared": None}),
        recipe_origin(second, {"metric": "a", "declared": None}),
    }
    assert len(origins) == 3
    assert recipe_origin(first, {"a": 1, "b": 2}) == recipe_origin(first, {"b": 2, "a": 1})


def test_what_is_made_for_a_greatest_batch_is_made_anew_for_another() -> None:
    def request(*limits: int) -> Request:
        return Request(
            source=Source(path=Path("a.onnx"), kind=Kind.ONNX),
            digest="0",
            architecture="a",
            use_case=UseCase(task="t", dataset="d"),
            validation=None,
            validation_digest=None,
            metric="top1_accuracy",
            options=GenerationOptions(hardware=(HardwareKind.GPU,), gpu_batch_limits=limits),
            declared_accuracy=0.5,
            output_names=None,
        )

    engine, file = named("tensorrt-fp16"), named("onnxruntime-fp16")
    assert request(8).origin(engine) != request(8, 64).origin(engine)
    assert request(8).origin(file) == request(8, 64).origin(file)
