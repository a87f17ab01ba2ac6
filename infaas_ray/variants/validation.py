"""Reads the validation set: the rows on which variants are calibrated and scored.

The file is an `.npz`: one preprocessed array per input name, integer `label`, and optionally boolean `calibration`.
Rule: calibration rows and scoring rows are disjoint. Without `calibration` a fixed seeded quarter of the rows, at most
256, calibrates. Other arrays are ignored, so that architectures of one use case can share a file.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infaas_ray.domain import Array, TensorSpec
from infaas_ray.errors import InvalidInput, InvalidModel

LEAST_ROWS = 10
_MOST_CALIBRATION_ROWS = 256
_SYNTHETIC_ROWS = 64
_SEED = 0
_GREATEST_LABEL = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSet:
    """Input arrays by name and labels (None where accuracy is declared); two disjoint sets of row numbers."""

    inputs: Mapping[str, Array]
    labels: Array | None
    calibration: Array
    scoring: Array

    def rows(self, numbers: Array) -> dict[str, Array]:
        """The input rows of these numbers."""
        return {name: array[numbers] for name, array in self.inputs.items()}


def read_validation(
    path: Path, inputs: Sequence[TensorSpec], *, needs_label: bool = True, most_scoring_rows: int | None = None
) -> ValidationSet:
    """Read and check a validation file for a model with these inputs; scores at most `most_scoring_rows` rows.

    Raises InvalidModel that says what is wrong: no such file, not an `.npz`, objects, a missing array, rows that
    disagree, a datatype or shape that the model does not take, or fewer than 10 rows.
    """
    arrays = _read(path, [x.name for x in inputs])
    found = {}
    for spec in inputs:
        try:
            spec.check(arrays[spec.name])
        except InvalidInput as error:
            raise InvalidModel(f"{path.name}: {error}") from error
        found[spec.name] = arrays[spec.name]
    rows = len(next(iter(found.values())))
    for name, array in arrays.items():
        if array.shape[:1] != (rows,):
            raise InvalidModel(
                f"{path.name}: {name!r} has shape {list(array.shape)}, but {inputs[0].name!r} has {rows} rows"
            )
    if rows < LEAST_ROWS:
        raise InvalidModel(f"{path.name} has {rows} rows; at least {LEAST_ROWS} are needed to measure anything")
    labels = _labels(path, arrays, needs_label)
    calibration, scoring = _split(path, arrays.get("calibration"), rows)
    return ValidationSet(
        inputs=found, labels=labels, calibration=calibration, scoring=_at_most(scoring, most_scoring_rows)
    )


def synthetic_validation(inputs: Sequence[TensorSpec]) -> ValidationSet:
    """Seeded random rows without labels, for latency and fidelity where no validation set is given.

    Raises InvalidModel for an input with a free dimension besides the batch: its usual length cannot be guessed.
    """
    random = np.random.default_rng(_SEED)
    found: dict[str, Array] = {}
    for spec in inputs:
        if -1 in spec.shape[1:]:
            raise InvalidModel(
                f"input {spec.name!r} has shape {list(spec.shape)}: give a validation set, so that free dimensions get "
                "their usual length"
            )
        shape = (_SYNTHETIC_ROWS, *spec.shape[1:])
        is_float = np.issubdtype(spec.dtype, np.floating)
        values = random.standard_normal(shape) if is_float else random.integers(0, 2, shape)
        found[spec.name] = values.astype(spec.dtype)
    none = np.arange(0)
    return ValidationSet(inputs=found, labels=None, calibration=none, scoring=np.arange(_SYNTHETIC_ROWS))


def _read(path: Path, inputs: Sequence[str]) -> dict[str, Array]:
    try:
        with path.open("rb") as opened:  # NumPy would leave the file open where the archive is damaged
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InvalidModel(f"{path.name} holds one array; save the validation set with numpy.savez")
            missing = [name for name in inputs if name not in file.files]
            if missing:
                listed = ", ".join(file.files) or "nothing"
                raise InvalidModel(f"{path.name} has no array {missing[0]!r} for that input; it has: {listed}")
            return {name: file[name] for name in file.files if name in (*inputs, "label", "calibration")}
    except FileNotFoundError:
        raise InvalidModel(f"there is no validation file {path}") from None
    except MemoryError as error:
        raise InvalidModel(f"{path.name} says that it holds more than fits into memory: {error}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidModel(
            f"{path.name} is not an .npz file of plain arrays (objects are refused, they could run code): {error}"
        ) from error


def _labels(path: Path, arrays: Mapping[str, Array], needed: bool) -> Array | None:
    if "label" not in arrays:
        if needed:
            raise InvalidModel(f"{path.name} has no array 'label', so accuracy cannot be measured")
        return None
    labels = arrays["label"]
    if labels.ndim != 1 or labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() > _GREATEST_LABEL:
        raise InvalidModel(
            f"{path.name}: 'label' must be one integer from 0 per row, not {labels.dtype} of shape {list(labels.shape)}"
        )
    return labels.astype(np.int64)


def _split(path: Path, marked: Array | None, rows: int) -> tuple[Array, Array]:
    if marked is None:
        order = np.random.default_rng(_SEED).permutation(rows)
        count = min(_MOST_CALIBRATION_ROWS, rows // 4)
        return np.sort(order[:count]), np.sort(order[count:])
    if marked.dtype != np.bool_ or marked.ndim != 1:
        raise InvalidModel(f"{path.name}: 'calibration' must be one boolean per row, not {marked.dtype}")
    if marked.all() or not marked.any():
        raise InvalidModel(f"{path.name}: 'calibration' must leave rows on both sides; it marks all or none")
    return np.flatnonzero(marked), np.flatnonzero(~marked)


def _at_most(numbers: Array, most: int | None) -> Array:
    if most is None or len(numbers) <= most:
        return numbers
    return np.sort(np.random.default_rng(_SEED).choice(numbers, most, replace=False))
