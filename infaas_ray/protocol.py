"""The Open Inference Protocol (V2) over REST, both ends: bodies to arrays and SLOs, and back.

JSON and the binary tensor extension; strict, because a wrong body must be told what would be right. Pure: bytes in,
values out. The SLO rides in the request's `parameters`, or in headers for tools that can only set those.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from infaas_ray.domain import DATATYPES, SLO, Answer, Array, OnMiss, TensorSpec, application_name, datatype_of
from infaas_ray.errors import InvalidInput

JSON_LENGTH_HEADER = "inference-header-content-length"
SLO_PARAMETERS = ("latency_ms", "min_accuracy", "max_usd_per_1k", "on_miss", "offline")
APPLICATION, APPLICATION_HEADER = "application", "x-application"
SLO_HEADERS = {
    "x-slo-latency-ms": "latency_ms",
    "x-slo-min-accuracy": "min_accuracy",
    "x-slo-max-usd-per-1k": "max_usd_per_1k",
    "x-slo-on-miss": "on_miss",
}
# Parameters of the protocol itself, or of its clients, that do not concern the choice of a variant.
_FOREIGN = {"sequence_id", "sequence_start", "sequence_end", "priority", "headers", "binary_data_output", "timeout"}
_NO_SLO_PARAMETERS = {*_FOREIGN, APPLICATION}

_MOST_DIMENSIONS = 32
_MOST_LENGTH = 2**31 - 1

Parameters = dict[str, str | float | bool]
# What is null here is refused by name where the SLO is read, not by its place in the JSON.
RequestParameters = dict[str, str | float | bool | None]
T = TypeVar("T")


class TensorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A tensor in JSON: `data`, or the byte count of its raw data behind the JSON."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw = msgspec.Raw()


class OutputRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An output that the client wants."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The JSON of an inference request."""

    inputs: list[TensorBody]
    id: str = ""
    parameters: RequestParameters = {}
    outputs: list[OutputRequest] = []

    def wants_binary(self, output: str) -> bool:
        """Whether this output goes back as raw bytes; the output's own wish wins over that of the request."""
        default = bool(self.parameters.get("binary_data_output", False))
        own = next((x.parameters.get("binary_data") for x in self.outputs if x.name == output), None)
        return default if own is None else bool(own)


class ExplainRequest(msgspec.Struct, kw_only=True):
    """The JSON of a question why a query of so many rows would go where it goes."""

    parameters: RequestParameters = {}
    rows: Annotated[int, msgspec.Meta(ge=1, le=_MOST_LENGTH)] = 1


_NO_SLO = SLO()
_ON_MISS = {str(x): x for x in OnMiss}
_infer_request = msgspec.json.Decoder(InferRequest).decode
_explain_request = msgspec.json.Decoder(ExplainRequest).decode
_LISTS: Mapping[type, Callable[[Any], Any]] = {
    kind: msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]
    for kind in (bool, float, int)
}
_any = msgspec.json.Decoder().decode
_json = msgspec.json.Encoder()


