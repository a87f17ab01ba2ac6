"""The `fake` runtime: a model that takes a stated time and gives stated numbers.

It needs no framework, so the serving path can be tried, taught and loaded with any latency, and hardware that is not
there can be imitated. Its artifact is a small JSON file, a `FakeModel`. Rule: the same input gives the same output.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from infaas_ray.domain import Architecture, Array, TensorSpec, Variant
from infaas_ray.errors import InvalidModel, VariantFailed


class FakeLatency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds that a batch takes: `fixed` + `per_row` x rows."""

    fixed: float = 0.0
    per_row: float = 0.0


class FakeModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The artifact. Encode it with `msgspec.json.encode`.

    `outputs` says, for an output by its name, the number that fills it or the input that it repeats (same shape);
    others are zero. Free dimensions other than the batch have length 1. `memory_bytes` are held while it is loaded.
    """

    outputs: dict[str, float | str] = {}
    latency_s: FakeLatency = FakeLatency()
    load_s: float = 0.0
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        if min(self.latency_s.fixed, self.latency_s.per_row, self.load_s, self.memory_bytes) < 0:
            raise ValueError("seconds and bytes must not be negative")


class FakeRuntime:
    """Sleeps instead of computing."""

    extra = ""

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "LoadedFake":
        """Read the JSON file, take `load_s`, hold `memory_bytes`."""
        try:
            model = msgspec.json.decode(path.read_bytes(), type=FakeModel)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidModel(f"{path.name} is not a fake model of variant {variant.name}: {error}") from error
        for name, value in model.outputs.items():
            if name not in {x.name for x in architecture.outputs}:
                raise InvalidModel(f"fake model sets output {name!r}, which {architecture.name!r} does not have")
            if isinstance(value, str) and value not in {x.name for x in architecture.inputs}:
                raise InvalidModel(f"fake model repeats input {value!r}, which {architecture.name!r} does not have")
        time.sleep(model.load_s)
        return LoadedFake(model, architecture.outputs)

    def versions(self) -> dict[str, str]:
        """Nothing influences it."""
        return {}


class LoadedFake:
    """A fake model in memory."""

    def __init__(self, model: FakeModel, outputs: tuple[TensorSpec, ...]) -> None:
        self._model = model
        self._outputs = outputs
        self._ballast = np.ones(model.memory_bytes, np.uint8)  # ones, because untouched zeros occupy no memory

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Sleep for the batch's latency, then give each output."""
        rows = len(next(iter(inputs.values())))
        latency_s = self._model.latency_s.fixed + self._model.latency_s.per_row * rows
        if latency_s:  # a sleep of nothing takes 70 us
            time.sleep(latency_s)
        return {spec.name: self._output(spec, inputs, rows) for spec in self._outputs}

    def device_memory_bytes(self) -> int:
        """It has no device."""
        return 0

    def close(self) -> None:
        """Let go of the memory."""
        self._ballast = np.ones(0, np.uint8)

    def _output(self, spec: TensorSpec, inputs: Mapping[str, Array], rows: int) -> Array:
        value = self._model.outputs.get(spec.name, 0.0)
        if isinstance(value, str):
            if value not in inputs:
                raise VariantFailed(f"fake model repeats input {value!r}, which the query lacks")
            return inputs[value].astype(spec.dtype, copy=True)
        return np.full((rows, *(max(1, length) for length in spec.shape[1:])), value, spec.dtype)
