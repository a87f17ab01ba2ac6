"""The way of GPU variants through registration and profiling, as far as it goes without a GPU.

A stand-in is put before the children: their "GPU" is PyTorch's `cpu:0`, which is not the `cpu` of CPU variants, so that
everything done for a GPU is done: the program is moved, rows are filled up, sizes are compiled one by one. Inductor is
left out, because it would make code for a CPU. What cannot be told so: CUDA itself, its graphs, its numbers, its speed.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import run
from benchmarks.variants.networks import Network
from infaas_ray.domain import HardwareKind, UseCase
from infaas_ray.storage.metadata import Metadata
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.timing import batch_sizes

torch = pytest.importorskip("torch")

STAND_IN = """
import sys
if any("infaas_ray.variants" in x for x in sys.orig_argv):
    import torch
    from infaas_ray.domain import HardwareKind
    from infaas_ray.variants import torch_runtime

    torch_runtime._DEVICES[HardwareKind.GPU] = "cpu:0"
    compiling = torch.compile

    def compile(module, dynamic, mode):
        assert not dynamic and mode == "reduce-overhead"
        return compiling(module, dynamic=dynamic, backend="eager")

    torch.compile = compile
"""
DRIVER = """#!/bin/sh
case "$*" in
  *query-gpu=name*) echo "NVIDIA Stand-in" ;;
  *query-gpu=memory.used*) echo x >> {calls}; echo $((1000 + 500 * $(wc -l < {calls}))) ;;
  *) exit 1 ;;
esac
"""


class Small(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.head = torch.nn.Linear(8, 10)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(torch.relu(self.first(image)).mean((2, 3)))}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> run.Place:
    """A machine whose GPU is a stand-in."""
    for name, file, text in (("site", "sitecustomize.py", STAND_IN), ("bin", "nvidia-smi", DRIVER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text.replace("{calls}", str(tmp_path / "calls")))
        (tmp_path / name / file).chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("INFAAS_CACHE", str(tmp_path / "cache"))
    return run.Place(
        work=tmp_path, profiles=tmp_path, results=tmp_path, gpu="NVIDIA Stand-in", day="2026-01-01", ends_at=1e18
    )


@pytest.fixture
def network(tmp_path: Path) -> Network:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=64)
    image = torch.zeros(2, 3, 16, 16)
    program = torch.export.export(Small().eval(), (image,), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, tmp_path / "small.pt2")
    images = np.random.default_rng(0).random((30, 3, 16, 16), np.float32)
    arrays = {"image": images, "label": np.arange(30) % 10, "calibration": np.arange(30) < 10}
    np.savez(tmp_path / "rows.npz", allow_pickle=False, **arrays)
    return Network(
        name="small",
        path=tmp_path / "small.pt2",
        validation=tmp_path / "rows.npz",
        metric="top1_accuracy",
        use_case=UseCase(task="classification", dataset="noise"),
    )


def test_gpu_variants_are_profiled_step_by_step(
    place: run.Place, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = GenerationOptions(
        hardware=(HardwareKind.GPU,),
        recipes=("torch-fp32", "torch-compiled-fp16"),
        batch_limit=3,
        gpu_batch_limits=(1, 3),
    )
    metadata = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
    over = replace(place, ends_at=0.0)
    assert run._register(network, metadata, over, options) == {"variants": 0, "unfinished": True}

    keep = run._keep

    def keep_the_first(*args: Any) -> None:
        keep(*args)
        raise run.OutOfTime

    with monkeypatch.context() as patch:
        patch.setattr(run, "_keep", keep_the_first)
        begun = run._register(network, metadata, place, options)
    assert (begun["variants"], begun["unfinished"]) == (1, True)
    exported = tmp_path / "nvidia-stand-in-small-2026-01-01.json"
    [first] = json.loads(exported.read_text())["variants"]

    told = run._register(network, metadata, place, options)
    assert (told["variants"], told["failed"], told["missing"]) == (4, [], [])
    every = json.loads(exported.read_text())["variants"]
    assert len(every) == 4
    assert first["profile"] in [x["profile"] for x in every]  # not measured again
    for variant, profile in metadata.variants("small"):
        assert profile.hardware.model == "NVIDIA Stand-in"
        assert [x.batch for x in profile.latencies] == batch_sizes(variant.batch_limit)
        assert profile.peak_device_memory_bytes == 500 * 2**20
        assert profile.accuracy.fidelity is None or profile.accuracy.fidelity > 0.999
    assert (tmp_path / "nvidia-stand-in-small.md").read_text().count(" + 524 on device") == 4
    metadata.close()
