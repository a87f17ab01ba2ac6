"""The `onnxruntime` runtime: an ONNX file on ONNX Runtime, on CPU or an NVIDIA GPU.

Rule: exactly the variant's number of threads, never spinning, because replicas share their machine's cores.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from infaas_ray.domain import Architecture, Array, HardwareKind, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed

_PROVIDERS = {HardwareKind.CPU: "CPUExecutionProvider", HardwareKind.GPU: "CUDAExecutionProvider"}
_FATAL_ONLY = 4  # errors reach the caller as exceptions; the log adds nothing


class OnnxRuntime:
    """ONNX Runtime. Precision is inside the ONNX file."""

    extra = "onnx"

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "OnnxModel":
        """Open a session on the variant's hardware."""
        runtime = import_onnxruntime()
        provider = _provider(runtime, variant)
        session = open_session(path, threads=variant.threads, provider=provider)
        given = {x.name for x in session.get_outputs()}
        missing = [x.name for x in architecture.outputs if x.name not in given]
        if missing:
            raise InvalidModel(f"{variant.name}: the ONNX file has no output {missing[0]!r}; it has {sorted(given)}")
        return OnnxModel(session, [x.name for x in architecture.outputs])

    def versions(self) -> dict[str, str]:
        """The version of ONNX Runtime, CPU or GPU build."""
        found = {}
        for name in ("onnxruntime", "onnxruntime-gpu"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found


class OnnxModel:
    """An open session."""

    def __init__(self, session: Any, outputs: list[str]) -> None:
        self._session = session
        self._outputs = outputs
        self._inputs = [x.name for x in session.get_inputs()]

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the session; inputs that the graph does not use are left out."""
        try:
            values = self._session.run(self._outputs, {name: inputs[name] for name in self._inputs})
        except KeyError as error:
            raise VariantFailed(f"the model needs input {error}") from error
        except Exception as error:  # ONNX Runtime raises classes that share no base but Exception
            raise VariantFailed(f"ONNX Runtime failed: {error}") from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Drop the session, which frees it."""
        self._session = None


def import_onnxruntime() -> Any:
    """The module; MissingExtra where it is not installed."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtra("ONNX Runtime is not installed: pip install 'infaas_ray[onnx]'", "onnx") from error


def open_session(path: Path, *, threads: int, provider: str = "CPUExecutionProvider", optimize: bool = True) -> Any:
    """An ONNX Runtime session; InvalidModel where the file is not a model that it can run."""
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL_ONLY
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return runtime.InferenceSession(str(path), sess_options=options, providers=[provider])
    except Exception as error:  # as in `predict`
        raise InvalidModel(f"{path.name} is not an ONNX model that ONNX Runtime can load: {error}") from error


def _provider(runtime: Any, variant: Variant) -> str:
    provider = _PROVIDERS.get(variant.hardware)
    if provider is None:
        raise ConfigError(f"ONNX Runtime variants run on cpu or gpu, not {variant.hardware}")
    if provider not in runtime.get_available_providers():
        raise ConfigError(
            f"{variant.name} needs {provider}, which the ONNX Runtime here lacks: install onnxruntime-gpu"
        )
    return provider
