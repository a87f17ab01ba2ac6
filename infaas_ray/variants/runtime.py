"""The protocol between INFaaS and a model framework, and the table of frameworks that are known.

A runtime turns one artifact file into a function of a batch. It is loaded in the process that will use it, runs on
one thread at a time, and imports its framework only when loaded. Whoever adds a framework adds one file with a class
that fits `Runtime`, and one line to `RUNTIMES`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from infaas_ray.domain import Architecture, Array, Variant
from infaas_ray.errors import InvalidInput, one_of
from infaas_ray.variants.fake_runtime import FakeRuntime
from infaas_ray.variants.onnx_runtime import OnnxRuntime
from infaas_ray.variants.torch_runtime import TorchRuntime


class LoadedModel(Protocol):
    """A model in memory."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch. All inputs have the same first dimension, and so have all outputs.

        Input arrays may be read-only views; they must not be kept after the return. Raises VariantFailed where the
        model cannot compute this batch.
        """
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
        """Names and versions of the software that influences speed or results."""
        ...


RUNTIMES: dict[str, Runtime] = {
    "torch": TorchRuntime(),
    "onnxruntime": OnnxRuntime(),
    "fake": FakeRuntime(),
}


def runtime_named(name: str) -> Runtime:
    """The runtime of that name; InvalidInput where there is none."""
    if name not in RUNTIMES:
        raise InvalidInput(one_of("runtime", name, list(RUNTIMES)))
    return RUNTIMES[name]


def runtime_of(variant: Variant) -> Runtime:
    """The runtime that a variant asks for."""
    return runtime_named(variant.runtime)
