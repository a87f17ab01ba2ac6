"""A stand-in for `tensorrt` that needs no GPU.

It writes down what it is asked to build. Its engines compute with ONNX Runtime on what lies at the addresses that
they are given, refuse shapes outside the profile, and refuse to run where a tensor has no address.
"""

import ctypes
import io
import pickle
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakSet

import numpy as np
import onnx
import onnxruntime

Severity = IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
DataType = IntEnum("DataType", ["FLOAT", "HALF", "INT32", "INT64", "BF16"], start=0)
TensorIOMode = IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0)
TensorLocation = IntEnum("TensorLocation", ["DEVICE", "HOST"], start=0)
NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT32: np.int32, DataType.INT64: np.int64}
OF_ONNX = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
}
Shapes = dict[str, tuple[Any, Any, Any]]


@dataclass
class Seen:
    """What was asked for, and what shall go wrong."""

    network_flags: int = -1
    limits: dict[str, int] = field(default_factory=dict)
    cleared: list[str] = field(default_factory=list)
    profiles: list[Shapes] = field(default_factory=list)
    graph: bytes = b""
    strategies: list[str] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)  # profile, rows, stream
    alive: WeakSet[Any] = field(default_factory=WeakSet)
    wrong: str = ""


class ILogger:
    INTERNAL_ERROR, ERROR, INFO = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.INFO

    def __init__(self) -> None:
        self.ready = True


def nptype(kind: DataType) -> type:
    if kind not in NUMPY:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return NUMPY[kind]


class Builder:
    def __init__(self, seen: Seen, logger: Any) -> None:
        if seen.wrong == "no gpu":
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        assert logger.ready  # the base class was initialised
        self.seen, self.logger = seen, logger

    def create_network(self, flags: int) -> SimpleNamespace:
        self.seen.network_flags = flags
        return SimpleNamespace()

    def create_builder_config(self) -> SimpleNamespace:
        return SimpleNamespace(
            set_memory_pool_limit=self.seen.limits.__setitem__,
            clear_flag=self.seen.cleared.append,
            add_optimization_profile=lambda profile: self.seen.profiles.append(profile.shapes),
        )

    def create_optimization_profile(self) -> SimpleNamespace:
        shapes: Shapes = {}
        return SimpleNamespace(
            shapes=shapes, set_shape=lambda name, least, usual, most: shapes.update({name: (least, usual, most)})
        )

    def build_serialized_network(self, network: SimpleNamespace, _config: Any) -> bytes | None:
        self.logger.log(Severity.INFO, "something of no interest")
        if self.seen.wrong == "build":
            self.logger.log(Severity.ERROR, "no tactic for {Conv}")
            return None
        return pickle.dumps((self.seen.profiles, network.graph))


class OnnxParser:
    def __init__(self, seen: Seen, network: SimpleNamespace, _logger: Any) -> None:
        self.seen, self.network = seen, network
        self.errors = ["node 0: unsupported", "node 3: wrong type"] if seen.wrong == "parse" else []
        self.num_errors, self.get_error = len(self.errors), self.errors.__getitem__

    def parse(self, graph: bytes) -> bool:
        self.seen.graph = self.network.graph = graph
        return not self.errors


class Runtime:
    def __init__(self, seen: Seen, logger: Any) -> None:
        self.seen, self.logger = seen, logger

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        try:
            return Engine(self.seen, self.logger, *pickle.load(io.BytesIO(plan)))
        except pickle.UnpicklingError:
            self.logger.log(Severity.ERROR, "Serialization assertion failed")
            return None


class Engine:
    def __init__(self, seen: Seen, logger: Any, profiles: list[Shapes], graph: bytes) -> None:
        self.seen, self.logger, self.profiles = seen, logger, profiles
        model = onnx.load_from_string(graph).graph
        self.given = {x.name: x for x in model.input}
        self.tensors = self.given | {x.name: x for x in model.output}
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), len(profiles)
        seen.alive.add(self)

    def get_tensor_name(self, place: int) -> str:
        return list(self.tensors)[place]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.given else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        if self.seen.wrong == "bf16":
            return DataType.BF16
        return OF_ONNX[self.tensors[name].type.tensor_type.elem_type]

    def get_tensor_location(self, _name: str) -> TensorLocation:
        return TensorLocation.HOST if self.seen.wrong == "host" else TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Any]:
        return list(self.profiles[profile][name])

    def create_execution_context(self, strategy: str) -> "Context | None":
        self.seen.strategies.append(strategy)
        if self.seen.wrong == "memory":
            self.logger.log(Severity.INTERNAL_ERROR, "out of memory")
            return None
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.profile = engine, -1
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        engine.seen.alive.add(self)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream > 0
        self.profile = profile
        self.shapes.clear()
        return profile < self.engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.profiles[self.profile][name]
        fits = len(shape) == len(least) and all(a <= x <= b for a, x, b in zip(least, shape, most, strict=True))
        if fits:
            self.shapes[name] = shape
        else:
            self.engine.logger.log(Severity.ERROR, "no profile")
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.engine.seen.wrong == "shapes":  # inputs that do not go together give dimensions of length -1
            raise ValueError("__len__() should return >= 0")
        if self.engine.seen.wrong == "values":
            return (-1, 5)
        zeros = {x: np.zeros(shape, self.dtype(x)) for x, shape in self.shapes.items()}
        return tuple(self.engine.session.run([name], zeros)[0].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address != 0

    def execute_async_v3(self, stream: int) -> bool:
        seen, engine = self.engine.seen, self.engine
        if seen.wrong == "raise":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if seen.wrong == "run" or set(self.addresses) != set(engine.tensors):
            engine.logger.log(Severity.ERROR, "enqueueV3: a tensor has no address")
            return False
        inputs = {name: self.memory(name, self.shapes[name]).copy() for name in engine.given}
        names = [x for x in engine.tensors if x not in engine.given]
        for name, array in zip(names, engine.session.run(names, inputs), strict=True):
            self.memory(name, array.shape)[...] = array
        seen.runs.append((self.profile, len(next(iter(inputs.values()))), stream))
        return True

    def dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(nptype(self.engine.get_tensor_dtype(name)))

    def memory(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        dtype = self.dtype(name)
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self.addresses[name]), dtype).reshape(shape)


def stand_in(seen: Seen) -> ModuleType:
    """The module `tensorrt`."""
    module: Any = ModuleType("tensorrt")
    module.ILogger, module.nptype = ILogger, nptype
    module.TensorIOMode, module.TensorLocation, module.DataType = TensorIOMode, TensorLocation, DataType
    module.Builder = lambda logger: Builder(seen, logger)
    module.OnnxParser = lambda network, logger: OnnxParser(seen, network, logger)
    module.Runtime = lambda logger: Runtime(seen, logger)
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    module.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    module.BuilderFlag = SimpleNamespace(TF32="tf32")
    module.ExecutionContextAllocationStrategy = SimpleNamespace(ON_PROFILE_CHANGE="on profile change")
    found: ModuleType = module
    return found
