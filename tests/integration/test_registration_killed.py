"""A registration that is killed leaves what loads, and the next one completes it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import FolderRepository
from infaas_ray.variants.runtime import runtime_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RECIPES = ("onnxruntime-fp32", "onnxruntime-int8", "onnxruntime-int8-dynamic")
REGISTER = """
import sys
from pathlib import Path
from infaas_ray.domain import UseCase
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import FolderRepository
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.registration import register
folder, recipes = Path(sys.argv[1]), tuple(sys.argv[2:])
register(
    folder / "m.onnx",
    architecture="tiny",
    use_case=UseCase(task="classification", dataset="points"),
    validation=folder / "points.npz",
    metadata=Metadata(f"sqlite:///{folder}/infaas.db"),
    repository=FolderRepository(folder / "models"),
    options=GenerationOptions(threads=(1,), recipes=recipes),
    on_progress=lambda x: print(x.note, flush=True),
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    weights = random.standard_normal((8, 4)).astype(np.float32)
    x = random.standard_normal((80, 8)).astype(np.float32)
    np.savez(tmp_path / "points.npz", x=x, label=(x @ weights).argmax(axis=1))
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", float32, ["batch", 8])],
        [onnx.helper.make_tensor_value_info("logits", float32, ["batch", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(tmp_path / "m.onnx"))
    return tmp_path


def register_until(folder: Path, note: str | None) -> list[str]:
    """Register in a process that is killed as soon as it says `note`; all that it said."""
    command = [sys.executable, "-W", "ignore", "-c", REGISTER, str(folder), *RECIPES]
    said: list[str] = []
    (folder / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            if said[-1] == note:
                process.kill()
                break
    assert note is None or said[-1] == note
    return said


def working_folders(folder: Path) -> list[str]:
    return [x.name for x in (folder / "tmp").glob("infaas-register-*")]


def loadable(folder: Path) -> set[str]:
    """Names of the variants in the metadata, each of which was loaded and answered."""
    metadata, repository = Metadata(f"sqlite:///{folder}/infaas.db"), FolderRepository(folder / "models")
    try:
        architectures = metadata.architectures()
        for variant, _ in metadata.variants():
            path = repository.fetch(variant.artifact)
            model = runtime_of(variant).load(path, variant, architectures[variant.architecture])
            assert model.predict({"x": np.zeros((2, 8), np.float32)})["logits"].shape == (2, 4)
            model.close()
        return {x.name for x, _ in metadata.variants()}
    finally:
        metadata.close()


def test_killed_at_several_moments_it_leaves_what_loads_and_is_completed(folder: Path) -> None:
    found: set[str] = set()
    for note in ("started", "building", "built", "profiling", "profiled", "building", "profiled"):
        register_until(folder, note)
        left = loadable(folder)
        assert found <= left
        found = left
    assert len(working_folders(folder)) == 1  # of the last one that was killed
    assert register_until(folder, None)[-1] == "profiled"
    assert working_folders(folder) == []
    assert loadable(folder) == {f"tiny@{x}-cpu-t1-b16" for x in RECIPES}
    assert register_until(folder, None) == ["already there"]