def whole_number(text: str) -> int | None:
    """The value of a header or path segment made of up to 18 of the digits 0 to 9; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _decoded(decode: Callable[[bytes], T], text: bytes) -> T:
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the request is not as the Open Inference Protocol says: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not valid JSON ({error}); was it cut short?") from None
    except RecursionError:
        raise InvalidInput(
            f"the JSON is nested too deeply; tensors have at most {_MOST_DIMENSIONS} dimensions"
        ) from None


def decode_explain(body: bytes) -> ExplainRequest:
    """The body of a question for an explanation; an empty one asks for one row without an SLO.

    Raises InvalidInput, saying what would be right.
    """
    return _decoded(_explain_request, body or b"{}")


def decode_request(body: bytes, json_length: str | None) -> tuple[InferRequest, dict[str, Array]]:
    """A request body as its JSON part and its input arrays by name.

    `json_length` is the value of the Inference-Header-Content-Length header: the bytes of JSON before the raw
    tensors, None where all is JSON. Raises InvalidInput, saying what would be right.
    """
    if not body:
        raise InvalidInput('the body is empty; send JSON such as {"inputs": [{"name", "shape", "datatype", "data"}]}')
    split = _json_bytes(json_length, len(body))
    request = _decoded(_infer_request, body[:split])
    return request, _arrays(request, memoryview(body)[split:])


def _json_bytes(header: str | None, body_bytes: int) -> int:
    if header is None:
        return body_bytes
    length = whole_number(header)
    if length is None or not 0 < length <= body_bytes:
        raise InvalidInput(
            f"Inference-Header-Content-Length is {header!r:.40}, but must be the bytes of JSON that start the body: "
            f"1 to {body_bytes}"
        )
    return length


def _arrays(request: InferRequest, raw: memoryview) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    offset = 0
    for tensor in request.inputs:
        if tensor.name in arrays:
            raise InvalidInput(f"input {tensor.name!r} appears twice")
        _check_tensor(tensor)
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            arrays[tensor.name] = _from_json(tensor)
        else:
            end = offset + _raw_bytes(tensor, size, len(raw) - offset)
            arrays[tensor.name] = _shaped(np.frombuffer(raw[offset:end], dtype=DATATYPES[tensor.datatype]), tensor)
            offset = end
    if offset != len(raw):
        raise InvalidInput(f"{len(raw) - offset} bytes of raw tensor data belong to no input; check binary_data_size")
    return arrays


def _check_tensor(tensor: TensorBody) -> None:
    if tensor.datatype not in DATATYPES:
        raise InvalidInput(f"input {tensor.name!r} has datatype {tensor.datatype!r}; supported: {', '.join(DATATYPES)}")
    shape = tensor.shape
    if not 1 <= len(shape) <= _MOST_DIMENSIONS or min(shape) < 0 or max(shape) > _MOST_LENGTH:
        raise InvalidInput(
            f"input {tensor.name!r} has shape {list(shape)!r:.100}; give 1 to {_MOST_DIMENSIONS} lengths; "
            "lengths must be 0 or more and below 2**31"
        )


def _shaped(flat: Array, tensor: TensorBody) -> Array:
    try:
        return flat.reshape(tensor.shape)
    except ValueError as error:  # a length of 0 hides that the others multiply to more than an address can hold
        raise InvalidInput(f"input {tensor.name!r}: no array can have shape {list(tensor.shape)}: {error}") from None


def _raw_bytes(tensor: TensorBody, size: Any, left: int) -> int:
    expected = math.prod(tensor.shape) * np.dtype(DATATYPES[tensor.datatype]).itemsize
    if size != expected or expected > left:
        raise InvalidInput(
            f"input {tensor.name!r} of shape {list(tensor.shape)} and datatype {tensor.datatype} needs {expected} raw "
            f"bytes; binary_data_size says {size!r} and {left} are left in the body"
        )
    return expected


def _from_json(tensor: TensorBody) -> Array:
    if not tensor.data:
        raise InvalidInput(f"input {tensor.name!r} has neither 'data' nor 'parameters.binary_data_size'")
    if tensor.datatype == "FP16":
        raise InvalidInput(f"input {tensor.name!r}: FP16 has no JSON form; send it as raw bytes")
    kind = bool if tensor.datatype == "BOOL" else float if tensor.datatype.startswith("FP") else int
    try:
        values: Any = _LISTS[kind](tensor.data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        values = _flatten(tensor, kind)
    count = math.prod(tensor.shape)
    if len(values) != count:
        raise InvalidInput(
            f"input {tensor.name!r} of shape {list(tensor.shape)} needs {count} numbers, got {len(values)}"
        )
    try:
        with np.errstate(over="raise"):
            return _shaped(np.array(values, dtype=DATATYPES[tensor.datatype]), tensor)
    except (OverflowError, FloatingPointError) as error:
        raise InvalidInput(f"input {tensor.name!r} does not fit {tensor.datatype}: {error}") from None


def _flatten(tensor: TensorBody, kind: type) -> list[Any]:
    """Numbers, each checked to be of `kind`, of a flat list or of lists nested exactly as the tensor's shape."""
    values = _decoded(_any, bytes(tensor.data))
    flat = [values]
    nested = isinstance(values, list) and any(isinstance(x, list) for x in values)
    for length in tensor.shape if nested else (None,):
        if not all(isinstance(x, list) and length in (None, len(x)) for x in flat):
            raise InvalidInput(
                f"input {tensor.name!r}: 'data' must be a flat list, or lists nested as the shape {list(tensor.shape)}"
            )
        flat = [y for x in flat for y in x]
    for value in flat:
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise InvalidInput(f"input {tensor.name!r}: {value!r:.80} is not a {tensor.datatype}")
    return flat


