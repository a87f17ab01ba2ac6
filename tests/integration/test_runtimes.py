"""Every runtime under one contract on a small network; what each keeps per machine; what others add."""

import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infaas_ray.domain import Architecture, HardwareKind, TensorSpec, UseCase, Variant
from infaas_ray.errors import ConfigError, InvalidModel, MissingExtra, VariantFailed
from infaas_ray.storage.cache import cache_root
from infaas_ray.storage.repository import file_digest
from infaas_ray.variants import compiled, neuron_runtime, onnx_source, openvino_source, torch_runtime
from infaas_ray.variants.runtime import RUNTIMES, prepares, runtime_named, runtime_of

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ARCHITECTURE = Architecture(
    name="small",
    use_case=UseCase(task="classification", dataset="noise"),
    inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 16, 16)),),
    outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, 10)),),
)
CLOSE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}


class Small(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Convolutions and a dense layer of more than a megabyte of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 64, 3, padding=1)
        self.second = torch.nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.grow = torch.nn.Linear(64, 4096)
        self.head = torch.nn.Linear(4096, 10)

    def forward(self, image: Any) -> dict[str, Any]:
        x = torch.relu(self.second(torch.relu(self.first(image)))).mean((2, 3))
        return {"logits": self.head(torch.relu(self.grow(x)))}


