"""The `tensorrt` runtime: a serialised TensorRT engine on an NVIDIA GPU, by the bindings of TensorRT 10 and 11.

An engine belongs to a GPU model and a TensorRT version, so it is built on the machine that will run it, for batches
from 1 to the limit. Rule: precision is in the ONNX graph that the engine is built of (TensorRT 11 knows no other way);
only tf32 is a switch. PyTorch owns the buffers, because TensorRT only takes addresses.

Not run: written against the bindings' names, which tests compare; nobody has run it on a GPU yet.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infaas_ray.domain import Architecture, Array, HardwareKind, TensorSpec, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed
from infaas_ray.variants.torch_runtime import import_torch

_WORKSPACE_BYTES = 4 << 30
_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")


class EngineShape(NamedTuple):
    """What an engine is built for."""

    inputs: list[TensorSpec]
    lengths: dict[str, list[int]]  # the usual length of each input's dimensions after the batch
    batch_limit: int
    tf32: bool


class TensorRtRuntime:
    """TensorRT. Precision is inside the engine."""

    extra = "tensorrt"

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "TensorRtModel":
        """Deserialise the engine on the current GPU."""
        trt, torch = import_tensorrt(), import_torch()
        if variant.hardware is not HardwareKind.GPU:
            raise ConfigError(f"TensorRT variants run on gpu, not {variant.hardware}")
        if not torch.cuda.is_available():
            raise ConfigError(f"{variant.name} needs a GPU, and the PyTorch here sees none")
        free_before, _ = torch.cuda.mem_get_info()
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise InvalidModel(
                f"{variant.name}: the engine was built by another TensorRT or for another GPU; register the model here"
            )
        return TensorRtModel(trt, torch, engine, architecture, free_before)

    def versions(self) -> dict[str, str]:
        """The version of TensorRT."""
        for name in _DISTRIBUTIONS:
            try:
                return {"tensorrt": version(name)}
            except PackageNotFoundError:
                continue
        return {}


class TensorRtModel:
    """An engine, one execution context and one stream."""

    def __init__(self, trt: Any, torch: Any, engine: Any, architecture: Architecture, free_before: int) -> None:
        self._torch = torch
        self._engine = engine
        self._context = engine.create_execution_context()
        self._stream = torch.cuda.Stream()
        self._free_before = free_before
        self._taken = 0
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._inputs = [x for x in names if engine.get_tensor_mode(x) == trt.TensorIOMode.INPUT]
        self._dtypes = {x: getattr(torch, np.dtype(trt.nptype(engine.get_tensor_dtype(x))).name) for x in names}
        self._outputs = architecture.outputs
        missing = [x.name for x in self._outputs if x.name not in names]
        if missing:
            raise InvalidModel(f"the engine has no output {missing[0]!r}; it has {sorted(names)}")

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, run, copy out, on the model's own stream."""
        torch = self._torch
        try:
            with torch.cuda.stream(self._stream):
                kept = [self._give(name, inputs[name]) for name in self._inputs]
                results = {spec.name: self._room(spec.name) for spec in self._outputs}
                if not self._context.execute_async_v3(self._stream.cuda_stream):
                    raise VariantFailed("TensorRT could not run this batch")
                arrays = {spec.name: results[spec.name].cpu().numpy() for spec in self._outputs}
            self._stream.synchronize()
        except KeyError as error:
            raise VariantFailed(f"the model needs input {error}") from error
        except RuntimeError as error:
            raise VariantFailed(f"TensorRT failed: {error}") from error
        del kept
        self._taken = max(self._taken, self._free_before - torch.cuda.mem_get_info()[0])
        return {spec.name: arrays[spec.name].astype(spec.dtype, copy=False) for spec in self._outputs}

    def device_memory_bytes(self) -> int:
        """By how much the GPU's free memory has shrunk since the load; right where nobody else uses the GPU."""
        return max(0, self._taken)

    def close(self) -> None:
        """Drop context and engine, and what PyTorch keeps for reuse."""
        self._context = self._engine = None
        self._torch.cuda.empty_cache()

    def _give(self, name: str, array: Array) -> Any:
        """Bind an input; the tensor must live until the run has ended."""
        tensor = self._torch.from_numpy(np.require(array, requirements=["C", "W"]))
        tensor = tensor.to("cuda", self._dtypes[name]).contiguous()
        if not self._context.set_input_shape(name, tuple(tensor.shape)):
            raise VariantFailed(
                f"input {name!r} of shape {list(tensor.shape)} is outside what the engine was built for"
            )
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor

    def _room(self, name: str) -> Any:
        """Bind an output, whose shape follows from the inputs."""
        shape = tuple(self._context.get_tensor_shape(name))
        tensor = self._torch.empty(shape, dtype=self._dtypes[name], device="cuda")
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor


def build_engine(source: Path, shape: EngineShape, target: Path) -> None:
    """Write the engine of an ONNX file. Runs in build jobs; minutes. Raises InvalidModel where TensorRT refuses it."""
    trt = import_tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(source.read_bytes()):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise InvalidModel(f"TensorRT cannot read {source.name}: {reasons}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if not shape.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on unless it is cleared
    profile = builder.create_optimization_profile()
    for spec in shape.inputs:
        least = (1, *(1 if length == -1 else length for length in spec.shape[1:]))
        most = (shape.batch_limit, *shape.lengths[spec.name])
        profile.set_shape(spec.name, least, most, most)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InvalidModel(f"TensorRT cannot build an engine of {source.name}")
    target.write_bytes(bytes(plan))


def _network_flags(trt: Any) -> int:
    """Strongly typed: types come from the graph. TensorRT 11 knows nothing else, and may lose the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def import_tensorrt() -> Any:
    """The module; MissingExtra where it is not installed, or is but its libraries are not."""
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise MissingExtra(
            f"TensorRT is not usable ({error}): pip install 'infaas_ray[tensorrt]'", "tensorrt"
        ) from error
    return tensorrt
