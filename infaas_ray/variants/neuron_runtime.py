"""The `neuron` runtime: programs traced by `torch_neuronx` for AWS Inferentia and Trainium.

Neuron code has fixed shapes. An artifact is therefore an archive of one traced program per batch size (powers of two
up to the limit); a batch runs in the smallest that holds it, filled up with its last row. Threads are Neuron cores.

Not run: nobody has run it on Neuron hardware yet; tests run it against a stand-in that traces with plain PyTorch.
"""

import importlib
import io
import os
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Architecture, Array, HardwareKind, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed
from infaas_ray.variants.torch_runtime import flat_arguments, import_torch, load_program

_SUFFIX = ".neuron"
_CAST = {"fp32": "none", "bf16": "matmult"}


class NeuronRuntime:
    """PyTorch programs on Neuron cores. Precision is inside the artifact."""

    extra = "neuron"

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "NeuronModel":
        """Load every batch size's program onto the variant's cores."""
        if variant.hardware is not HardwareKind.NEURON:
            raise ConfigError(f"Neuron variants run on neuron, not {variant.hardware}")
        os.environ["NEURON_RT_NUM_CORES"] = str(variant.threads)  # read when the first program is loaded
        torch = import_torch()
        import_neuron()
        try:
            with zipfile.ZipFile(path) as archive:
                names = {int(x.removesuffix(_SUFFIX)): x for x in archive.namelist() if x.endswith(_SUFFIX)}
                programs = {size: torch.jit.load(io.BytesIO(archive.read(name))) for size, name in names.items()}
                inputs = archive.read("inputs").decode().split("\n")
        except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
            raise InvalidModel(f"{path.name} holds no programs for Neuron: {error}") from error
        return NeuronModel(torch, programs, inputs, architecture)

    def versions(self) -> dict[str, str]:
        """The versions of the tracer and the compiler."""
        found = {}
        for name in ("torch-neuronx", "neuronx-cc"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found


class NeuronModel:
    """Traced programs by batch size."""

    def __init__(self, torch: Any, programs: Mapping[int, Any], inputs: list[str], architecture: Architecture) -> None:
        self._torch = torch
        self._programs = dict(sorted(programs.items()))
        self._inputs = inputs
        self._outputs = architecture.outputs
        if not programs:
            raise InvalidModel("the artifact holds no program")

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the smallest program that holds the batch; one larger than all runs in pieces."""
        missing = [x for x in self._inputs if x not in inputs]
        if missing:
            raise VariantFailed(f"the model needs input {missing[0]!r}")
        rows, largest = len(inputs[self._inputs[0]]), max(self._programs)
        pieces = [
            self._piece([inputs[name][at : at + largest] for name in self._inputs]) for at in range(0, rows, largest)
        ]
        return {
            spec.name: np.concatenate([x[place] for x in pieces]).astype(spec.dtype, copy=False)
            for place, spec in enumerate(self._outputs)
        }

    def device_memory_bytes(self) -> int:
        """Not told by the libraries that this uses."""
        return 0

    def close(self) -> None:
        """Drop the programs, which frees the cores."""
        self._programs = {}

    def _piece(self, arrays: list[Array]) -> list[Array]:
        rows = len(arrays[0])
        size = next(x for x in self._programs if x >= rows)
        filled = [np.concatenate([x, np.repeat(x[-1:], size - rows, axis=0)]) for x in arrays]
        try:
            with self._torch.inference_mode():
                results = self._programs[size](*(self._torch.from_numpy(x) for x in filled))
        except RuntimeError as error:
            raise VariantFailed(f"Neuron failed: {error}") from error
        results = results if isinstance(results, tuple | list) else [results]
        if len(results) != len(self._outputs):
            raise VariantFailed(f"the model gave {len(results)} outputs, its architecture names {len(self._outputs)}")
        return [x[:rows].numpy() for x in results]


def trace(source: Path, rows: Mapping[str, Array], batch_limit: int, precision: str, target: Path) -> None:
    """Write the archive for a `.pt2` source. Runs in build jobs; minutes. `rows` give the inputs' other lengths."""
    torch, neuron = import_torch(), import_neuron()
    program = load_program(source)
    names = [name for name, _ in flat_arguments(program) if name]
    call = _positional(torch, program)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("inputs"), "\n".join(names))
        for size in sorted({min(1 << power, batch_limit) for power in range(batch_limit.bit_length() + 1)}):
            example = tuple(torch.from_numpy(np.resize(rows[x], (size, *rows[x].shape[1:]))) for x in names)
            arguments = ["--auto-cast", _CAST[precision]] + (
                ["--auto-cast-type", "bf16"] if precision == "bf16" else []
            )
            traced = neuron.trace(call, example, compiler_args=arguments)
            buffer = io.BytesIO()
            torch.jit.save(traced, buffer)
            archive.writestr(zipfile.ZipInfo(f"{size}{_SUFFIX}"), buffer.getvalue())


def _positional(torch: Any, program: Any) -> Any:
    """The program as a module of positional tensors that returns a tuple of tensors, which is what can be traced."""
    arguments, spec, pytree = flat_arguments(program), program.call_spec.in_spec, torch.utils._pytree

    class Positional(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = program.module()

        def forward(self, *tensors: Any) -> Any:
            left = iter(tensors)
            flat = [next(left) if name else constant for name, constant in arguments]
            args, kwargs = pytree.tree_unflatten(flat, spec)
            return tuple(x for x in pytree.tree_leaves(self.module(*args, **kwargs)) if isinstance(x, torch.Tensor))

    return Positional()  # an exported program computes as in evaluation, and has no other mode


def import_neuron() -> Any:
    """The tracer; MissingExtra where it is not installed, or only its placeholder from PyPI is."""
    try:
        return importlib.import_module("torch_neuronx")
    except Exception as error:  # the placeholder raises what it likes
        raise MissingExtra(
            "torch-neuronx is not installed: it comes from AWS's package index, "
            "https://pip.repos.neuron.amazonaws.com (extra 'neuron')",
            "neuron",
        ) from error
