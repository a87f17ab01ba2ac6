"""Turns a scikit-learn estimator into an ONNX file: classifiers give `probabilities`, others `output`.

A pickled estimator is only read in a build job, which sees no credentials, and only where its owner allowed it: its
code runs with the rights of whoever registers.
"""

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.errors import InvalidModel, MissingExtra

INPUT = "x"


def is_estimator(source: object) -> bool:
    """Whether an object is a fitted estimator as scikit-learn makes them, judged without importing it."""
    return hasattr(source, "predict") and hasattr(source, "get_params") and hasattr(source, "n_features_in_")


def read(path: Path) -> Any:
    """The estimator in a pickle or joblib file. Runs the code in it."""
    try:
        if path.suffix == ".joblib":
            found = importlib.import_module("joblib").load(path)
        else:
            with path.open("rb") as file:
                found = pickle.load(file)  # noqa: S301 - the owner allowed it
    except Exception as error:  # unpickling raises anything
        raise InvalidModel(f"{path.name} cannot be unpickled: {type(error).__name__}: {error}") from error
    if not is_estimator(found):
        raise InvalidModel(f"{path.name} holds no fitted scikit-learn estimator but {type(found).__name__}")
    return found


def export_onnx(estimator: Any, target: Path) -> None:
    """Write an estimator as ONNX: input `x` FP32 [n, features]. Raises InvalidModel where it has no ONNX form."""
    try:
        skl2onnx = importlib.import_module("skl2onnx")
        types = importlib.import_module("skl2onnx.common.data_types")
    except ImportError as error:
        raise MissingExtra("skl2onnx is not installed: pip install 'infaas_ray[sklearn]'", "sklearn") from error
    classifies = hasattr(estimator, "predict_proba")
    options = {id(estimator): {"zipmap": False}} if classifies else None
    shape = types.FloatTensorType([None, int(estimator.n_features_in_)])
    outputs = ["label", "probabilities"] if classifies else ["output"]
    try:
        model = skl2onnx.to_onnx(
            estimator,
            initial_types=[(INPUT, shape)],
            options=options,
            final_types=None,
            target_opset={"": 17, "ai.onnx.ml": 3},
        )
    except Exception as error:  # its converters raise what they like
        raise InvalidModel(f"scikit-learn's {type(estimator).__name__} has no ONNX form: {error}") from error
    _keep_outputs(model, outputs)
    target.write_bytes(model.SerializeToString())


def _keep_outputs(model: Any, names: list[str]) -> None:
    """Rename outputs, and drop the label of a classifier: its probabilities say more."""
    onnx = importlib.import_module("onnx")
    graph = model.graph
    for output, name in zip(graph.output, names, strict=False):
        old = output.name
        identity = onnx.helper.make_node("Identity", [old], [name])
        if old != name:
            graph.node.append(identity)
            output.name = name
    if names[-1] == "probabilities":
        kept = graph.output[1]
        del graph.output[:]
        graph.output.append(kept)
    for output in graph.output:
        dimensions = output.type.tensor_type.shape.dim
        if dimensions:
            dimensions[0].Clear()
            dimensions[0].dim_param = "batch"


def labels_of(estimator: Any) -> np.ndarray[Any, Any] | None:
    """The classes of a classifier, in the order of its probabilities."""
    found: np.ndarray[Any, Any] | None = getattr(estimator, "classes_", None)
    return found
