"""Reads what an `.onnx` source takes and gives, makes it one file, and quantises it. Runs in build jobs."""

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infaas_ray.domain import DATATYPE_OF, Array, TensorSpec
from infaas_ray.errors import InvalidModel, MissingExtra, Refused
from infaas_ray.variants.onnx_runtime import open_session

_HOW_TO_FREE_THE_BATCH = (
    "export with a dynamic batch, in PyTorch: torch.onnx.export(model, args, path, dynamo=True, "
    'dynamic_shapes={"x": {0: "batch"}})'
)
_LEAST_PRODUCT_WEIGHTS = 1 << 17
_PRODUCTS = ["Conv", "MatMul", "Gemm"]
# TensorRT dequantises no 32-bit integers, which quantised biases are. It wants a pair of its own before each input of a
# product, and none after a product, where it would stand between that and what can be fused with it.
_FOR_TENSORRT = {
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
    "OpTypesToExcludeOutputQuantization": _PRODUCTS,
}
_ELEMENT_NAMES = {"float": "float32", "double": "float64"}


def describe(path: Path, names: Sequence[str] | None) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of an ONNX file as ONNX Runtime sees them; `names` chooses among the outputs.

    Raises InvalidModel for a damaged file, a fixed batch, or a datatype that cannot be served.
    """
    session = open_session(path, threads=1, optimize=False)
    outputs = {x.name: x for x in session.get_outputs()}
    chosen = list(outputs) if names is None else list(names)
    missing = [x for x in chosen if x not in outputs]
    if missing:
        raise InvalidModel(f"the model has no output {missing[0]!r}; it has: {', '.join(outputs)}")
    return [_spec(x) for x in session.get_inputs()], [_spec(outputs[name]) for name in chosen]


def single_file(path: Path, target: Path) -> Path:
    """`path` itself where it holds all its weights; otherwise `target`, written with the weights put in.

    Raises InvalidModel where weights lie in a file whose name does not start with the model's file name: such a file
    would not be noticed when it changes.
    """
    onnx = _import_onnx()
    model = onnx.load(str(path), load_external_data=False)
    helper = onnx.external_data_helper
    outside = [x for x in helper._get_all_tensors(model) if helper.uses_external_data(x)]
    if not outside:
        return path
    places = {entry.value for x in outside for entry in x.external_data if entry.key == "location"}
    strange = sorted(x for x in places if not x.startswith(path.name))
    if strange:
        raise InvalidModel(
            f"{path.name} keeps weights in {strange[0]!r}; put them into one file: "
            "onnx.save(onnx.load(path), new_path, save_as_external_data=False)"
        )
    helper.load_external_data_for_model(model, str(path.parent))
    onnx.save(model, str(target))
    return target


def quantize(source: Path, rows: Mapping[str, Array], batch: int, target: Path, *, symmetric: bool = False) -> None:
    """Write `source` with 8-bit weights (signed, per channel) and activations (unsigned), calibrated on `rows`.

    Quantise and dequantise pairs (QDQ) stand in the graph. Unsigned activations with signed weights are what x86's
    dot-product instructions take; the opposite choice runs several times slower there.

    `symmetric` is the form that TensorRT takes: activations are signed around zero, only what convolutions and matrix
    products are given is quantised, and biases stay floats; weights are fp32 before their own pair.
    """
    _import_onnx()
    quantization = importlib.import_module("onnxruntime.quantization")
    prepared = _prepare(source, target.with_suffix(".prepared.onnx"))
    quantization.quantize_static(
        str(prepared),
        str(target),
        _Reader(rows, batch),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=_PRODUCTS if symmetric else None,
        extra_options={
            "ActivationSymmetric": symmetric,
            "WeightSymmetric": True,
            **(_FOR_TENSORRT if symmetric else {}),
        },
    )


def quantize_products(source: Path, target: Path, *, asked: bool) -> None:
    """Write `source` with 8-bit weights (per channel) of its matrix products; activations are scaled as they come.

    Unless `asked` for, Refused where that rarely pays: with convolutions, or with few weights to multiply by.
    """
    onnx = _import_onnx()
    quantization = importlib.import_module("onnxruntime.quantization")
    prepared = _prepare(source, target.with_suffix(".prepared.onnx"))
    graph = onnx.load(str(prepared)).graph
    sizes = {x.name: math.prod(x.dims) for x in graph.initializer}
    products = sum(sizes.get(name, 0) for x in graph.node if x.op_type in ("MatMul", "Gemm") for name in x.input)
    if not asked and any(x.op_type == "Conv" for x in graph.node):
        raise Refused("does not pay: dynamic int8 slows a network with convolutions down; static int8 suits it")
    if not asked and products < _LEAST_PRODUCT_WEIGHTS:
        raise Refused(f"does not pay: dynamic int8 gains nothing on {products} weights of matrix products")
    quantization.quantize_dynamic(
        str(prepared),
        str(target),
        op_types_to_quantize=["MatMul", "Gemm"],
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )


def halve(source: Path, target: Path) -> None:
    """Write `source` with 16-bit floats inside; inputs and outputs stay as they are."""
    onnx = _import_onnx()
    convert = importlib.import_module("onnxruntime.transformers.float16").convert_float_to_float16
    onnx.save(convert(onnx.load(str(source)), keep_io_types=True), str(target))


class _Reader:
    """Calibration rows in batches, as the quantiser asks for them."""

    def __init__(self, rows: Mapping[str, Array], batch: int) -> None:
        count = len(next(iter(rows.values())))
        starts = range(0, count, batch)
        self._batches = iter([{name: x[start : start + batch] for name, x in rows.items()} for start in starts])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def _prepare(source: Path, target: Path) -> Path:
    """Infer shapes and simplify; symbolic shape inference gives up on some graphs, which then go without it."""
    process = importlib.import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    try:
        process(str(source), str(target))
    except Exception:  # its failures share no class
        process(str(source), str(target), skip_symbolic_shape=True)
    return target


def _spec(value: Any) -> TensorSpec:
    element = value.type.removeprefix("tensor(").removesuffix(")")
    datatype = DATATYPE_OF.get(_ELEMENT_NAMES.get(element, element))
    if datatype is None:
        raise InvalidModel(f"tensor {value.name!r} is {value.type}, which cannot be served; use a numeric tensor")
    shape = tuple(length if isinstance(length, int) and length > 0 else -1 for length in value.shape)
    if not shape or shape[0] != -1:
        raise InvalidModel(f"tensor {value.name!r} has the fixed shape {list(shape)}; {_HOW_TO_FREE_THE_BATCH}")
    return TensorSpec(name=value.name, datatype=datatype, shape=shape)


def _import_onnx() -> Any:
    try:
        importlib.import_module("onnx.external_data_helper")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise MissingExtra("onnx is not installed: pip install 'infaas_ray[onnx]'", "onnx") from error
