"""The `onnxruntime` runtime: an ONNX file on ONNX Runtime, on CPU or an NVIDIA GPU.

Rule: exactly the variant's number of threads, never spinning, because replicas share their machine's cores.

The ONNX file is the portable artifact. On a CPU the first load of a large one also keeps, per machine, the optimised
graph beside its weights in the layout that the kernels want: later loads map that file instead of rearranging it, so
they take a tenth of the time, and replicas of one variant share the pages.
"""

import hashlib
import importlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from infaas_ray.domain import Architecture, Array, HardwareKind, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed
from infaas_ray.storage.cache import LocalCache, cache_root
from infaas_ray.variants.machine import cpu_model

_PROVIDERS = {HardwareKind.CPU: "CPUExecutionProvider", HardwareKind.GPU: "CUDAExecutionProvider"}
# fp32 means fp32; and a new batch size costs no search for the best algorithm among all.
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}}
_FATAL_ONLY = 4  # errors reach the caller as exceptions; the log adds nothing
_PACKED = "model.onnx"
_PACKING = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    "session.save_external_prepacked_constant_initializers": "1",
}
_LEAST_PACKED_BYTES = 1 << 20  # smaller ones load in milliseconds as they are


class OnnxRuntime:
    """ONNX Runtime. Precision is inside the ONNX file."""

    extra = "onnx"

    def load(self, path: Path, variant: Variant, architecture: Architecture) -> "OnnxModel":
        """Open a session on the variant's hardware."""
        runtime = import_onnxruntime()
        provider = _provider(runtime, variant)
        session = None
        if variant.hardware is HardwareKind.CPU and path.stat().st_size >= _LEAST_PACKED_BYTES:
            session = _packed_session(runtime, path, variant)
        session = session or open_session(path, threads=variant.threads, provider=provider)
        if session.get_providers()[0] != provider:  # it falls back to the CPU without a word
            raise ConfigError(f"{variant.name}: ONNX Runtime could not load the libraries that {provider} needs")
        given = {x.name for x in session.get_outputs()}
        missing = [x.name for x in architecture.outputs if x.name not in given]
        if missing:
            raise InvalidModel(f"{variant.name}: the ONNX file has no output {missing[0]!r}; it has {sorted(given)}")
        return OnnxModel(session, [x.name for x in architecture.outputs])

    def prepares(self, path: Path, variant: Variant) -> bool:
        """Whether a load here and now makes this machine's form of the artifact."""
        if variant.hardware is not HardwareKind.CPU or path.stat().st_size < _LEAST_PACKED_BYTES:
            return False
        cache, name = _packed_place(variant)
        return cache.get(name) is None

    def lacks(self, hardware: HardwareKind) -> str:
        """Why this build cannot compute there; empty where it can."""
        cpu_only = "onnxruntime-gpu" not in self.versions()
        return (
            "a build for CPUs alone: pip install onnxruntime-gpu" if hardware is HardwareKind.GPU and cpu_only else ""
        )

    def preload(self) -> None:
        """Import the framework."""
        import_onnxruntime()

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

    def device_memory_bytes(self) -> int:
        """Unknown to ONNX Runtime; the driver knows what the whole process holds."""
        return 0

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
    options = _options(runtime, threads)
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if provider in _PROVIDER_OPTIONS:
        getattr(runtime, "preload_dlls", lambda: None)()  # of pip's CUDA packages, where those are installed
    try:
        return runtime.InferenceSession(
            str(path), sess_options=options, providers=[(provider, _PROVIDER_OPTIONS.get(provider, {}))]
        )
    except Exception as error:  # as in `predict`
        raise InvalidModel(f"{path.name} is not an ONNX model that ONNX Runtime can load: {error}") from error


def _options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL_ONLY
    return options


def _packed_session(runtime: Any, path: Path, variant: Variant) -> Any:
    """A session on this machine's own form of the artifact, made now if need be; None where that does not work."""
    cache, name = _packed_place(variant)
    try:
        folder = cache.get(name) or cache.put(name, lambda made: _pack(runtime, path, made))
        return open_session(folder / _PACKED, threads=variant.threads, optimize=False)
    except (InvalidModel, OSError):  # no space, a damaged copy, or a graph that cannot be saved so
        cache.remove(name)
        return None


def _packed_place(variant: Variant) -> tuple[LocalCache, str]:
    """The cache of packed artifacts, and the entry of this one for this processor and this ONNX Runtime."""
    machine = hashlib.sha256(f"{OnnxRuntime().versions()} {cpu_model()}".encode()).hexdigest()[:16]
    return LocalCache(cache_root() / "onnxruntime"), f"{variant.artifact}-{machine}"


def _pack(runtime: Any, path: Path, folder: Path) -> None:
    """Write the optimised graph and its pre-packed weights into a new folder."""
    folder.mkdir()
    options = _options(runtime, threads=1)
    options.optimized_model_filepath = str(folder / _PACKED)
    for key, value in _PACKING.items():
        options.add_session_config_entry(key, value)
    try:
        runtime.InferenceSession(str(path), sess_options=options, providers=[_PROVIDERS[HardwareKind.CPU]])
    except Exception as error:  # as in `predict`
        raise InvalidModel(f"{path.name} cannot be packed: {error}") from error


def _provider(runtime: Any, variant: Variant) -> str:
    provider = _PROVIDERS.get(variant.hardware)
    if provider is None:
        raise ConfigError(f"ONNX Runtime variants run on cpu or gpu, not {variant.hardware}")
    if provider not in runtime.get_available_providers():
        raise ConfigError(
            f"{variant.name} needs {provider}, which the ONNX Runtime here lacks: install onnxruntime-gpu"
        )
    return provider
