"""How right a variant is: named accuracy metrics, and its fidelity to the reference variant.

A metric marks each scored row right or wrong; the accuracy is the share of right rows, with the standard error of a
share, sqrt(p (1 - p) / n). All in NumPy: the usual libraries cost seconds to import in every process.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from infaas_ray.domain import Accuracy, Array
from infaas_ray.errors import InvalidModel, one_of

Right = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """First output and integer labels, of the rows to score and of the calibration rows; row counts agree."""

    outputs: Array
    labels: Array
    calibration_outputs: Array
    calibration_labels: Array


def score(metric: str, scored: Scored) -> Accuracy:
    """The accuracy under a named metric. Raises InvalidModel for an unknown name or outputs that do not suit it."""
    right = metric_named(metric)(scored)
    value = float(right.mean())
    error = math.sqrt(value * (1 - value) / len(right))
    return Accuracy(value=value, metric=metric, rows=len(right), standard_error=error)


def metric_named(name: str) -> Callable[[Scored], Right]:
    """The metric of that name; InvalidModel where there is none."""
    if name not in METRICS:
        raise InvalidModel(one_of("metric", name, list(METRICS)))
    return METRICS[name]


def mean_cosine(outputs: Array, reference: Array) -> float:
    """Mean over rows of the cosine between two arrays of equal shape; 1 says that they agree.

    Rows of one number are compared as one vector (a number's cosine is only its sign). NaN where values are not
    finite, 0 where shapes differ.
    """
    if outputs.shape != reference.shape:
        return 0.0
    a, b = _flat(outputs), _flat(reference)
    if a.shape[1] == 1:
        a, b = a.T, b.T
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    cosines = np.divide(products, norms, out=np.where(both_zero, 1.0, 0.0), where=norms != 0)
    return float(cosines.mean())


def _top1(scored: Scored) -> Right:
    """The largest of the class scores is at the label."""
    if scored.outputs.ndim != 2 or scored.outputs.shape[1] < 2:
        raise InvalidModel(
            f"top1_accuracy needs a first output of shape [rows, classes], not {list(scored.outputs.shape)}; choose "
            "another output (--output, output_names) or metric"
        )
    if scored.labels.max() >= scored.outputs.shape[1]:
        raise InvalidModel(
            f"label {scored.labels.max()} is not among the {scored.outputs.shape[1]} classes of the first output"
        )
    return np.asarray(scored.outputs.argmax(axis=1) == scored.labels)


def _binary(scored: Scored) -> Right:
    """One score per row is on the label's side: above 0.5 for probabilities (all in 0..1), above 0 for logits."""
    scores = _flat(scored.outputs)
    if scores.shape[1] != 1:
        raise InvalidModel(
            f"binary_accuracy needs one number per row in the first output, not shape {list(scored.outputs.shape)}"
        )
    if not np.isin(scored.labels, (0, 1)).all():
        raise InvalidModel("binary_accuracy needs labels that are 0 or 1")
    threshold = 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0.0
    return np.asarray((scores[:, 0] > threshold) == (scored.labels == 1))


def _centroid(scored: Scored) -> Right:
    """The class whose mean calibration embedding has the greatest cosine with the row's embedding is the label."""
    classes = np.unique(scored.calibration_labels)
    missing = np.setdiff1d(scored.labels, classes)
    if missing.size:
        raise InvalidModel(f"centroid_accuracy needs calibration rows of every class; class {missing[0]} has none")
    calibration = _normal(_flat(scored.calibration_outputs))
    centroids = np.stack([calibration[scored.calibration_labels == x].mean(axis=0) for x in classes])
    nearest = (_normal(_flat(scored.outputs)) @ _normal(centroids).T).argmax(axis=1)
    return np.asarray(classes[nearest] == scored.labels)


METRICS: Mapping[str, Callable[[Scored], Right]] = {
    "top1_accuracy": _top1,
    "binary_accuracy": _binary,
    "centroid_accuracy": _centroid,
}


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _normal(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)
