"""The `torch` and `torch-compiled` runtimes: an exported program (`.pt2`), on CPU or an NVIDIA GPU.

Rule: inputs go by the names in the program's signature, outputs are named in order by the architecture. Only exported
programs are read, never pickled modules, which could run any code. The file is always the fp32 program: fp16 and bf16
are made of it on loading, and tf32 is how an NVIDIA GPU then multiplies.

Compiled on a GPU, batches are filled up to a power of two, so that each size is compiled and recorded as a CUDA graph
once; `compiled` sees to it that this happens in the load.
"""

import gc
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infaas_ray.domain import Architecture, Array, HardwareKind, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed
from infaas_ray.variants import compiled
from infaas_ray.variants.timing import batch_sizes

_DEVICES = {HardwareKind.CPU: "cpu", HardwareKind.GPU: "cuda"}


class TorchRuntime:
    """PyTorch, eager or compiled by Inductor."""

    extra = "torch"

    def __init__(self, *, compiled: bool = False) -> None:
        self._compiled = compiled

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "TorchModel":
        """Load the program on the variant's hardware; sets PyTorch's thread count for the whole process."""
        torch = import_torch()
        device = _device(torch, variant)
        torch.set_num_threads(variant.threads)
        torch.set_float32_matmul_precision("high" if variant.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = variant.precision == "tf32"
        if self._compiled:
            compiled.set_cache()  # before reading the program, which sets another
        program = load_program(path)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        placement = Placement(device, _dtype(torch, variant), variant.batch_limit, self._compiled)
        if not self._compiled:
            return TorchModel(torch, program, placement, architecture)
        sizes = batch_sizes(variant.batch_limit)
        compiled.allow(torch, sizes)
        model = TorchModel(torch, program, placement, architecture)
        if compiled.warm_up(model, architecture, example_lengths(program), sizes):
            compiled.note_prepared(variant, self.versions())
        return model

    def prepares(self, path: Path, variant: Variant) -> bool:
        """Whether a load here and now compiles what later loads find compiled."""
        return self._compiled and not compiled.is_prepared(variant, self.versions())

    def lacks(self, hardware: HardwareKind) -> str:
        """Why this build cannot compute there; empty where it can."""
        cpu_only = self.versions().get("torch", "").endswith("+cpu")
        return "a build for CPUs alone: install PyTorch for CUDA" if hardware is HardwareKind.GPU and cpu_only else ""

    def preload(self) -> None:
        """Import the framework."""
        import_torch()

    def versions(self) -> dict[str, str]:
        """The version of PyTorch."""
        try:
            return {"torch": version("torch")}
        except PackageNotFoundError:
            return {}


class Placement(NamedTuple):
    """Where and how a program computes; `dtype` is None for fp32 as it is."""

    device: str
    dtype: Any
    batch_limit: int
    compiled: bool


class TorchModel:
    """An exported program in memory."""

    def __init__(self, torch: Any, program: Any, placement: Placement, architecture: Architecture) -> None:
        self._torch = torch
        self._placement = placement
        self._outputs = architecture.outputs
        self._arguments = flat_arguments(program)
        self._spec = program.call_spec.in_spec
        module = program.module()
        if placement.dtype is not None:
            module = narrowed(torch, module, placement.dtype)
        if placement.compiled:
            on_gpu = placement.device != "cpu"
            module = torch.compile(module, dynamic=not on_gpu, mode="reduce-overhead" if on_gpu else None)
        self._module = module

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the module without recording gradients."""
        pytree = self._torch.utils._pytree
        rows = len(next(iter(inputs.values())))
        flat = [self._tensor(inputs, name) if name else constant for name, constant in self._arguments]
        args, kwargs = pytree.tree_unflatten(flat, self._spec)
        try:
            with self._torch.inference_mode():
                result = self._module(*args, **kwargs)
                leaves = [x for x in pytree.tree_leaves(result) if isinstance(x, self._torch.Tensor)]
                arrays = [self._array(x[:rows]) for x in leaves]
        except Exception as error:  # a model may raise anything
            raise VariantFailed(f"PyTorch failed: {type(error).__name__}: {error}") from error
        if len(arrays) != len(self._outputs):
            raise VariantFailed(f"the model gave {len(arrays)} outputs, its architecture names {len(self._outputs)}")
        return {
            spec.name: array.astype(spec.dtype, copy=False) for spec, array in zip(self._outputs, arrays, strict=True)
        }

    def device_memory_bytes(self) -> int:
        """The most that PyTorch has reserved on the GPU."""
        return int(self._torch.cuda.max_memory_reserved()) if self._placement.device != "cpu" else 0

    def close(self) -> None:
        """Drop the module, and what PyTorch keeps for reuse: compiled code and device memory."""
        self._module = None
        gc.collect()  # an exported module holds itself in cycles, weights included
        if self._placement.compiled:
            self._torch.compiler.reset()
        if self._placement.device != "cpu":
            self._torch.cuda.empty_cache()

    def _tensor(self, inputs: Mapping[str, Array], name: str) -> Any:
        if name not in inputs:
            raise VariantFailed(f"the model needs input {name!r}")
        # PyTorch warns about read-only memory and refuses negative strides; a copy has neither.
        array = np.require(self._filled(inputs[name]), requirements=["C", "W"])
        tensor = self._torch.from_numpy(array).to(self._placement.device)
        narrow = self._placement.dtype is not None and tensor.is_floating_point()
        return tensor.to(self._placement.dtype) if narrow else tensor

    def _filled(self, array: Array) -> Array:
        """The rows, and on a compiled GPU the last one again up to a power of two."""
        if not self._placement.compiled or self._placement.device == "cpu":
            return array
        wanted = max(len(array), min(1 << (len(array) - 1).bit_length(), self._placement.batch_limit))
        missing = wanted - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array

    def _array(self, tensor: Any) -> Array:
        narrow = self._placement.dtype is not None and tensor.is_floating_point()
        found: Array = (tensor.float() if narrow else tensor).cpu().numpy()
        return found


def narrowed(torch: Any, module: Any, dtype: Any) -> Any:
    """An exported module with fp32 weights turned into `dtype`, and its graph with them.

    The graph names fp32 where it makes or converts tensors, and asserts it in places; both would undo the conversion.
    """
    for node in list(module.graph.nodes):
        if "_assert_tensor_metadata" in str(node.target):
            module.graph.erase_node(node)
            continue
        node.args = tuple(dtype if x is torch.float32 else x for x in node.args)
        node.kwargs = {key: dtype if x is torch.float32 else x for key, x in node.kwargs.items()}
    module.recompile()
    return module.to(dtype)


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


def example_lengths(program: Any) -> dict[str, tuple[int, ...]]:
    """Lengths after the batch of the inputs that the program was exported with; none where it does not keep them."""
    from torch.utils._pytree import tree_leaves

    leaves = tree_leaves(program.example_inputs) if program.example_inputs else []
    named = zip(flat_arguments(program), leaves, strict=False)
    return {name: tuple(leaf.shape[1:]) for (name, _), leaf in named if name and hasattr(leaf, "shape")}


def _dtype(torch: Any, variant: Variant) -> Any:
    known = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if variant.precision not in known:
        raise ConfigError(f"{variant.name}: PyTorch variants compute in {', '.join(known)}")
    if variant.precision == "tf32" and variant.hardware is not HardwareKind.GPU:
        raise ConfigError(f"{variant.name}: only a GPU computes in tf32")
    return known[variant.precision]


def _device(torch: Any, variant: Variant) -> str:
    device = _DEVICES.get(variant.hardware)
    if device is None:
        raise ConfigError(f"PyTorch variants run on cpu or gpu, not {variant.hardware}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{variant.name} needs a GPU, and the PyTorch here sees none")
    return device