@dataclass
class Files:
    """The small network in each form, and what it answers to these images."""

    folder: Path
    pt2: Path
    onnx: Path
    images: np.ndarray
    logits: np.ndarray


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    module = Small().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.zeros(2, 3, 16, 16),), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, folder / "small.pt2")
    names = {"input_names": ["image"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            program, (), str(folder / "small.onnx"), dynamo=True, external_data=False, verbose=False, **names
        )
    images = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        logits = module(torch.from_numpy(images))["logits"].numpy()
    return Files(folder, folder / "small.pt2", folder / "small.onnx", images, logits)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFAAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def variant(runtime: str, precision: str, path: Path, hardware: HardwareKind = HardwareKind.CPU) -> Variant:
    return Variant(
        architecture="small",
        runtime=runtime,
        precision=precision,
        hardware=hardware,
        artifact=file_digest(path),
        batch_limit=8,
    )


def static_int8(files: Files) -> Path:
    target = files.folder / "static.onnx"
    onnx_source.quantize(files.onnx, {"image": files.images}, 8, target)
    return target


def nncf_int8(files: Files) -> Path:
    pytest.importorskip("nncf")
    target = files.folder / "nncf.artifact"
    openvino_source.quantize(files.onnx, {"image": files.images}, 8, target)
    return target


def program(files: Files) -> Path:
    return files.pt2


def onnx_file(files: Files) -> Path:
    return files.onnx


CELLS = [
    ("torch", "fp32", program),
    ("torch", "bf16", program),
    ("onnxruntime", "fp32", onnx_file),
    ("onnxruntime", "int8", static_int8),
    ("openvino", "fp32", onnx_file),
    ("openvino", "bf16", onnx_file),
    ("openvino", "int8", nncf_int8),
]
EACH = pytest.mark.parametrize(("runtime", "precision", "make"), CELLS)


@EACH
def test_every_cpu_runtime_answers_as_the_network_does(
    files: Files, runtime: str, precision: str, make: Callable[[Files], Path]
) -> None:
    pytest.importorskip(runtime)
    path = make(files)
    mine = variant(runtime, precision, path)
    found = runtime_of(mine)
    assert found.versions()
    model = found.load(path, mine, ARCHITECTURE)
    scale = np.abs(files.logits).max()
    for rows in (1, 3, 8):
        images = np.ascontiguousarray(files.images[:rows])
        images.setflags(write=False)
        answers = model.predict({"image": images, "unused": images})
        assert answers["logits"].dtype == np.float32
        np.testing.assert_allclose(answers["logits"], files.logits[:rows], atol=CLOSE[precision] * scale)
        first = answers["logits"].copy()
        model.predict({"image": files.images[8 : 8 + rows]})
        np.testing.assert_array_equal(answers["logits"], first)  # an answer is not overwritten by the next
    strided = files.images[:6:2, :, ::-1, ::-1][:, :, ::-1, ::-1]
    np.testing.assert_allclose(
        model.predict({"image": strided})["logits"], files.logits[:6:2], atol=CLOSE[precision] * scale
    )
    assert model.device_memory_bytes() == 0
    with pytest.raises(VariantFailed, match="needs input"):
        model.predict({"other": files.images[:1]})
    model.close()


@EACH
def test_what_is_no_model_is_refused(
    tmp_path: Path, files: Files, runtime: str, precision: str, make: Callable[[Files], Path]
) -> None:
    pytest.importorskip(runtime)
    path = tmp_path / "nonsense"
    path.write_bytes(b"PK\x03\x04 nonsense" * 100)
    mine = variant(runtime, precision, path)
    with pytest.raises(InvalidModel):
        runtime_of(mine).load(path, mine, ARCHITECTURE)


@pytest.mark.parametrize(("runtime", "make"), [("onnxruntime", onnx_file), ("openvino", onnx_file), ("torch", program)])
def test_wrong_hardware_or_precision_is_said(files: Files, runtime: str, make: Callable[[Files], Path]) -> None:
    pytest.importorskip(runtime)
    path = make(files)
    with pytest.raises(ConfigError, match="not neuron"):
        runtime_named(runtime).load(path, variant(runtime, "fp32", path, HardwareKind.NEURON), ARCHITECTURE)
    if runtime != "onnxruntime":  # there the file alone decides
        with pytest.raises(ConfigError, match="compute"):
            runtime_named(runtime).load(path, variant(runtime, "fp7", path), ARCHITECTURE)


def test_onnx_runtime_keeps_a_packed_form_per_machine(files: Files, cache: Path) -> None:
    mine = variant("onnxruntime", "fp32", files.onnx)
    runtime = runtime_of(mine)
    assert prepares(runtime, files.onnx, mine)
    for _ in range(2):
        model = runtime.load(files.onnx, mine, ARCHITECTURE)
        np.testing.assert_allclose(model.predict({"image": files.images[:2]})["logits"], files.logits[:2], atol=1e-4)
        model.close()
    [entry] = (cache / "onnxruntime").iterdir()
    assert {x.name for x in entry.iterdir()} == {"model.onnx", "weights.bin"}
    assert not prepares(runtime, files.onnx, mine)


def test_a_damaged_packed_form_is_made_again(files: Files, cache: Path) -> None:
    mine = variant("onnxruntime", "fp32", files.onnx)
    runtime = runtime_of(mine)
    runtime.load(files.onnx, mine, ARCHITECTURE).close()
    [entry] = (cache / "onnxruntime").iterdir()
    (entry / "model.onnx").write_bytes(b"nonsense")
    model = runtime.load(files.onnx, mine, ARCHITECTURE)
    np.testing.assert_allclose(model.predict({"image": files.images[:2]})["logits"], files.logits[:2], atol=1e-4)
    assert list((cache / "onnxruntime").iterdir()) == []
    runtime.load(files.onnx, mine, ARCHITECTURE).close()
    assert len(list((cache / "onnxruntime").iterdir())) == 1


def test_onnx_runtime_that_falls_back_to_the_cpu_is_not_sold_as_a_gpu(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession

    def fallen_back(path: str, sess_options: Any, providers: list[Any]) -> Any:
        assert providers == [("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})]
        return session(path, sess_options=sess_options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", fallen_back)
    mine = variant("onnxruntime", "fp32", files.onnx, HardwareKind.GPU)
    with pytest.raises(ConfigError, match="could not load the libraries that CUDAExecutionProvider needs"):
        runtime_of(mine).load(files.onnx, mine, ARCHITECTURE)


def test_compiled_for_a_gpu_every_size_is_compiled_in_the_load(
    files: Files, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's `cpu:0` stands in for the GPU, and counting for Inductor."""
    sizes: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        sizes.append(next(x.shape[0] for x in inputs if x.ndim == 4 and x.shape[1] == 3))
        return graph.forward

    compile_for = torch.compile
    monkeypatch.setitem(torch_runtime._DEVICES, HardwareKind.GPU, "cpu:0")
    monkeypatch.setattr(
        torch, "compile", lambda module, dynamic, mode: compile_for(module, dynamic=dynamic, backend=counting)
    )
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    mine = variant("torch-compiled", "fp32", files.pt2, HardwareKind.GPU)
    runtime = runtime_of(mine)
    assert prepares(runtime, files.pt2, mine)
    model = runtime.load(files.pt2, mine, ARCHITECTURE)
    assert sizes == [1, 2, 4, 8]
    assert not prepares(runtime, files.pt2, mine)
    assert (cache / "inductor").stat().st_mode & 0o077 == 0
    for rows in (1, 2, 3, 5, 7, 8):
        answers = model.predict({"image": files.images[:rows]})
        np.testing.assert_allclose(answers["logits"], files.logits[:rows], atol=1e-4)
    assert len(sizes) == 4
    model.close()


COMPILED = """
import sys
from pathlib import Path
import msgspec, numpy as np, torch._dynamo.utils
from infaas_ray.domain import Architecture, Variant
from infaas_ray.variants.runtime import prepares, runtime_of
variant = msgspec.json.decode(sys.argv[1], type=Variant)
architecture = msgspec.json.decode(sys.argv[2], type=Architecture)
path, runtime = Path(sys.argv[3]), runtime_of(variant)
prepared = not prepares(runtime, path, variant)
model = runtime.load(path, variant, architecture)
graphs = dict(torch._dynamo.utils.counters["stats"])
images = np.load(sys.argv[4])
for rows in range(1, 9):
    found = model.predict({"image": images[:rows]})["logits"]
assert dict(torch._dynamo.utils.counters["stats"]) == graphs, "a batch was compiled in a query"
np.save(sys.argv[5], found)
print(prepared)
"""


def test_compiled_on_a_cpu_the_load_compiles_all_and_the_cache_keeps_it(
    files: Files, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("Inductor needs g++")
    import msgspec

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    np.save(tmp_path / "images.npy", files.images)
    mine = (variant("torch-compiled", "fp32", files.pt2), ARCHITECTURE)
    command = [sys.executable, "-W", "ignore", "-c", COMPILED, *(msgspec.json.encode(x).decode() for x in mine)]
    command += [str(files.pt2), str(tmp_path / "images.npy"), str(tmp_path / "found.npy")]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1] for _ in range(2)]
    assert told == ["False", "True"]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), files.logits[:8], atol=1e-4)
    assert any((cache / "inductor").rglob("*.so"))
    assert (cache / "inductor").stat().st_mode & 0o077 == 0


def test_a_cache_that_cannot_be_used_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "cache"))
    compiled.set_cache()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).is_dir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor_root")  # as PyTorch itself sets it
    assert compiled.cache_folder() == cache_root() / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert compiled.cache_folder() == tmp_path / "mine"


