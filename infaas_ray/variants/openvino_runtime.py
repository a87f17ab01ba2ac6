"""The `openvino` runtime: an ONNX file, or OpenVINO's own form of it, on a CPU.

Rule: precision and threads are always said. Left to itself OpenVINO computes in bf16 where the processor can, uses
all cores, and pins its threads to them, which starves the other replicas of a machine.

OpenVINO's form is two files; the artifact is both in one uncompressed archive, so that the weights can be mapped.
"""

import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from infaas_ray.domain import Architecture, Array, HardwareKind, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed

# int8 is inside the model; what is not quantised there stays fp32.
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
_XML, _WEIGHTS = "model.xml", "model.bin"
_LOCAL_HEADER_BYTES = 30


class OpenVinoRuntime:
    """OpenVINO on a CPU. fp32 and bf16 are how it computes, int8 is in the artifact."""

    extra = "openvino"

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "OpenVinoModel":
        """Compile the model for the variant's threads and precision."""
        openvino = import_openvino()
        if variant.hardware is not HardwareKind.CPU:
            raise ConfigError(f"OpenVINO variants run on cpu, not {variant.hardware}")
        if variant.precision not in _HINTS:
            raise ConfigError(f"{variant.name}: OpenVINO computes in {', '.join(_HINTS)}")
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[variant.precision],
            "INFERENCE_NUM_THREADS": variant.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
        }
        core = openvino.Core()
        model = read_model(core, path)
        try:
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise InvalidModel(f"OpenVINO cannot compile {path.name}: {error}") from error
        given = {name for output in compiled.outputs for name in output.get_names()}
        missing = [x.name for x in architecture.outputs if x.name not in given]
        if missing:
            raise InvalidModel(f"{variant.name}: the model has no output {missing[0]!r}; it has {sorted(given)}")
        return OpenVinoModel(compiled, architecture)

    def preload(self) -> None:
        """Import the framework."""
        import_openvino()

    def versions(self) -> dict[str, str]:
        """The version of OpenVINO."""
        try:
            return {"openvino": version("openvino")}
        except PackageNotFoundError:
            return {}


class OpenVinoModel:
    """A compiled model and its one request."""

    def __init__(self, compiled: Any, architecture: Architecture) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [next(iter(x.get_names())) for x in compiled.inputs]
        self._dtypes = {x.name: x.dtype for x in architecture.outputs}

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the request; inputs that the graph does not use are left out."""
        try:
            # OpenVINO reads NumPy's memory in place, but only if rows follow each other and may be written.
            given = {name: np.require(inputs[name], requirements=["C", "W"]) for name in self._inputs}
        except KeyError as error:
            raise VariantFailed(f"the model needs input {error}") from error
        try:
            results = self._request.infer(given, share_inputs=True)
            return {name: np.asarray(results[name]).astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        except Exception as error:  # OpenVINO raises RuntimeError, its conversions others
            raise VariantFailed(f"OpenVINO failed: {error}") from error

    def device_memory_bytes(self) -> int:
        """It computes in main memory."""
        return 0

    def close(self) -> None:
        """Drop the request and with it the compiled model, which frees both."""
        self._request = None


def import_openvino() -> Any:
    """The module; MissingExtra where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("OpenVINO is not installed: pip install 'infaas_ray[openvino]'", "openvino") from error
    return openvino


def read_model(core: Any, path: Path) -> Any:
    """The model in an ONNX file or in an archive that `pack` wrote; InvalidModel where there is none."""
    try:
        if not zipfile.is_zipfile(path):
            return core.read_model(str(path))
        with zipfile.ZipFile(path) as archive:
            xml = archive.read(_XML)
            weights = _mapped(path, archive.getinfo(_WEIGHTS))
        return core.read_model(xml.decode(), import_openvino().Tensor(weights))
    except (RuntimeError, KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InvalidModel(f"{path.name} is not a model that OpenVINO can read: {error}") from error


def pack(xml: Path, weights: Path, target: Path) -> None:
    """Put OpenVINO's two files into one archive; equal files give an equal archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, path in ((_XML, xml), (_WEIGHTS, weights)):
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes())


def _mapped(path: Path, entry: zipfile.ZipInfo) -> Array:
    """The stored bytes of an archive's entry, mapped from the file."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = entry.header_offset + _LOCAL_HEADER_BYTES + skip
    return np.memmap(path, np.uint8, "c", offset=start, shape=(entry.file_size,))
