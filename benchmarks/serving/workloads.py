"""The models that every server serves, and rows to ask them with.

`noop` repeats its input; `digits` is the demonstration's CNN and `minilm` its sentence encoder, both as the ONNX file
that registration makes. Rule: all servers read the very same file, made once in a cache folder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.ours import BATCH, artifact_of, bench_settings, register_onnx
from infaas_ray.config import Settings
from infaas_ray.demo.models import DemoModel, prepare
from infaas_ray.domain import Array

NAMES = ("noop", "digits", "minilm")
_DEMO = {"digits": "digits-cnn", "minilm": "minilm-l6"}
ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model and rows to ask it with: `inputs` has one array of ROWS rows per input; `output` is what it gives.

    `file` is None for the no-op. `batch` bounds how many rows a server may run together. `patience` multiplies the
    time of a point: a slow model needs longer until its answers are many.
    """

    name: str
    file: Path | None
    inputs: Mapping[str, Array]
    output: str
    expected: Array
    batch: int = BATCH
    patience: float = 1.0

    @property
    def architecture(self) -> str:
        """The name under which our system serves it."""
        return "noop" if self.file is None else _DEMO[self.name]


def noop() -> Workload:
    """The no-op: 4 floats in, the same 4 out."""
    x = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4)
    return Workload(name="noop", file=None, inputs={"x": x}, output="y", expected=x)


def demo_workload(name: str, cache: Path, say: Callable[[str], None]) -> Workload:
    """`digits` or `minilm`; the first call trains or loads, exports, registers and measures the model (minutes)."""
    settings = bench_settings(cache / name)
    model = _demo_model(_DEMO[name], cache / "models", say)
    if artifact_of(settings, model.architecture) is None:
        say(f"registering {model.architecture}")
        register_onnx(settings, model)
    file = artifact_of(settings, model.architecture)
    assert file is not None, "registration made no variant"
    inputs = {key: np.ascontiguousarray(x[:ROWS]) for key, x in model.sample.items()}
    output, expected = _reference(file, inputs)
    patience = 4.0 if name == "minilm" else 1.0
    return Workload(name=name, file=file, inputs=inputs, output=output, expected=expected, patience=patience)


def home_of(workload: Workload, cache: Path) -> Settings:
    """Settings of the system of ours that serves this workload alone."""
    return bench_settings(cache / workload.name, workload.architecture)


def _demo_model(architecture: str, folder: Path, say: Callable[[str], None]) -> DemoModel:
    def tell(file: str, done: int, total: int) -> None:
        if not (folder / file).exists() and done < total:
            say(f"making {file}")

    made = prepare(folder, tell)
    return next(x for x in made if x.architecture == architecture)


def _reference(file: Path, inputs: Mapping[str, Array]) -> tuple[str, Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    output: str = session.get_outputs()[0].name
    return output, session.run([output], {x.name: inputs[x.name] for x in session.get_inputs()})[0]
