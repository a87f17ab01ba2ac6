"""Validation sets: what is read, how rows are split, and that each fault is named."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.domain import TensorSpec
from infaas_ray.errors import InvalidModel
from infaas_ray.variants.validation import read_validation, synthetic_validation

INPUTS = (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)


def arrays(rows: int = 40, **changed: Any) -> dict[str, object]:
    good = {"x": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), "label": np.arange(rows) % 3}
    return {name: array for name, array in (good | changed).items() if array is not None}


def saved(folder: Path, **content: Any) -> Path:
    path = folder / "validation.npz"
    np.savez(path, **content)
    return path


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"x": None}, "no array 'x'.*label"),
        ({"label": None}, "no array 'label'"),
        ({"label": np.arange(39)}, "'label' has shape .39., but 'x' has 40 rows"),
        ({"label": np.int64(3)}, "'label' has shape"),
        ({"label": np.zeros(40)}, "'label' must be one integer"),
        ({"label": np.arange(40) - 1}, "'label' must be one integer from 0"),
        ({"label": np.full(40, 2**63, np.uint64)}, "'label' must be one integer from 0"),
        ({"x": np.zeros((40, 4))}, "datatype FP64, expected FP32"),
        ({"x": np.zeros((40, 5), np.float32)}, r"shape \[40, 5\], expected \[-1, 4\]"),
        ({"x": np.zeros((9, 4), np.float32), "label": np.zeros(9, int)}, "9 rows; at least 10"),
        ({"x": np.array([object()] * 40)}, "objects are refused"),
        ({"calibration": np.zeros(40, int)}, "one boolean per row"),
        ({"calibration": np.zeros(40, bool)}, "rows on both sides"),
        ({"calibration": np.ones(40, bool)}, "rows on both sides"),
        ({"calibration": np.ones(41, bool)}, "'calibration' has shape"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        read_validation(saved(tmp_path, **arrays(**changed)), INPUTS)


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="no validation file"):
        read_validation(tmp_path / "nothing.npz", INPUTS)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InvalidModel, match=r"not an \.npz"):
        read_validation(tmp_path / "text.npz", INPUTS)
    whole = saved(tmp_path, **arrays()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidModel, match=r"not an \.npz"):
        read_validation(tmp_path / "cut.npz", INPUTS)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InvalidModel, match="savez"):
        read_validation(tmp_path / "one.npy", INPUTS)


@given(rows=st.integers(10, 1500))
def test_without_a_mark_a_quarter_calibrates_and_the_rest_is_scored(
    tmp_path_factory: pytest.TempPathFactory, rows: int
) -> None:
    path = saved(tmp_path_factory.mktemp("npz"), **arrays(rows))
    found = read_validation(path, INPUTS)
    assert len(found.calibration) == min(256, rows // 4)
    assert sorted([*found.calibration, *found.scoring]) == list(range(rows))
    assert np.array_equal(read_validation(path, INPUTS).calibration, found.calibration)


def test_marked_rows_calibrate(tmp_path: Path) -> None:
    mark = np.arange(40) < 7
    found = read_validation(saved(tmp_path, **arrays(calibration=mark)), INPUTS)
    assert found.calibration.tolist() == list(range(7))
    assert found.scoring.tolist() == list(range(7, 40))
    assert np.array_equal(found.rows(found.calibration)["x"], found.inputs["x"][:7])


def test_scoring_rows_are_capped_without_touching_calibration(tmp_path: Path) -> None:
    path = saved(tmp_path, **arrays(100))
    found = read_validation(path, INPUTS, most_scoring_rows=20)
    assert len(found.scoring) == len(set(found.scoring.tolist()) - set(found.calibration.tolist())) == 20


def test_an_array_that_claims_to_be_larger_than_memory_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**14, 4)})
    with pytest.raises(InvalidModel, match="more than fits into memory"):
        read_validation(tmp_path / "huge.npz", INPUTS)


def test_other_arrays_are_ignored_and_labels_may_be_optional(tmp_path: Path) -> None:
    path = saved(tmp_path, **arrays(label=None, other=np.zeros(3)))
    assert read_validation(path, INPUTS, needs_label=False).labels is None


def test_synthetic_rows_fit_the_model_and_repeat() -> None:
    inputs = (*INPUTS, TensorSpec(name="ids", datatype="INT64", shape=(-1, 3)))
    found = synthetic_validation(inputs)
    for spec in inputs:
        spec.check(found.inputs[spec.name])
    assert np.array_equal(found.inputs["x"], synthetic_validation(inputs).inputs["x"])
    assert len(found.calibration) == 0


def test_synthetic_rows_cannot_guess_a_free_length() -> None:
    with pytest.raises(InvalidModel, match="give a validation set"):
        synthetic_validation((TensorSpec(name="ids", datatype="INT64", shape=(-1, -1)),))
