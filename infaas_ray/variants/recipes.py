"""The ways to make an artifact, and on what hardware each is worth making without being asked.

A recipe says which runtime runs the artifact, in which precision, from which form of the source it is made, and how.
Rule: recipes whose variants won nowhere in our measurements (`torch-compiled` on a CPU, fp16 on a CPU, int8 with
signed activations on x86) exist only where asked for by their label, or not at all. bf16 is worth making where the
processor computes in it.
"""

from dataclasses import dataclass
from enum import StrEnum

from infaas_ray.domain import HardwareKind
from infaas_ray.variants.machine import cpu_flags
from infaas_ray.variants.runtime import RUNTIMES, added_runtimes

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})


class Form(StrEnum):
    """A form of the source model; its file's suffix."""

    PROGRAM = ".pt2"
    ONNX = ".onnx"


class Make(StrEnum):
    """How an artifact is made of that form."""

    AS_IS = "as it is"
    STATIC_INT8 = "8 bits, calibrated, by ONNX Runtime"
    DYNAMIC_INT8 = "8-bit weights of matrix products, by ONNX Runtime"
    NNCF_INT8 = "8 bits, calibrated, by NNCF"
    HALF = "16-bit floats"
    ENGINE = "a TensorRT engine"
    HALF_ENGINE = "a TensorRT engine of 16-bit floats"
    INT8_ENGINE = "a TensorRT engine, 8 bits, calibrated"
    NEURON = "traced for Neuron"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A way to make an artifact. `version` grows when the way changes, so that artifacts are made anew.

    `pays` is the hardware where it is followed by default, `works` where it can be followed.
    """

    runtime: str
    precision: str
    form: Form
    make: Make = Make.AS_IS
    works: tuple[HardwareKind, ...] = (HardwareKind.CPU,)
    pays: tuple[HardwareKind, ...] = (HardwareKind.CPU,)
    needs_bf16: bool = False
    version: int = 1

    @property
    def of_batch(self) -> bool:
        """Whether the artifact is made for a greatest batch and takes none larger."""
        return self.make in (Make.ENGINE, Make.HALF_ENGINE, Make.INT8_ENGINE, Make.NEURON)

    @property
    def label(self) -> str:
        """`runtime-precision`."""
        return f"{self.runtime}-{self.precision}"

    def takes(self, form: Form) -> bool:
        """Whether it can start from this form of source: an ONNX file can be made of a program, not the reverse."""
        return form in (self.form, Form.PROGRAM)

    def pays_on(self, hardware: HardwareKind) -> bool:
        """Whether it is worth following there without being asked."""
        if self.needs_bf16 and hardware is HardwareKind.CPU and not _BF16_FLAGS & cpu_flags():
            return False
        return hardware in self.pays


_CPU, _GPU, _NEURON = (HardwareKind.CPU,), (HardwareKind.GPU,), (HardwareKind.NEURON,)
_BOTH = (HardwareKind.CPU, HardwareKind.GPU)


def _torch(precision: str, *, works: tuple[HardwareKind, ...] = _BOTH) -> Recipe:
    bf16 = precision == "bf16"
    return Recipe(
        runtime="torch", precision=precision, form=Form.PROGRAM, works=works, pays=works, needs_bf16=bf16, version=2
    )


def _compiled(precision: str, *, works: tuple[HardwareKind, ...] = _BOTH) -> Recipe:
    return Recipe(runtime="torch-compiled", precision=precision, form=Form.PROGRAM, works=works, pays=_GPU)


def _onnx(runtime: str, precision: str, make: Make, hardware: tuple[HardwareKind, ...], *, version: int = 1) -> Recipe:
    return Recipe(
        runtime=runtime,
        precision=precision,
        form=Form.ONNX,
        make=make,
        works=hardware,
        pays=hardware,
        version=version,
    )


RECIPES = (
    _torch("fp32"),
    _onnx("onnxruntime", "fp32", Make.AS_IS, _BOTH),
    # The GPU provider runs quantise and dequantise pairs as separate kernels, slower than fp32.
    _onnx("onnxruntime", "int8", Make.STATIC_INT8, _CPU),
    _onnx("onnxruntime", "int8-dynamic", Make.DYNAMIC_INT8, _CPU),
    _onnx("onnxruntime", "fp16", Make.HALF, _GPU),
    _onnx("openvino", "fp32", Make.AS_IS, _CPU),
    Recipe(runtime="openvino", precision="bf16", form=Form.ONNX, needs_bf16=True),
    _onnx("openvino", "int8", Make.NNCF_INT8, _CPU),
    _torch("bf16"),
    _torch("tf32", works=_GPU),
    _torch("fp16", works=_GPU),
    _compiled("fp32"),
    _compiled("bf16"),
    _compiled("tf32", works=_GPU),
    _compiled("fp16", works=_GPU),
    _onnx("tensorrt", "fp32", Make.ENGINE, _GPU, version=2),
    _onnx("tensorrt", "tf32", Make.ENGINE, _GPU, version=2),
    _onnx("tensorrt", "fp16", Make.HALF_ENGINE, _GPU, version=2),
    _onnx("tensorrt", "int8", Make.INT8_ENGINE, _GPU, version=2),
    Recipe(runtime="neuron", precision="fp32", form=Form.PROGRAM, make=Make.NEURON, works=_NEURON, pays=_NEURON),
    Recipe(runtime="neuron", precision="bf16", form=Form.PROGRAM, make=Make.NEURON, works=_NEURON, pays=_NEURON),
)


def all_recipes() -> tuple[Recipe, ...]:
    """Ours, and those of the runtimes that other packages add."""
    added = [
        Recipe(
            runtime=name,
            precision=precision,
            form=Form(f".{runtime.takes}"),
            works=tuple(HardwareKind(x) for x in getattr(runtime, "hardware", ("cpu",))),
            pays=tuple(HardwareKind(x) for x in getattr(runtime, "hardware", ("cpu",))),
        )
        for name, runtime in added_runtimes().items()
        if name not in RUNTIMES and hasattr(runtime, "takes")
        for precision in getattr(runtime, "precisions", ("fp32",))
    ]
    return (*RECIPES, *added)
