"""The child process of `generator`: reads a source model, or makes an artifact of it.

Run as `python -m infaas_ray.variants.build_job` by `jobs.run_job`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import msgspec
import numpy as np

from infaas_ray.domain import Array, TensorSpec
from infaas_ray.errors import InvalidModel
from infaas_ray.variants import (
    huggingface_source,
    neuron_runtime,
    onnx_source,
    openvino_source,
    sklearn_source,
    tensorrt_runtime,
    torch_source,
    torchscript_source,
)
from infaas_ray.variants.jobs import Emit, serve_job
from infaas_ray.variants.recipes import Make
from infaas_ray.variants.sources import Kind
from infaas_ray.variants.torch_runtime import load_program


class OpenSource(msgspec.Struct, kw_only=True, tag=True):
    """Describe the source; then, with `onnx` set, make one ONNX file of it.

    New files go to `folder`; `validation` (an `.npz`) gives example rows. Gives `Described`, then `Wrote`: a
    description is known even where the export crashes.
    """

    source: str
    kind: Kind
    output_names: list[str] | None
    validation: str | None
    folder: str
    onnx: bool


class Build(msgspec.Struct, kw_only=True, tag=True):
    """Make an artifact of the file `source` in `target`; `rows` (an `.npz` of inputs) as far as `make` needs them.

    `asked`: do it even where it rarely pays. Gives `Wrote`.
    """

    make: Make
    precision: str
    source: str
    rows: str | None
    batch: int
    inputs: list[TensorSpec]
    asked: bool
    target: str


Job = OpenSource | Build


class Described(msgspec.Struct):
    """The tensors of a source, and the file in which it now is."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    path: str


class Wrote(msgspec.Struct):
    """The file that a job wrote, or found ready."""

    path: str


def work(job: Job, emit: Emit) -> None:
    """Do one job."""
    match job:
        case OpenSource():
            _open(job, emit)
        case Build():
            _build(job)
            emit(Wrote(job.target))


def _open(job: OpenSource, emit: Emit) -> None:
    source, folder = Path(job.source), Path(job.folder)
    match job.kind:
        case Kind.PROGRAM:
            _open_program(source, job, emit)
        case Kind.TRANSFORMERS:
            model = huggingface_source.load(source)
            target = folder / "source.pt2"
            rows = _examples(job)
            names = huggingface_source.input_names(model, list(rows))
            huggingface_source.export(model, {name: rows[name] for name in names}, target)
            _open_program(target, job, emit)
        case Kind.ONNX:
            _open_onnx(source, job, emit)
        case Kind.TORCHSCRIPT:
            target = folder / "source.onnx"
            rows = _named(_examples(job), torchscript_source.input_names(source))
            torchscript_source.export_onnx(source, rows, job.output_names, target)
            _open_onnx(target, job, emit)
        case Kind.ESTIMATOR:
            target = folder / "source.onnx"
            sklearn_source.export_onnx(sklearn_source.read(source), target)
            _open_onnx(target, job, emit)
        case _:
            assert_never(job.kind)


def _open_onnx(source: Path, job: OpenSource, emit: Emit) -> None:
    inputs, outputs = onnx_source.describe(source, job.output_names)
    emit(Described(inputs, outputs, str(source)))
    if job.onnx:
        emit(Wrote(str(onnx_source.single_file(source, Path(job.folder) / "source.fp32.onnx"))))


def _open_program(source: Path, job: OpenSource, emit: Emit) -> None:
    program = load_program(source)
    inputs, outputs = torch_source.describe(program, job.output_names)
    emit(Described(inputs, outputs, str(source)))
    if job.onnx:
        target = Path(job.folder) / "source.fp32.onnx"
        torch_source.export_onnx(program, [x.name for x in inputs], [x.name for x in outputs], target)
        emit(Wrote(str(target)))


def _build(job: Build) -> None:
    source, target, rows = Path(job.source), Path(job.target), _rows(job.rows)
    match job.make:
        case Make.STATIC_INT8:
            onnx_source.quantize(source, rows, job.batch, target)
        case Make.DYNAMIC_INT8:
            onnx_source.quantize_products(source, target, asked=job.asked)
        case Make.HALF:
            onnx_source.halve(source, target)
        case Make.NNCF_INT8:
            openvino_source.quantize(source, rows, job.batch, target)
        case Make.ENGINE | Make.HALF_ENGINE | Make.INT8_ENGINE:
            tensorrt_runtime.build_engine(_for_engine(job, source, rows), _engine_shape(job, rows), target)
        case Make.NEURON:
            neuron_runtime.trace(source, rows, job.batch, job.precision, target)
        case Make.AS_IS:
            raise InvalidModel("there is nothing to make")
        case _:
            assert_never(job.make)


def _for_engine(job: Build, source: Path, rows: dict[str, Array]) -> Path:
    """The ONNX file with the engine's precision in its graph."""
    typed = Path(job.target).with_suffix(".typed.onnx")
    if job.make is Make.HALF_ENGINE:
        onnx_source.halve(source, typed)
        return typed
    if job.make is Make.INT8_ENGINE:
        onnx_source.quantize(source, rows, job.batch, typed, symmetric=True)
        return typed
    return source


def _engine_shape(job: Build, rows: dict[str, Array]) -> tensorrt_runtime.EngineShape:
    return tensorrt_runtime.EngineShape(
        inputs=job.inputs,
        lengths={name: list(x.shape[1:]) for name, x in rows.items()},
        batch_limit=job.batch,
        tf32=job.precision == "tf32",
    )


def _rows(path: str | None) -> dict[str, Array]:
    if path is None:
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _examples(job: OpenSource) -> dict[str, Array]:
    if job.validation is None:
        raise InvalidModel(f"a {job.kind} tells no input shapes: give a validation set")
    rows = _rows(job.validation)
    return {name: x for name, x in rows.items() if name not in ("label", "calibration")}


def _named(rows: dict[str, Array], names: Sequence[str]) -> dict[str, Array]:
    missing = [x for x in names if x not in rows]
    if missing:
        raise InvalidModel(
            f"the validation set has no array {missing[0]!r}, which the model takes; it has {list(rows)}"
        )
    return {name: rows[name] for name in names}


if __name__ == "__main__":
    serve_job(Job, work)  # type: ignore[arg-type]