def slo_of(parameters: Mapping[str, Any], headers: Mapping[str, str]) -> SLO:
    """The SLO that a request states; its parameters win over its headers.

    Raises InvalidInput for a wrong value and for a parameter that nothing here understands.
    """
    if not parameters and not any(x in headers for x in SLO_HEADERS):
        return _NO_SLO
    unknown = [
        x for x in parameters if x not in SLO_PARAMETERS and x not in _NO_SLO_PARAMETERS and not x.startswith("triton_")
    ]
    if unknown:
        raise InvalidInput(f"unknown parameter {unknown[0]!r}; known: {', '.join((*SLO_PARAMETERS, APPLICATION))}")
    given: dict[str, Any] = {SLO_HEADERS[x]: _header_value(x, headers[x]) for x in SLO_HEADERS if x in headers}
    given.update({x: parameters[x] for x in SLO_PARAMETERS if x in parameters})
    if "latency_ms" not in given and parameters.get("timeout"):
        given["latency_ms"] = _number("timeout", parameters["timeout"]) / 1e3  # the protocol's own, in microseconds
    on_miss = given.get("on_miss", OnMiss.REJECT)
    if not isinstance(on_miss, str) or on_miss not in _ON_MISS:
        raise InvalidInput(f"on_miss must be one of {', '.join(OnMiss)}, not {_shown(on_miss)}")
    latency_ms, min_accuracy, max_usd_per_1k = (
        _number(x, given[x]) if x in given else None for x in ("latency_ms", "min_accuracy", "max_usd_per_1k")
    )
    return SLO(
        latency_s=None if latency_ms is None else latency_ms / 1e3,
        min_accuracy=min_accuracy,
        max_usd_per_1k=max_usd_per_1k,
        on_miss=_ON_MISS[on_miss],
        offline=_flag("offline", given.get("offline", False)),
    )


def application_of(parameters: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The application that a request names in its parameters, or else in its headers; empty where it names none.

    Raises InvalidInput for what is no name.
    """
    if APPLICATION in parameters:
        return application_name(parameters[APPLICATION])
    return application_name(headers[APPLICATION_HEADER]) if APPLICATION_HEADER in headers else ""


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value!r:.80}"


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{name} must be a number, not {_shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise InvalidInput(f"{name} must be a number below 1e308, not one of hundreds of digits") from None


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true or false, not {_shown(value)}")
    return value


def _header_value(name: str, text: str) -> str | float:
    if name == "x-slo-on-miss":
        return text
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"the header {name} must be a number, not {text!r}") from None


def answer_parameters(answer: Answer) -> Parameters:
    """Who answered, at what accuracy, price and time: the `parameters` of a response."""
    return {
        "variant": answer.variant,
        "replica": answer.replica,
        "accuracy": round(answer.accuracy, 6),
        "usd_per_1k": answer.usd_per_1k,
        "queue_ms": round(answer.queue_s * 1e3, 3),
        "compute_ms": round(answer.compute_s * 1e3, 3),
        "latency_ms": round(answer.latency_s * 1e3, 3),
        "batch_rows": answer.batch_rows,
        "slo_met": answer.slo_met,
    }


def encode_response(target: str, request: InferRequest, answer: Answer) -> tuple[bytes, int | None]:
    """The body of a response and, where it carries raw tensors, the bytes of JSON at its start.

    Raises InvalidInput where the request names an output that there is not.
    """
    wanted = [x.name for x in request.outputs] or list(answer.outputs)
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name in wanted:
        if name not in answer.outputs:
            raise InvalidInput(f"there is no output {name!r}; outputs: {', '.join(answer.outputs)}")
        array = answer.outputs[name]
        body: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": datatype_of(array)}
        if request.wants_binary(name):
            raw.append(array.tobytes())
            body["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            body["data"] = array.reshape(-1).tolist()
        outputs.append(body)
    head: dict[str, Any] = {"model_name": target, "model_version": "1"}
    if request.id:
        head["id"] = request.id
    text = _json.encode(head | {"parameters": answer_parameters(answer), "outputs": outputs})
    return (text, None) if not raw else (text + b"".join(raw), len(text))


def encode_request(inputs: Mapping[str, Array], parameters: Mapping[str, Any], query_id: str) -> tuple[bytes, int]:
    """A request body with raw tensors, and the bytes of JSON at its start (for clients)."""
    tensors = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": datatype_of(array),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    head = {"id": query_id, "inputs": tensors, "parameters": dict(parameters) | {"binary_data_output": True}}
    text = _json.encode(head)
    return text + b"".join(np.ascontiguousarray(x).tobytes() for x in inputs.values()), len(text)


def decode_response(body: bytes, json_length: str | None) -> tuple[dict[str, Any], dict[str, Array]]:
    """A response body as its JSON part and its output arrays by name (for clients)."""
    split = len(body) if json_length is None else int(json_length)
    head: dict[str, Any] = msgspec.json.decode(body[:split])
    arrays: dict[str, Array] = {}
    offset = split
    for output in head.get("outputs", ()):
        dtype, shape = DATATYPES[output["datatype"]], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            arrays[output["name"]] = np.array(output["data"], dtype=dtype).reshape(shape)
        else:
            arrays[output["name"]] = np.frombuffer(body[offset : offset + size], dtype=dtype).reshape(shape)
            offset += size
    return head, arrays


def tensor_metadata(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    """Tensor specifications as model metadata gives them."""
    return [{"name": x.name, "datatype": x.datatype, "shape": list(x.shape)} for x in specs]
