"""The TensorRT adapter against the names in NVIDIA's bindings, as far as that goes without its libraries.

Every attribute that the adapter uses must stand in the bindings' binary. The extra `dev` brings one of the
`tensorrt-cu*-bindings` packages (both write the same files); the libraries and a GPU it does not need, and nothing is
run.
"""

import ast
import inspect
from importlib.metadata import PackageNotFoundError, PackagePath, files

import pytest

from infaas_ray.variants import tensorrt_runtime

PACKAGES = ("tensorrt-cu12-bindings", "tensorrt-cu13-bindings")
# Names under which the adapter keeps TensorRT's objects; what it uses of the module is read from its source.
OBJECTS = {"builder", "config", "context", "engine", "_engine", "network", "parser", "profile", "runtime"}
METHODS = {
    *("add_optimization_profile", "build_serialized_network", "clear_flag", "create_builder_config"),
    *("create_execution_context", "create_network", "create_optimization_profile", "deserialize_cuda_engine"),
    *("execute_async_v3", "get_error", "get_tensor_dtype", "get_tensor_location", "get_tensor_mode"),
    *("get_tensor_name", "get_tensor_profile_shape", "get_tensor_shape", "num_errors", "num_io_tensors"),
    *("num_optimization_profiles", "parse", "set_input_shape", "set_memory_pool_limit"),
    *("set_optimization_profile_async", "set_shape", "set_tensor_address"),
}
OVERRIDDEN = {"log"}  # what the adapter's logger defines for TensorRT to call
PYTHON_ONLY = {"nptype"}  # a function of the package's __init__


def attributes() -> list[ast.Attribute]:
    return [x for x in ast.walk(ast.parse(inspect.getsource(tensorrt_runtime))) if isinstance(x, ast.Attribute)]


def used_names() -> set[str]:
    """Attributes of `trt` in the adapter, and those of its enumerations."""
    direct = {x.attr for x in attributes() if isinstance(x.value, ast.Name) and x.value.id == "trt"}
    members = {x.attr for x in attributes() if isinstance(x.value, ast.Attribute) and x.value.attr in direct}
    return {x for x in direct | members if not x.startswith("__")}


def test_the_methods_listed_here_are_those_that_the_adapter_calls() -> None:
    owners = ((x.attr, x.value) for x in attributes())
    called = {name for name, x in owners if getattr(x, "id", getattr(x, "attr", "")) in OBJECTS}
    assert called == METHODS
    assert {"Builder", "ILogger", "ERROR", "OnnxParser", "Runtime", "TF32", "WORKSPACE", "INPUT"} <= used_names()


def test_the_bindings_know_every_name() -> None:
    binaries = [x.read_binary() for name in PACKAGES for x in installed_files(name) if x.suffix == ".so"]
    if not binaries:
        pytest.skip("NVIDIA has no bindings for this machine")
    for binary in binaries:
        names = (used_names() - PYTHON_ONLY) | METHODS | OVERRIDDEN
        assert [x for x in names if x.encode() + b"\0" not in binary] == []  # texts there end in a zero


def installed_files(package: str) -> list[PackagePath]:
    try:
        return files(package) or []
    except PackageNotFoundError:
        return []
