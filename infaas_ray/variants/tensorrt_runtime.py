"""The `tensorrt` runtime: a serialised TensorRT engine on an NVIDIA GPU, by the bindings of TensorRT 10 and 11.

An engine belongs to a GPU model and a TensorRT version, so it is built on the machine that will run it. It takes
batches from 1 to the limit; free dimensions after the batch take from 1 to their length in the validation set, and a
longer input fails. Rule: precision is in the ONNX graph that the engine is built of (TensorRT 11 knows no other way);
only tf32 is a switch. PyTorch owns the buffers, because TensorRT only takes addresses.

TensorRT picks the kernels of an optimisation profile for one shape. An engine therefore has two: one tuned for one
row, up to the square root of the limit, and one tuned for a full batch. Each covers the same ratio of sizes.

Not run: nobody has run it on a GPU yet. One test runs it against a stand-in for `tensorrt`, another looks for every
name that it uses in NVIDIA's bindings.
"""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infaas_ray.domain import Architecture, Array, HardwareKind, TensorSpec, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed
from infaas_ray.variants.torch_runtime import import_torch

_DEVICE = "cuda"
_WORKSPACE_BYTES = 4 << 30
_MOST_REASONS = 4
_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")


class EngineShape(NamedTuple):
    """What an engine is built for."""

    inputs: list[TensorSpec]
    lengths: dict[str, list[int]]  # the usual length of each input's dimensions after the batch, also the greatest
    batch_limit: int
    tf32: bool


class TensorRtRuntime:
    """TensorRT. Precision is inside the engine."""

    extra = "tensorrt"

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "TensorRtModel":
        """Deserialise the engine on the current GPU.

        Raises InvalidModel where TensorRT refuses the file, or the engine does not fit `architecture`; ConfigError
        where there is no GPU, or too little memory on it.
        """
        trt, torch = import_tensorrt(), import_torch()
        if variant.hardware is not HardwareKind.GPU:
            raise ConfigError(f"TensorRT variants run on gpu, not {variant.hardware}")
        if not torch.cuda.is_available():
            raise ConfigError(f"{variant.name} needs a GPU, and the PyTorch here sees none")
        free_before, _ = torch.cuda.mem_get_info()
        runtime = _started(trt, trt.Runtime)
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise InvalidModel(
                f"{variant.name}: TensorRT refuses the engine; if another TensorRT or another GPU built it, register "
                f"the model here ({_log(trt).reasons()})"
            )
        return TensorRtModel(trt, torch, engine, architecture, free_before)

    def versions(self) -> dict[str, str]:
        """The versions of TensorRT and of PyTorch, which moves the data; none where either is missing."""
        found = dict[str, str]()
        for name in ("torch", *_DISTRIBUTIONS):
            with suppress(PackageNotFoundError):
                found.setdefault("torch" if name == "torch" else "tensorrt", version(name))
        return found if len(found) == 2 else {}


