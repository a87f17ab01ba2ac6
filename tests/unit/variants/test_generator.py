"""Which recipes and cells apply, what sources are refused, and what makes an origin."""

from pathlib import Path

import pytest

from infaas_ray.domain import HardwareKind
from infaas_ray.errors import InvalidInput, InvalidModel
from infaas_ray.variants.generator import RECIPES, GenerationOptions, check_source, recipe_origin, source_digest


def labels(options: GenerationOptions, name: str) -> list[str]:
    return [x.label for x in options.recipes_for(Path(name))]


def test_the_sources_own_format_comes_first() -> None:
    assert labels(GenerationOptions(), "m.pt2") == ["torch-fp32", "onnxruntime-fp32", "onnxruntime-int8"]
    assert labels(GenerationOptions(), "m.onnx") == ["onnxruntime-fp32", "onnxruntime-int8"]
    assert labels(GenerationOptions(recipes=("onnxruntime-int8",)), "m.pt2") == ["onnxruntime-int8"]


def test_cells_are_threads_on_cpu_and_one_on_a_gpu() -> None:
    options = GenerationOptions(threads=(1, 4, 1), hardware=(HardwareKind.CPU, HardwareKind.GPU))
    cells = {x.label: options.cells(x) for x in RECIPES}
    cpu = [(HardwareKind.CPU, 1), (HardwareKind.CPU, 4)]
    assert cells["torch-fp32"] == [*cpu, (HardwareKind.GPU, 1)]
    assert cells["onnxruntime-int8"] == cpu


def test_options_that_give_nothing_are_refused() -> None:
    with pytest.raises(InvalidInput, match="none of the chosen recipes"):
        GenerationOptions(recipes=("torch-fp32",)).recipes_for(Path("m.onnx"))
    with pytest.raises(InvalidInput, match="none of the chosen recipes"):
        GenerationOptions(hardware=(HardwareKind.NEURON,)).recipes_for(Path("m.onnx"))
    with pytest.raises(InvalidInput, match=r"recipe 'caffe'.*torch-fp32"):
        GenerationOptions(recipes=("caffe",))
    with pytest.raises(InvalidInput, match="at least"):
        GenerationOptions(threads=())
    with pytest.raises(InvalidInput, match="at least"):
        GenerationOptions(threads=(0,))


@pytest.mark.parametrize("name", ["m.pt", "m.pkl", "m.pth", "m.bin"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidModel, match=r"runs whatever code.*torch\.export\.save"):
        check_source(tmp_path / name)


def test_other_sources_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"neither a \.pt2"):
        check_source(tmp_path / "m.h5")
    with pytest.raises(InvalidModel, match="no model file"):
        check_source(tmp_path / "m.onnx")


def test_the_digest_covers_weights_beside_the_model(tmp_path: Path) -> None:
    model, weights = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    model.write_bytes(b"graph")
    digests = [source_digest(model)]
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        digests.append(source_digest(model))
    assert len(set(digests)) == 3
    assert {len(x) for x in digests} == {64}


def test_an_origin_changes_with_recipe_version_and_settings() -> None:
    first, second = RECIPES[0], RECIPES[1]
    origins = {
        recipe_origin(first, {"metric": "a", "declared": None}),
        recipe_origin(first, {"metric": "b", "declared": None}),
        recipe_origin(second, {"metric": "a", "declared": None}),
    }
    assert len(origins) == 3
    assert recipe_origin(first, {"a": 1, "b": 2}) == recipe_origin(first, {"b": 2, "a": 1})
