"""Sources besides `.pt2` and ONNX, each from its file to profiled variants."""

import json
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infaas_ray.domain import UseCase
from infaas_ray.errors import InvalidModel
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import FolderRepository
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.registration import Registration, register

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

FP32 = ("torch-fp32", "onnxruntime-fp32")
CLASSES = 3


@dataclass
class Place:
    folder: Path
    metadata: Metadata
    points: np.ndarray
    label: np.ndarray

    def register(self, source: Any, inputs: dict[str, np.ndarray], **options: Any) -> Registration:
        validation = self.folder / "validation.npz"
        np.savez(validation, label=self.label, **inputs)
        return register(
            source,
            architecture="points",
            use_case=UseCase(task="classification", dataset="points"),
            validation=validation,
            metadata=self.metadata,
            repository=FolderRepository(self.folder / "models"),
            options=GenerationOptions(threads=(1,), recipes=FP32, **options),
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    random = np.random.default_rng(0)
    points = random.standard_normal((120, 6)).astype(np.float32)
    label = (points @ random.standard_normal((6, CLASSES))).argmax(axis=1)
    metadata = Metadata(f"sqlite:///{tmp_path}/m.db")
    yield Place(tmp_path, metadata, points, label)
    metadata.close()


def fitted(place: Place) -> Any:
    linear = pytest.importorskip("sklearn.linear_model")
    pytest.importorskip("skl2onnx")
    return linear.LogisticRegression(max_iter=500).fit(place.points, place.label)


def test_a_scikit_learn_estimator_becomes_variants(place: Place) -> None:
    found = place.register(fitted(place), {"x": place.points})
    [(variant, profile)] = found.variants
    assert variant.runtime == "onnxruntime"
    assert profile.accuracy.value > 0.9
    assert [(x.name, x.datatype, x.shape) for x in found.architecture.inputs] == [("x", "FP32", (-1, 6))]
    assert [(x.name, x.shape) for x in found.architecture.outputs] == [("probabilities", (-1, CLASSES))]


def test_a_pickled_estimator_only_where_it_is_allowed(place: Place) -> None:
    path = place.folder / "model.pkl"
    path.write_bytes(pickle.dumps(fitted(place)))
    with pytest.raises(InvalidModel, match="allow-pickle"):
        place.register(path, {"x": place.points})
    found = place.register(path, {"x": place.points}, allow_pickle=True)
    assert [p.accuracy.value > 0.9 for _, p in found.variants] == [True]


def test_a_pickle_of_something_else_is_refused(place: Place) -> None:
    pytest.importorskip("skl2onnx")
    path = place.folder / "model.pkl"
    path.write_bytes(pickle.dumps({"weights": [1, 2]}))
    with pytest.raises(InvalidModel, match="no fitted scikit-learn estimator but dict"):
        place.register(path, {"x": place.points}, allow_pickle=True)


class Linear(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Right on nothing in particular; two inputs, so that names matter."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(6, CLASSES)

    def forward(self, points: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.head(points) * scale


def test_a_torchscript_archive_becomes_variants(place: Place) -> None:
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    module, path = Linear().eval(), place.folder / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(module).save(str(path))
    scale = np.full((120, 1), 2, np.float32)
    found = place.register(path, {"scale": scale, "points": place.points})
    [(variant, profile)] = found.variants
    assert [x.name for x in found.architecture.inputs] == ["points", "scale"]
    with torch.inference_mode():
        right = module(torch.from_numpy(place.points), torch.from_numpy(scale)).argmax(dim=1).numpy() == place.label
    assert profile.accuracy.rows == 90
    assert abs(profile.accuracy.value - right.mean()) < 0.1
    assert variant.runtime == "onnxruntime"


def test_torchscript_without_rows_says_what_it_needs(place: Place) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Linear()).save(str(place.folder / "model.pt"))
    with pytest.raises(InvalidModel, match="no array 'scale'"):
        place.register(place.folder / "model.pt", {"points": place.points})


def test_a_hugging_face_folder_becomes_variants(place: Place) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=CLASSES,
        max_position_embeddings=16,
    )
    folder = place.folder / "bert"
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    assert (folder / "model.safetensors").exists()
    ids = np.random.default_rng(1).integers(0, 50, (120, 8))
    found = place.register(folder, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert {x.runtime for x, _ in found.variants} == {"torch", "onnxruntime"}
    assert [x.name for x in found.architecture.inputs] == ["input_ids", "attention_mask"]
    assert [(x.name, x.shape) for x in found.architecture.outputs] == [("logits", (-1, CLASSES))]
    fidelities = [p.accuracy.fidelity for _, p in found.variants if p.accuracy.fidelity is not None]
    assert len(fidelities) == 1
    assert fidelities[0] > 0.9999
    assert set(place.register(folder, {"input_ids": ids, "attention_mask": np.ones_like(ids)}).skipped) == {
        x.name for x, _ in found.variants
    }


def test_a_folder_of_an_unknown_class_is_refused(place: Place) -> None:
    pytest.importorskip("transformers")
    folder = place.folder / "odd"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["EvilModel"], "auto_map": {"AutoModel": "x.Evil"}})
    )
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InvalidModel, match="no class 'EvilModel'"):
        place.register(folder, {"x": place.points})
