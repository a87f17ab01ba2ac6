"""The child process of `generator`: reads a source model, or quantises an ONNX file.

Run as `python -m infaas_ray.variants.build_job` by `jobs.run_job`.
"""

from pathlib import Path

import msgspec
import numpy as np

from infaas_ray.domain import TensorSpec
from infaas_ray.variants import onnx_source, torch_source
from infaas_ray.variants.jobs import Emit, serve_job
from infaas_ray.variants.torch_runtime import load_program


class OpenSource(msgspec.Struct, kw_only=True, tag=True):
    """Describe the source; then, with `onnx` set, give the path of one ONNX file of it, written there if need be.

    Gives `Described`, then `Wrote`: a description is known even where the export crashes.
    """

    source: str
    output_names: list[str] | None
    onnx: str | None


class Quantize(msgspec.Struct, kw_only=True, tag=True):
    """Write an int8 ONNX file to `target`, calibrated on `rows` (an `.npz` of inputs). Gives `Wrote`."""

    onnx: str
    rows: str
    batch: int
    target: str


class Described(msgspec.Struct):
    """The tensors of a source."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class Wrote(msgspec.Struct):
    """The file that a job wrote, or found ready."""

    path: str


def work(job: OpenSource | Quantize, emit: Emit) -> None:
    """Do one job."""
    match job:
        case OpenSource():
            source = Path(job.source)
            (_open_onnx if source.suffix == ".onnx" else _open_torch)(source, job, emit)
        case Quantize():
            with np.load(job.rows, allow_pickle=False) as rows:
                onnx_source.quantize(Path(job.onnx), dict(rows), job.batch, Path(job.target))
            emit(Wrote(job.target))


def _open_onnx(source: Path, job: OpenSource, emit: Emit) -> None:
    emit(Described(*onnx_source.describe(source, job.output_names)))
    if job.onnx is not None:
        emit(Wrote(str(onnx_source.single_file(source, Path(job.onnx)))))


def _open_torch(source: Path, job: OpenSource, emit: Emit) -> None:
    program = load_program(source)
    inputs, outputs = torch_source.describe(program, job.output_names)
    emit(Described(inputs, outputs))
    if job.onnx is not None:
        torch_source.export_onnx(program, [x.name for x in inputs], [x.name for x in outputs], Path(job.onnx))
        emit(Wrote(job.onnx))


if __name__ == "__main__":
    serve_job(OpenSource | Quantize, work)  # type: ignore[arg-type]
