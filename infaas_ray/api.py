"""The two calls of a Python program: `register` a model, `connect` to the system that serves it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import UseCase
from infaas_ray.serving.driver import System
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import repository_at
from infaas_ray.variants.generator import GenerationOptions
from infaas_ray.variants.registration import Progress, Registration
from infaas_ray.variants.registration import register as register_in

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator as Estimator
    from torch.export import ExportedProgram


def connect(settings: Settings | None = None, *, application: str = "") -> System:
    """Connect to the running system; close it, or use `with`. Raises NotRunning where there is none.

    `application` says whose the queries are, for `infaas cost --by application`.
    """
    from infaas_ray.serving.launch import open_system

    return open_system(settings or load_settings(), application)


def register(
    source: "Path | str | ExportedProgram | Estimator",
    *,
    architecture: str,
    task: str,
    dataset: str,
    validation: Path | str | None = None,
    metric: str = "top1_accuracy",
    declared_accuracy: float | None = None,
    output_names: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    options: GenerationOptions | None = None,
    settings: Settings | None = None,
) -> Registration:
    """Register a trained model: generate its variants, measure them, and offer those that none dominates.

    `source` is an ONNX file, a `.pt2` file, a TorchScript archive, a Hugging Face folder with safetensors, an exported
    program, or a fitted scikit-learn estimator; `validation` an `.npz` with one array per input and `label`. `options`
    say which variants to make. A running system offers the variants within a second. Raises InvalidModel, saying what
    would be right.
    """
    settings = settings or load_settings()
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    metadata = Metadata(settings.metadata_url)
    try:
        return register_in(
            Path(source) if isinstance(source, str) else source,
            architecture=architecture,
            use_case=UseCase(task=task, dataset=dataset),
            validation=None if validation is None else Path(validation),
            metric=metric,
            metadata=metadata,
            repository=repository_at(settings.repository),
            declared_accuracy=declared_accuracy,
            output_names=output_names or None,
            options=options,
            on_progress=on_progress,
        )
    finally:
        metadata.close()
