"""What sources are accepted, as what, and by what hash they are known again."""

import zipfile
from pathlib import Path

import pytest

from infaas_ray.errors import InvalidModel
from infaas_ray.variants.recipes import Form
from infaas_ray.variants.sources import Kind, source_at, source_digest


@pytest.mark.parametrize("name", ["m.pt", "m.pkl", "m.pth", "m.bin", "m.joblib"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidModel, match=r"runs whatever code.*torch\.export\.save"):
        source_at(tmp_path / name)


def test_an_allowed_pickle_is_an_estimator_and_weights_never_are(tmp_path: Path) -> None:
    for name in ("m.pkl", "m.pt"):
        (tmp_path / name).write_bytes(b"x")
    assert source_at(tmp_path / "m.pkl", allow_pickle=True).kind is Kind.ESTIMATOR
    with pytest.raises(InvalidModel, match="pickle by its name"):
        source_at(tmp_path / "m.pt", allow_pickle=True)


def test_other_sources_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"x")
    with pytest.raises(InvalidModel, match=r"neither a \.pt2"):
        source_at(tmp_path / "m.h5")
    with pytest.raises(InvalidModel, match="no model file"):
        source_at(tmp_path / "m.onnx")
    with pytest.raises(InvalidModel, match=r"no config\.json"):
        source_at(tmp_path)


def test_torchscript_is_known_by_the_code_in_it(tmp_path: Path) -> None:
    for name, entry in (("script.pt", "script/code/__torch__.py"), ("state.pt", "state/data.pkl")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(entry, b"")
    found = source_at(tmp_path / "script.pt")
    assert (found.kind, found.form) == (Kind.TORCHSCRIPT, Form.ONNX)
    with pytest.raises(InvalidModel, match="pickle by its name"):
        source_at(tmp_path / "state.pt")


def test_a_hugging_face_folder_needs_safetensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidModel, match="pickles, which could run any code"):
        source_at(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    found = source_at(tmp_path)
    assert (found.kind, found.form) == (Kind.TRANSFORMERS, Form.PROGRAM)


def test_the_digest_covers_weights_beside_the_model(tmp_path: Path) -> None:
    model, weights = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    model.write_bytes(b"graph")
    digests = [source_digest(model)]
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        digests.append(source_digest(model))
    assert len(set(digests)) == 3
    assert {len(x) for x in digests} == {64}


def test_the_digest_of_a_folder_covers_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    digests = [source_digest(tmp_path)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"1")
    digests.append(source_digest(tmp_path))
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    digests.append(source_digest(tmp_path))
    assert len(set(digests)) == 3
