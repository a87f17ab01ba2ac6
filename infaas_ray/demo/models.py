"""The models of the demonstration and how their files come to be: trained or loaded, exported, with validation rows.

Rule: a file appears complete or not at all, and what is there is not made again; to make it anew, delete it. The
frameworks are imported only when something has to be made, so that a second run costs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from infaas_ray.domain import Array
from infaas_ray.errors import MissingExtra

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_BATCH = 1024
SAMPLE_ROWS = 64

Make = Callable[[Path], object]  # writes the file at that path
OnProgress = Callable[[str, int, int], None]

DIGITS = ("digits-linear", "digits-mlp", "digits-cnn", "digits-cnn-wide")
SENTENCES = "minilm-l6"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModel:
    """A model ready to be registered.

    `path` is a program saved by torch.export whose batch is free from 1 to 1,024; its outputs are a dictionary by
    name. `validation` is an .npz with one array per input, `label`, and the mask `calibration`. `sample` holds rows
    to ask queries with: one array per input, cut from the scored rows.
    """

    path: Path
    architecture: str
    task: str
    dataset: str
    validation: Path
    metric: str
    sample: Mapping[str, Array]


def prepare(folder: Path, on_progress: OnProgress) -> list[DemoModel]:
    """Make in `folder` what is not there yet, and describe all of it.

    `on_progress(file, done, total)` is called as each file begins, and once at the end with done == total.
    Raises MissingExtra where a framework is needed that is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Make] = {
        "digits.npz": _write_digits,
        **{f"{name}.pt2": _digits_writer(name) for name in DIGITS},
        "stdlib-docs.npz": _write_sentences,
        f"{SENTENCES}.pt2": _write_encoder,
    }
    for done, (name, make) in enumerate(files.items()):
        on_progress(name, done, len(files))
        make_once(folder / name, make)
    on_progress("ready", len(files), len(files))
    return [*(_digit_model(folder, name) for name in DIGITS), _sentence_model(folder)]


def make_once(path: Path, make: Make) -> None:
    """Call `make` with a temporary path of the same name and move the result to `path`, unless that exists.

    Raises MissingExtra in place of any ImportError of a framework.
    """
    if path.exists():
        return
    with TemporaryDirectory(dir=path.parent, prefix=".making-") as made:
        try:
            make(Path(made) / path.name)
        except ImportError as error:
            missing = error.name or str(error)
            raise MissingExtra(f"{missing} is not installed: pip install 'infaas-ray[demo]'", "demo") from error
        (Path(made) / path.name).replace(path)


def export(module: "nn.Module", inputs: Mapping[str, "Tensor"], path: Path) -> None:
    """Save `module` as a program of `inputs`: an example per argument, in order, whose first dimension becomes free."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes={name: {0: batch} for name in inputs})
    torch.export.save(program, path)


def _write_digits(path: Path) -> None:
    from infaas_ray.demo import digits

    np.savez_compressed(path, allow_pickle=False, **digits.validation(digits.load()))


def _digits_writer(architecture: str) -> Make:
    def write(path: Path) -> None:
        import torch

        from infaas_ray.demo import digits

        export(digits.train(architecture, digits.load()), {"image": torch.zeros(2, 1, 8, 8)}, path)

    return write


def _write_sentences(path: Path) -> None:
    from infaas_ray.demo import sentences

    np.savez_compressed(path, allow_pickle=False, **sentences.validation())


def _write_encoder(path: Path) -> None:
    import torch

    from infaas_ray.demo import minilm, sentences

    tokens = torch.ones(2, sentences.TOKENS, dtype=torch.int64)
    export(minilm.load(sentences.weights_folder()), {"input_ids": tokens, "attention_mask": tokens.clone()}, path)


def _digit_model(folder: Path, architecture: str) -> DemoModel:
    return DemoModel(
        path=folder / f"{architecture}.pt2",
        architecture=architecture,
        task="digit-classification",
        dataset="digits",
        validation=folder / "digits.npz",
        metric="top1_accuracy",
        sample=_sample(folder / "digits.npz"),
    )


def _sentence_model(folder: Path) -> DemoModel:
    return DemoModel(
        path=folder / f"{SENTENCES}.pt2",
        architecture=SENTENCES,
        task="sentence-embedding",
        dataset="stdlib-docs",
        validation=folder / "stdlib-docs.npz",
        metric="centroid_accuracy",
        sample=_sample(folder / "stdlib-docs.npz"),
    )


def _sample(validation: Path) -> dict[str, Array]:
    with np.load(validation, allow_pickle=False) as arrays:
        scored = np.flatnonzero(~arrays["calibration"])[:SAMPLE_ROWS]
        return {name: arrays[name][scored] for name in arrays.files if name not in ("label", "calibration")}
