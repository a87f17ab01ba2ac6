"""Reads what a `.pt2` source takes and gives, and exports it to ONNX. Runs in build jobs."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infaas_ray.domain import DATATYPE_OF, TensorSpec
from infaas_ray.errors import InvalidModel, MissingExtra
from infaas_ray.variants.torch_runtime import flat_arguments, import_torch

_HOW_TO_FREE_THE_BATCH = (
    "export with a dynamic batch: "
    'torch.export.export(model, args, dynamic_shapes={"x": {0: torch.export.Dim("batch")}})'
)


def describe(program: Any, names: Sequence[str] | None) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of an exported program.

    Inputs are named by the signature; outputs by `names`, by the keys of a returned dict, or `output` (`output_0`,
    `output_1` where there are more). Raises InvalidModel for a fixed batch, a datatype that cannot be served, or a
    wrong number of names.
    """
    nodes = {x.name: x for x in program.graph.nodes}
    wanted = [name for name, _ in flat_arguments(program) if name]
    returned = next(x for x in program.graph.nodes if x.op == "output").args[0]
    results = list(returned[len(returned) - len(program.graph_signature.user_outputs) :])
    tensors = [(i, x) for i, x in enumerate(results) if hasattr(x, "meta")]
    chosen = _output_names(program, [i for i, _ in tensors], names)
    inputs = [_spec(name, nodes[name].meta["val"]) for name in wanted]
    return inputs, [_spec(name, node.meta["val"]) for name, (_, node) in zip(chosen, tensors, strict=True)]


def export_onnx(program: Any, inputs: Sequence[str], outputs: Sequence[str], target: Path) -> None:
    """Write the program as one ONNX file with these tensor names; free dimensions stay free."""
    torch = import_torch()
    if find_spec("onnxscript") is None:
        raise MissingExtra("exporting to ONNX needs onnxscript: pip install 'infaas_ray[generate]'", "generate")
    torch.onnx.export(
        program,
        (),
        str(target),
        dynamo=True,
        input_names=list(inputs),
        output_names=list(outputs),
        external_data=False,
        verbose=False,
    )


def _spec(name: str, value: Any) -> TensorSpec:
    if not hasattr(value, "shape"):
        raise InvalidModel(f"{name!r} of the exported program is not a tensor but {type(value).__name__}")
    datatype = DATATYPE_OF.get(str(value.dtype).removeprefix("torch."))
    if datatype is None:
        raise InvalidModel(f"tensor {name!r} is {value.dtype}, which cannot be served; convert it inside the model")
    shape = tuple(length if isinstance(length, int) else -1 for length in value.shape)
    if not shape or shape[0] != -1:
        raise InvalidModel(f"tensor {name!r} has the fixed shape {list(shape)}; {_HOW_TO_FREE_THE_BATCH}")
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def _output_names(program: Any, places: list[int], names: Sequence[str] | None) -> list[str]:
    if names is not None:
        if len(names) != len(places):
            raise InvalidModel(f"the model has {len(places)} outputs, but {len(names)} output names were given")
        return list(names)
    count = len(program.graph_signature.user_outputs)
    structure = import_torch().utils._pytree.tree_unflatten(list(range(count)), program.call_spec.out_spec)
    if isinstance(structure, Mapping) and sorted(structure.values(), key=str) == sorted(range(count), key=str):
        key_of = {place: str(key) for key, place in structure.items()}
        return [key_of[place] for place in places]
    return ["output"] if len(places) == 1 else [f"output_{i}" for i in range(len(places))]