def test_free_lengths_are_those_of_the_export(tmp_path: Path) -> None:
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=64)
    module = torch.nn.Linear(4, 2)
    free = {"input": {0: batch, 1: length}}
    torch.export.save(torch.export.export(module, (torch.zeros(2, 7, 4),), dynamic_shapes=free), tmp_path / "free.pt2")
    lengths = torch_runtime.example_lengths(torch_runtime.load_program(tmp_path / "free.pt2"))
    assert lengths == {"input": (7, 4)}
    free_input = TensorSpec(name="input", datatype="FP32", shape=(-1, -1, 4))
    mine = replace(ARCHITECTURE, inputs=(free_input,))
    seen: list[tuple[int, ...]] = []
    model = SimpleNamespace(predict=lambda inputs: seen.append(inputs["input"].shape))
    assert compiled.warm_up(model, mine, lengths, [1, 2])
    assert seen == [(1, 7, 4)] * 3 + [(2, 7, 4)] * 3
    assert not compiled.warm_up(model, mine, {}, [1, 2])


CYCLES = """
import sys
from pathlib import Path
import msgspec, numpy as np
from infaas_ray.domain import Architecture, Variant
from infaas_ray.variants.machine import memory_bytes
from infaas_ray.variants.runtime import runtime_of
variant = msgspec.json.decode(sys.argv[1], type=Variant)
architecture = msgspec.json.decode(sys.argv[2], type=Architecture)
runtime, images = runtime_of(variant), np.zeros((8, 3, 16, 16), np.float32)
def cycle():
    model = runtime.load(Path(sys.argv[3]), variant, architecture)
    model.predict({"image": images})
    model.close()
for _ in range(5):
    cycle()
before = memory_bytes("VmRSS")
for _ in range(50):
    cycle()
print(memory_bytes("VmRSS") / before)
"""


