"""The protocol between INFaaS and a model framework, and the table of frameworks that are known.

A runtime turns one artifact file into a function of a batch. It is loaded in the process that will use it, runs on
one thread at a time, and imports its framework only when loaded. Whoever adds a framework here adds one file with a
class that fits `Runtime`, and one line to `RUNTIMES`; whoever adds one in a package of their own names such a class
or object in the entry point group `infaas_ray.runtimes`. An added runtime that has the attributes `takes` ("onnx" or
"pt2") and `precisions` gets variants generated: it is handed the fp32 model, and `variant.precision` says the rest.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from infaas_ray.domain import Architecture, Array, HardwareKind, Variant
from infaas_ray.errors import ConfigError, InfaasError, InvalidInput, one_of
from infaas_ray.variants.fake_runtime import FakeRuntime
from infaas_ray.variants.neuron_runtime import NeuronRuntime
from infaas_ray.variants.onnx_runtime import OnnxRuntime
from infaas_ray.variants.openvino_runtime import OpenVinoRuntime
from infaas_ray.variants.tensorrt_runtime import TensorRtRuntime
from infaas_ray.variants.torch_runtime import TorchRuntime

ENTRY_POINTS = "infaas_ray.runtimes"


class LoadedModel(Protocol):
    """A model in memory."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch. All inputs have the same first dimension, and so have all outputs.

        Input arrays may be read-only views; they must not be kept after the return. Outputs must stay as they are
        during later calls. Raises VariantFailed where the model cannot compute this batch.
        """
        ...

    def device_memory_bytes(self) -> int:
        """The most memory that this model has taken on its device so far, as far as the framework tells; else 0."""
        ...

    def close(self) -> None:
        """Give back memory and device resources. The model cannot be used afterwards."""
        ...


class Runtime(Protocol):
    """A model framework."""

    extra: str  # the optional dependency group of this package that brings the framework; empty where none is needed

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> LoadedModel:
        """Load the artifact at `path` with the variant's precision and threads; outputs are named by `architecture`.

        Raises MissingExtra where the framework is not installed, InvalidModel where the file is not a model, and
        ConfigError where the variant's hardware is not usable from this process.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Names and versions of the software that influences speed or results; none where it is not installed."""
        ...


RUNTIMES: dict[str, Runtime] = {
    "torch": TorchRuntime(),
    "torch-compiled": TorchRuntime(compiled=True),
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVinoRuntime(),
    "tensorrt": TensorRtRuntime(),
    "neuron": NeuronRuntime(),
    "fake": FakeRuntime(),
}


def runtime_named(name: str) -> Runtime:
    """The runtime of that name, ours or an added one.

    Raises InvalidInput where there is none, ConfigError where the package that adds it cannot be imported.
    """
    if name in RUNTIMES:
        return RUNTIMES[name]
    added = {x.name: x for x in entry_points(group=ENTRY_POINTS)}
    if name not in added:
        raise InvalidInput(one_of("runtime", name, [*RUNTIMES, *added]))
    return _load(added[name])


def added_runtimes() -> dict[str, Runtime]:
    """Runtimes of other packages by name; those that cannot be imported are left out until somebody names them."""
    found = {}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            found[entry.name] = _load(entry)
        except ConfigError:
            continue
    return found


def installed(runtime: Runtime) -> bool:
    """Whether the runtime's framework is there, judged without importing it."""
    return not runtime.extra or bool(runtime.versions())


def obstacle(runtime: Runtime, hardware: HardwareKind) -> str:
    """Why a runtime cannot compute on that hardware here, judged without importing it; empty where nothing is known.

    A runtime that knows has a method `lacks(hardware)`.
    """
    if not installed(runtime):
        return f"not installed: pip install 'infaas_ray[{runtime.extra}]'"
    ask = getattr(runtime, "lacks", None)
    return "" if ask is None else str(ask(hardware))


def prepares(runtime: Runtime, path: Path, variant: Variant) -> bool:
    """Whether loading the artifact here and now makes something that quickens later loads on this machine.

    A runtime that does such a thing has a method `prepares(path, variant)`.
    """
    ask = getattr(runtime, "prepares", None)
    return ask is not None and bool(ask(path, variant))


def preload(name: str) -> None:
    """Import the framework of a runtime ahead of its first load, so far as the runtime can; never raises our errors.

    A runtime that can has a method `preload()`.
    """
    with suppress(InfaasError):
        work = getattr(runtime_named(name), "preload", None)
        if work is not None:
            work()


@cache
def _load(entry: EntryPoint) -> Runtime:
    try:
        found = entry.load()
        runtime: Runtime = found() if isinstance(found, type) else found
    except Exception as error:  # it is somebody else's module
        raise ConfigError(f"the runtime {entry.name!r} ({entry.value}) cannot be imported: {error}") from error
    return runtime


def runtime_of(variant: Variant) -> Runtime:
    """The runtime that a variant asks for."""
    return runtime_named(variant.runtime)