class TensorRtModel:
    """An engine, one execution context per optimisation profile, and one stream.

    Contexts of their own, because a context that changes its profile forgets its shapes and may copy.
    """

    def __init__(self, trt: Any, torch: Any, engine: Any, architecture: Architecture, free_before: int) -> None:
        self._torch = torch
        self._log = _log(trt)
        self._engine = engine
        self._free_before = free_before
        self._taken = 0
        self._wanted = architecture.outputs
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._inputs = [x for x in names if engine.get_tensor_mode(x) == trt.TensorIOMode.INPUT]
        self._outputs = [x for x in names if x not in self._inputs]
        missing = [x.name for x in self._wanted if x.name not in self._outputs]
        if missing:
            raise InvalidModel(f"the engine has no output {missing[0]!r}; it has {sorted(self._outputs)}")
        self._dtypes = {x: _dtype(trt, torch, engine, x) for x in names}
        self._stream = torch.cuda.Stream()
        self._contexts = [self._context(trt, profile) for profile in range(engine.num_optimization_profiles)]
        self._stream.synchronize()

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, run, copy out, on the model's own stream, in the first profile that holds the rows."""
        missing = [x for x in self._inputs if x not in inputs]
        if missing:
            raise VariantFailed(f"the model needs input {missing[0]!r}")
        rows = len(inputs[self._inputs[0]])
        context = next((x for most, x in self._contexts if rows <= most), self._contexts[-1][1])
        try:
            with self._torch.cuda.stream(self._stream):
                given = [self._give(context, name, inputs[name]) for name in self._inputs]
                # Every output needs a place, also one that the architecture does not name.
                results = {name: self._room(context, name) for name in self._outputs}
                if not context.execute_async_v3(self._stream.cuda_stream):
                    raise VariantFailed(f"TensorRT could not run this batch: {self._log.reasons()}")
                # A copy to ordinary memory waits for all that the stream was given before.
                arrays = {spec.name: results[spec.name].cpu().numpy() for spec in self._wanted}
        except (RuntimeError, TypeError, ValueError) as error:  # PyTorch and the bindings have no class of their own
            raise VariantFailed(f"TensorRT failed: {error}") from error
        del given
        return {spec.name: arrays[spec.name].astype(spec.dtype, copy=False) for spec in self._wanted}

    def device_memory_bytes(self) -> int:
        """By how much the GPU's free memory has shrunk since the load; right where nobody else uses the GPU.

        Nothing is given back between batches, so what is taken now is the most so far.
        """
        free, _ = self._torch.cuda.mem_get_info()
        self._taken = max(self._taken, self._free_before - free)
        return self._taken

    def close(self) -> None:
        """Drop contexts, then the engine, then what PyTorch keeps for reuse."""
        with suppress(RuntimeError):  # a failed batch may still be running, or may have broken the GPU's context
            self._stream.synchronize()
        self._contexts = []
        self._engine = None
        self._torch.cuda.empty_cache()

    def _context(self, trt: Any, profile: int) -> tuple[int, Any]:
        """The most rows of a profile, and a context that stays in it, with memory for it alone."""
        strategy = trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        context = self._engine.create_execution_context(strategy)
        if context is None or not context.set_optimization_profile_async(profile, self._stream.cuda_stream):
            raise ConfigError(f"the engine does not fit on the GPU: {self._log.reasons()}")
        return self._range(self._inputs[0], profile)[1][0], context

    def _range(self, name: str, profile: int) -> tuple[list[int], list[int]]:
        """The least and the greatest shape of an input in a profile."""
        least, _, most = self._engine.get_tensor_profile_shape(name, profile)
        return list(least), list(most)

    def _give(self, context: Any, name: str, array: Array) -> Any:
        """Bind an input; the tensor must live until the run has ended."""
        if not context.set_input_shape(name, tuple(array.shape)):
            least, most = self._range(name, len(self._contexts) - 1)
            raise VariantFailed(
                f"input {name!r} has shape {list(array.shape)}; the engine was built for {least} to {most} "
                f"({self._log.reasons()})"
            )
        tensor = self._torch.from_numpy(np.require(array, requirements=["C", "W"]))
        return self._bind(context, name, tensor.to(_DEVICE, self._dtypes[name]))

    def _room(self, context: Any, name: str) -> Any:
        """Bind an output, whose shape follows from the inputs' shapes."""
        shape = tuple(context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise VariantFailed(
                f"output {name!r} has shape {list(shape)}: it depends on values, which is not supported"
            )
        return self._bind(context, name, self._torch.empty(shape, dtype=self._dtypes[name], device=_DEVICE))

    def _bind(self, context: Any, name: str, tensor: Any) -> Any:
        if not context.set_tensor_address(name, tensor.data_ptr()):
            raise VariantFailed(f"TensorRT does not take the memory of {name!r}: {self._log.reasons()}")
        return tensor


def build_engine(source: Path, shape: EngineShape, target: Path) -> None:
    """Write the engine of an ONNX file to `target`. Runs in build jobs; minutes.

    Raises InvalidModel with TensorRT's reasons where it refuses the model, ConfigError where it cannot start.
    """
    trt = import_tensorrt()
    builder = _started(trt, trt.Builder)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, _log(trt))
    if not parser.parse(source.read_bytes()):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise InvalidModel(f"TensorRT cannot read {source.name}: {reasons}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if not shape.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on unless it is cleared
    for usual, most in _batches(shape.batch_limit):
        config.add_optimization_profile(_profile(builder, shape, usual, most))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InvalidModel(f"TensorRT cannot build an engine of {source.name}: {_log(trt).reasons()}")
    target.write_bytes(bytes(plan))


def _batches(limit: int) -> list[tuple[int, int]]:
    """The batch size that each profile is tuned for and the greatest that it takes, the smaller profile first."""
    return [(1, isqrt(limit)), (limit, limit)] if limit > 1 else [(1, 1)]


def _profile(builder: Any, shape: EngineShape, usual: int, most: int) -> Any:
    """An optimisation profile for 1 to `most` rows."""
    profile = builder.create_optimization_profile()
    for spec in shape.inputs:
        lengths = shape.lengths[spec.name]
        least = (1, *(1 if length == -1 else length for length in spec.shape[1:]))
        profile.set_shape(spec.name, least, (usual, *lengths), (most, *lengths))
    return profile


def _dtype(trt: Any, torch: Any, engine: Any, name: str) -> Any:
    """PyTorch's dtype of an engine's input or output; InvalidModel where we cannot hold it."""
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise InvalidModel(f"tensor {name!r} gives the shape of another, which cannot be served")
    try:
        return getattr(torch, np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name)
    except TypeError as error:  # of the 16-bit floats NumPy has only one, of the 8-bit ones none
        raise InvalidModel(f"tensor {name!r} is of {engine.get_tensor_dtype(name)}, which cannot be served") from error


def _network_flags(trt: Any) -> int:
    """Strongly typed: types come from the graph. TensorRT 11 knows nothing else, and may lose the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _started(trt: Any, kind: Any) -> Any:
    """A builder or a runtime; ConfigError where TensorRT cannot start, as without a GPU."""
    try:
        return kind(_log(trt))
    except TypeError as error:  # so the bindings say that the library gave none
        raise ConfigError(f"TensorRT cannot start here; it needs an NVIDIA GPU ({_log(trt).reasons()})") from error


@cache
def _log(trt: Any) -> Any:
    """The process's one logger, which keeps the last errors for ours: TensorRT uses the first it meets throughout."""
    errors: deque[str] = deque(maxlen=_MOST_REASONS)

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                errors.append(msg)

        def reasons(self) -> str:
            """What was reported since the last question."""
            told = "; ".join(errors) or "it gave no reason"
            errors.clear()
            return told

    return Log()


def import_tensorrt() -> Any:
    """The module; MissingExtra where it is not installed, or is but its libraries are not."""
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise MissingExtra(
            f"TensorRT is not usable ({error}): pip install 'infaas_ray[tensorrt]'", "tensorrt"
        ) from error
    return tensorrt
