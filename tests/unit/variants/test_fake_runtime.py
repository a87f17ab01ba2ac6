"""The fake runtime: stated outputs, stated time, no framework."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from infaas_ray.domain import Architecture, TensorSpec, UseCase, Variant
from infaas_ray.errors import InvalidModel, VariantFailed
from infaas_ray.variants.fake_runtime import FakeLatency, FakeModel, LoadedFake
from infaas_ray.variants.runtime import runtime_of

ARCHITECTURE = Architecture(
    name="fake",
    use_case=UseCase(task="nothing", dataset="none"),
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),),
    outputs=(
        TensorSpec(name="copy", datatype="FP32", shape=(-1, 2)),
        TensorSpec(name="seven", datatype="INT64", shape=(-1, -1, 3)),
        TensorSpec(name="zero", datatype="FP32", shape=(-1,)),
    ),
)
VARIANT = Variant(architecture="fake", runtime="fake", precision="fp32", artifact="0" * 64)
X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    calls: list[float] = []
    monkeypatch.setattr("infaas_ray.variants.fake_runtime.time.sleep", calls.append)
    return calls


def loaded(folder: Path, content: bytes) -> LoadedFake:
    path = folder / "model"
    path.write_bytes(content)
    model = runtime_of(VARIANT).load(path, VARIANT, ARCHITECTURE)
    assert isinstance(model, LoadedFake)
    return model


def test_outputs_and_time_are_as_stated(tmp_path: Path, slept: list[float]) -> None:
    stated = FakeModel(
        outputs={"copy": "x", "seven": 7.0}, latency_s=FakeLatency(fixed=0.25, per_row=0.5), load_s=2.0, memory_bytes=10
    )
    model = loaded(tmp_path, msgspec.json.encode(stated))
    found = model.predict({"x": X})
    assert slept == [2.0, 1.75]
    assert np.array_equal(found["copy"], X)
    assert found["seven"].tolist() == [[[7, 7, 7]]] * 3
    assert found["zero"].tolist() == [0, 0, 0]
    assert [found[x.name].dtype for x in ARCHITECTURE.outputs] == [x.dtype for x in ARCHITECTURE.outputs]
    model.close()


def test_an_empty_object_is_an_instant_model_of_zeros(tmp_path: Path) -> None:
    assert not any(x.any() for x in loaded(tmp_path, b"{}").predict({"x": X}).values())


def test_the_copy_does_not_keep_the_input(tmp_path: Path) -> None:
    mine = X.copy()
    found = loaded(tmp_path, b'{"outputs": {"copy": "x"}}').predict({"x": mine})
    mine[:] = 0
    assert np.array_equal(found["copy"], X)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not json", "not a fake model"),
        (b'{"latency": 3}', "unknown field"),
        (b'{"load_s": -1}', "negative"),
        (b'{"outputs": {"nose": 1}}', "output 'nose'"),
        (b'{"outputs": {"copy": "y"}}', "input 'y'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        loaded(tmp_path, content)


def test_a_query_without_the_repeated_input_fails(tmp_path: Path) -> None:
    with pytest.raises(VariantFailed, match="lacks"):
        loaded(tmp_path, b'{"outputs": {"copy": "x"}}').predict({"y": X})
