"""Files appear complete or not at all, and are made once; models here are stand-in bytes, no framework runs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from infaas_ray.demo import models
from infaas_ray.demo.models import make_once, prepare
from infaas_ray.errors import MissingExtra

FILES = ["digits.npz", *(f"{name}.pt2" for name in models.DIGITS), "stdlib-docs.npz", "minilm-l6.pt2"]


def filled(folder: Path) -> Path:
    """A folder in which everything is there already."""
    calibration = np.arange(100) % 4 == 0
    labels = np.arange(100) % 10
    images = np.arange(100, dtype=np.float32).reshape(100, 1, 1, 1) * np.ones((1, 1, 8, 8), dtype=np.float32)
    tokens = np.ones((100, 32), dtype=np.int64)
    np.savez(folder / "digits.npz", image=images, label=labels, calibration=calibration)
    np.savez(folder / "stdlib-docs.npz", input_ids=tokens, attention_mask=tokens, label=labels, calibration=calibration)
    for name in FILES:
        (folder / name).touch()
    return folder


def test_a_made_file_is_moved_into_place_and_nothing_else_stays(tmp_path: Path) -> None:
    make_once(tmp_path / "model.pt2", lambda path: path.write_text("made"))

    assert [x.name for x in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "made"


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_text("first")

    make_once(tmp_path / "model.pt2", lambda path: path.write_text("second"))

    assert (tmp_path / "model.pt2").read_text() == "first"


def test_a_maker_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "model.pt2", make)

    assert list(tmp_path.iterdir()) == []


def test_a_missing_framework_names_the_extra_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "infaas_ray.demo.digits", raising=False)
    monkeypatch.delattr("infaas_ray.demo.digits", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(MissingExtra, match="torch is not installed: pip install 'infaas-ray\\[demo\\]'") as caught:
        prepare(tmp_path, lambda *_: None)

    assert caught.value.extra == "demo"
    assert list(tmp_path.iterdir()) == []


def test_a_complete_folder_is_described_without_any_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    prepared = prepare(filled(tmp_path), lambda *_: None)

    assert [(x.architecture, f"{x.task}:{x.dataset}", x.metric) for x in prepared] == [
        ("digits-linear", "digit-classification:digits", "top1_accuracy"),
        ("digits-mlp", "digit-classification:digits", "top1_accuracy"),
        ("digits-cnn", "digit-classification:digits", "top1_accuracy"),
        ("digits-cnn-wide", "digit-classification:digits", "top1_accuracy"),
        ("minilm-l6", "sentence-embedding:stdlib-docs", "centroid_accuracy"),
    ]
    assert all(x.path.exists() and x.validation.exists() for x in prepared)


def test_queries_are_sampled_from_scored_rows_only(tmp_path: Path) -> None:
    first, *_, last = prepare(filled(tmp_path), lambda *_: None)

    assert list(first.sample) == ["image"]
    assert first.sample["image"].shape == (models.SAMPLE_ROWS, 1, 8, 8)
    assert not (first.sample["image"][:, 0, 0, 0] % 4 == 0).any()
    assert sorted(last.sample) == ["attention_mask", "input_ids"]


def test_progress_names_each_file_and_ends_with_all_done(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []

    prepare(filled(tmp_path), lambda *call: calls.append(call))

    assert calls == [*((name, i, len(FILES)) for i, name in enumerate(FILES)), ("ready", len(FILES), len(FILES))]
