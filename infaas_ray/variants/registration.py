"""Registration: one source model in, profiled variants of an architecture out.

This is the entrance, which checks the request; `registration_run` does the work.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from infaas_ray.domain import UseCase
from infaas_ray.errors import InvalidModel
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import Repository, file_digest
from infaas_ray.variants import sklearn_source
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.metrics import metric_named
from infaas_ray.variants.registration_run import Progress, Registration, Request, Run
from infaas_ray.variants.sources import source_at, source_digest

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator as Estimator
    from torch.export import ExportedProgram

_FOLDER_PREFIX = "infaas-register-"

__all__ = ["Progress", "Registration", "ignore", "register"]


def ignore(_progress: Progress) -> None:
    """Report progress to nobody."""


def register(
    source: "Path | ExportedProgram | Estimator",
    *,
    architecture: str,
    use_case: UseCase,
    validation: Path | None,
    metric: str = "top1_accuracy",
    metadata: Metadata,
    repository: Repository,
    options: GenerationOptions | None = None,
    declared_accuracy: float | None = None,
    output_names: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Registration:
    """Make, measure and record the variants of a model.

    `source` is a `.pt2` or `.onnx` file, whose first dimension must be a free batch; a TorchScript archive; a Hugging
    Face folder with safetensors; an exported program; or a fitted scikit-learn estimator.
    `validation` is the `.npz` that `validation` describes; it may be left out where `declared_accuracy` (0..1) stands
    in for a measured one, and is then marked as declared. `output_names` names the outputs of a `.pt2`, or chooses
    among those of an `.onnx`. Seconds to minutes; safe to interrupt and call again.

    Raises InvalidModel for a model or validation set that is wrong, or if no variant works; AlreadyExists where the
    name is taken by something else; MissingExtra where the source's framework is not installed.
    """
    metric_named(metric)
    if validation is None and declared_accuracy is None:
        raise InvalidModel("give a validation set (.npz) to measure accuracy with, or declare an accuracy")
    if declared_accuracy is not None and not 0 <= declared_accuracy <= 1:
        raise InvalidModel(f"the declared accuracy must be from 0 to 1, not {declared_accuracy!r}")
    if validation is not None and not validation.is_file():
        raise InvalidModel(f"there is no validation file {validation}")
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-") as name:
        options = options or GenerationOptions()
        found = source_at(_source_file(source, Path(name)), allow_pickle=options.allow_pickle)
        request = Request(
            source=found,
            digest=source_digest(found.path),
            architecture=architecture,
            use_case=use_case,
            validation=validation,
            validation_digest=None if validation is None else file_digest(validation),
            metric=metric,
            options=options,
            declared_accuracy=declared_accuracy,
            output_names=None if output_names is None else tuple(output_names),
        )
        return Run(request, metadata, repository, Path(name), on_progress).run()


def _sweep() -> None:
    """Remove the working folders that registrations of this user left when they were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*-*"):
        pid = folder.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and folder.stat().st_uid == os.getuid() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(folder)


def _source_file(source: "Path | ExportedProgram | Estimator", folder: Path) -> Path:
    if isinstance(source, Path):
        return source
    if sklearn_source.is_estimator(source):
        path = folder / "source.onnx"
        sklearn_source.export_onnx(source, path)
        return path
    import torch.export

    # The archive holds its own file name, so a fixed one makes equal programs equal files.
    path = folder / "source.pt2"
    torch.export.save(source, path)
    return path
