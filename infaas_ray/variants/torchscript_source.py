"""Turns a TorchScript archive into an ONNX file. Runs in build jobs."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Array
from infaas_ray.errors import InvalidModel
from infaas_ray.variants.torch_runtime import import_torch

_EXAMPLE_ROWS = 2


def input_names(path: Path) -> list[str]:
    """The names of the arguments of its `forward`."""
    return [x.name for x in _load(path).forward.schema.arguments[1:]]


def export_onnx(path: Path, rows: Mapping[str, Array], names: Sequence[str] | None, target: Path) -> None:
    """Write the ONNX file, traced with the first of `rows`; only the batch is free.

    Outputs are called `names`, or `output`, `output_0` ... Raises InvalidModel where their number is another.
    """
    torch = import_torch()
    module = _load(path)
    example = tuple(torch.from_numpy(np.resize(x, (_EXAMPLE_ROWS, *x.shape[1:]))) for x in rows.values())
    with torch.inference_mode():
        given = module(*example)
    leaves = torch.utils._pytree.tree_leaves(given)
    chosen = _output_names(len(leaves), names)
    batch = {name: {0: "batch"} for name in (*rows, *chosen)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter for TorchScript is old; it is the only one that reads it
        torch.onnx.export(
            module,
            example,
            str(target),
            dynamo=False,
            input_names=list(rows),
            output_names=chosen,
            dynamic_axes=batch,
            opset_version=17,
        )


def _output_names(count: int, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    if len(names) != count:
        raise InvalidModel(f"the model has {count} outputs, but {len(names)} output names were given")
    return list(names)


def _load(path: Path) -> Any:
    torch = import_torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and people have such files
            return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise InvalidModel(f"{path.name} is not a TorchScript archive: {error}") from error
