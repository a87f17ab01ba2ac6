"""The `torch` runtime: an exported program (`.pt2`) run by eager PyTorch, on CPU or an NVIDIA GPU.

Rule: inputs go by the names in the program's signature, outputs are named in order by the architecture. Only exported
programs are read, never pickled modules, which could run any code.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Architecture, Array, HardwareKind, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed

_DEVICES = {HardwareKind.CPU: "cpu", HardwareKind.GPU: "cuda"}


class TorchRuntime:
    """Eager PyTorch. Precision is inside the exported program."""

    extra = "torch"

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "TorchModel":
        """Load the program on the variant's hardware; sets PyTorch's thread count for the whole process."""
        torch = import_torch()
        device = _device(torch, variant)
        torch.set_num_threads(variant.threads)
        program = load_program(path)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return TorchModel(torch, program, device, [x.name for x in architecture.outputs])

    def versions(self) -> dict[str, str]:
        """The version of PyTorch."""
        try:
            return {"torch": version("torch")}
        except PackageNotFoundError:
            return {}


class TorchModel:
    """An exported program in memory."""

    def __init__(self, torch: Any, program: Any, device: str, outputs: list[str]) -> None:
        self._torch = torch
        self._device = device
        self._outputs = outputs
        self._module = program.module()
        self._arguments = flat_arguments(program)
        self._spec = program.call_spec.in_spec

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the module without recording gradients."""
        pytree = self._torch.utils._pytree
        flat = [self._tensor(inputs, name) if name else constant for name, constant in self._arguments]
        args, kwargs = pytree.tree_unflatten(flat, self._spec)
        try:
            with self._torch.inference_mode():
                result = self._module(*args, **kwargs)
                leaves = [x for x in pytree.tree_leaves(result) if isinstance(x, self._torch.Tensor)]
                arrays = [x.cpu().numpy() for x in leaves]
        except Exception as error:  # a model may raise anything
            raise VariantFailed(f"PyTorch failed: {type(error).__name__}: {error}") from error
        if len(arrays) != len(self._outputs):
            raise VariantFailed(f"the model gave {len(arrays)} outputs, its architecture names {len(self._outputs)}")
        return dict(zip(self._outputs, arrays, strict=True))

    def close(self) -> None:
        """Drop the module, and the device memory that PyTorch keeps for reuse."""
        self._module = None
        if self._device != "cpu":
            self._torch.cuda.empty_cache()

    def _tensor(self, inputs: Mapping[str, Array], name: str) -> Any:
        if name not in inputs:
            raise VariantFailed(f"the model needs input {name!r}")
        # PyTorch warns about read-only memory and refuses negative strides; a copy has neither.
        array = np.require(inputs[name], requirements=["C", "W"])
        return self._torch.from_numpy(array).to(self._device)


def import_torch() -> Any:
    """The module; MissingExtra where it is not installed."""
    try:
        import torch
        import torch.utils._pytree
    except ImportError as error:
        raise MissingExtra("PyTorch is not installed: pip install 'infaas_ray[torch]'", "torch") from error
    return torch


def load_program(path: Path) -> Any:
    """The exported program in a `.pt2` file; InvalidModel where there is none."""
    import_torch()
    import torch.export

    try:
        with path.open("rb") as file:  # by name it must end in .pt2, which stored artifacts do not
            return torch.export.load(file)
    except Exception as error:  # damaged archives raise whatever the part that failed first raises
        raise InvalidModel(f"{path.name} is not a program saved by torch.export.save: {error}") from error


def flat_arguments(program: Any) -> list[tuple[str, Any]]:
    """The program's arguments in flat order: (name, None) of a tensor, ("", value) of a constant."""
    from torch.export.graph_signature import InputKind, TensorArgument

    user = [x.arg for x in program.graph_signature.input_specs if x.kind is InputKind.USER_INPUT]
    return [(x.name, None) if isinstance(x, TensorArgument) else ("", getattr(x, "value", None)) for x in user]


def _device(torch: Any, variant: Variant) -> str:
    device = _DEVICES.get(variant.hardware)
    if device is None:
        raise ConfigError(f"PyTorch variants run on cpu or gpu, not {variant.hardware}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{variant.name} needs a GPU, and the PyTorch here sees none")
    return device