@EACH
def test_fifty_cycles_of_load_and_unload_return_the_memory(
    files: Files, runtime: str, precision: str, make: Callable[[Files], Path]
) -> None:
    pytest.importorskip(runtime)
    import msgspec

    path = make(files)
    arguments = [msgspec.json.encode(x).decode() for x in (variant(runtime, precision, path), ARCHITECTURE)]
    command = [sys.executable, "-W", "ignore", "-c", CYCLES, *arguments, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout.splitlines()[-1]) < 1.05


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of somebody else that adds the runtime `negated`, as pip would have installed it."""
    site = tmp_path / "site"
    info = site / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[infaas_ray.runtimes]\nnegated = stranger:Negated\nbroken = stranger:Missing\n"
    )
    code = """
        from infaas_ray.variants.onnx_runtime import OnnxRuntime
        class Negated:
            extra, takes, precisions = "", "onnx", ("fp32",)
            def load(self, path, variant, architecture):
                return Model(OnnxRuntime().load(path, variant, architecture))
            def versions(self):
                return {"stranger": "1.0"}
        class Model:
            def __init__(self, model): self.model = model
            def predict(self, inputs): return {k: 1 * v for k, v in self.model.predict(inputs).items()}
            def device_memory_bytes(self): return 0
            def close(self): self.model.close()
    """
    (site / "stranger.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(site))
    return site


def test_an_added_runtime_is_found_by_name_and_a_broken_one_says_so(stranger: Path, files: Files) -> None:
    mine = variant("negated", "fp32", files.onnx)
    model = runtime_of(mine).load(files.onnx, mine, ARCHITECTURE)
    np.testing.assert_allclose(model.predict({"image": files.images[:2]})["logits"], files.logits[:2], atol=1e-4)
    with pytest.raises(ConfigError, match=r"'broken' \(stranger:Missing\) cannot be imported"):
        runtime_named("broken")


def test_an_added_runtime_gets_variants_generated(
    stranger: Path, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infaas_ray.storage.metadata import Metadata
    from infaas_ray.storage.repository import FolderRepository
    from infaas_ray.variants import jobs
    from infaas_ray.variants.generator import GenerationOptions
    from infaas_ray.variants.registration import register

    monkeypatch.setattr(jobs, "_PACKAGE_PARENT", f"{stranger}:{jobs._PACKAGE_PARENT}")
    validation = tmp_path / "noise.npz"
    np.savez(validation, image=files.images, label=files.logits.argmax(axis=1))
    metadata = Metadata(f"sqlite:///{tmp_path}/m.db")
    found = register(
        files.onnx,
        architecture="small",
        use_case=ARCHITECTURE.use_case,
        validation=validation,
        metadata=metadata,
        repository=FolderRepository(tmp_path / "models"),
        options=GenerationOptions(threads=(1,), recipes=("onnxruntime-fp32", "negated-fp32")),
    )
    metadata.close()
    assert {x.runtime for x, _ in found.variants} == {"onnxruntime", "negated"}
    assert next(p for v, p in found.variants if v.runtime == "negated").versions["stranger"] == "1.0"


@pytest.fixture
def neuron(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, list[str]]]]:
    """A stand-in for torch_neuronx that traces with plain PyTorch, and the shapes and flags that it was given."""
    module, seen = ModuleType("torch_neuronx"), list[tuple[int, list[str]]]()

    def trace(call: Any, example: tuple[Any, ...], compiler_args: list[str]) -> Any:
        seen.append((len(example[0]), compiler_args))
        return torch.jit.trace(call, example, check_trace=False)

    module.trace = trace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_neuronx", module)
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "1")
    return seen


@pytest.mark.filterwarnings("ignore")
def test_neuron_traces_each_batch_size_and_fills_batches_up(
    files: Files, tmp_path: Path, neuron: list[tuple[int, list[str]]]
) -> None:
    path = tmp_path / "small.neuron"
    neuron_runtime.trace(files.pt2, {"image": files.images}, 8, "bf16", path)
    assert [size for size, _ in neuron] == [1, 2, 4, 8]
    assert neuron[0][1] == ["--auto-cast", "matmult", "--auto-cast-type", "bf16"]
    mine = replace(variant("neuron", "bf16", path, HardwareKind.NEURON), threads=2)
    model = RUNTIMES["neuron"].load(path, mine, ARCHITECTURE)
    import os

    assert os.environ["NEURON_RT_NUM_CORES"] == "2"
    for rows in (1, 3, 8, 20):
        answers = model.predict({"image": files.images[:rows]})
        np.testing.assert_allclose(answers["logits"], files.logits[:rows], atol=1e-3)
    with pytest.raises(VariantFailed, match="needs input"):
        model.predict({"other": files.images})
    model.close()


def test_neuron_without_its_package_names_where_it_comes_from(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_neuronx", None)
    mine = variant("neuron", "fp32", files.pt2, HardwareKind.NEURON)
    with pytest.raises(MissingExtra, match=r"neuron\.amazonaws\.com"):
        RUNTIMES["neuron"].load(files.pt2, mine, ARCHITECTURE)
