"""What may be a source model, which form it is turned into, and the hash by which it is known again.

Rule: nothing is read that could run code of its own, except a pickle whose owner said `allow_pickle`. Files are told
apart by content where names lie: `.pt` may be a TorchScript archive (read) or a pickle (refused).
"""

import hashlib
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from infaas_ray.errors import InvalidModel
from infaas_ray.storage.repository import file_digest
from infaas_ray.variants.recipes import Form

_PICKLES = (".pkl", ".pickle", ".joblib")
_PERHAPS_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".ts", ".torchscript")


class Kind(StrEnum):
    """How a source is read."""

    PROGRAM = "program saved by torch.export"
    ONNX = "ONNX file"
    TORCHSCRIPT = "TorchScript archive"
    ESTIMATOR = "pickled scikit-learn estimator"
    TRANSFORMERS = "Hugging Face folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model file or folder."""

    path: Path
    kind: Kind

    @property
    def form(self) -> Form:
        """What it is turned into, from which recipes start."""
        return Form.PROGRAM if self.kind in (Kind.PROGRAM, Kind.TRANSFORMERS) else Form.ONNX


def source_at(path: Path, *, allow_pickle: bool = False) -> Source:
    """The source at a path; InvalidModel, with the way out, where there is none that may be read."""
    if not path.exists():
        raise InvalidModel(f"there is no model file {path}")
    return Source(path=path.resolve(), kind=_kind(path, allow_pickle))


def source_digest(path: Path) -> str:
    """SHA-256 over the source: of a file and those beside it that carry its weights, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    parts = {str(x.relative_to(path.parent)): file_digest(x) for x in sorted(files) if x.is_file()}
    if len(parts) == 1:
        return next(iter(parts.values()))
    named = parts if path.is_dir() else dict.fromkeys(parts.values(), "")
    return hashlib.sha256("".join(f"{name}{digest}" for name, digest in named.items()).encode()).hexdigest()


def _kind(path: Path, allow_pickle: bool) -> Kind:
    if path.is_dir():
        return _folder_kind(path)
    if path.suffix == Form.PROGRAM:
        return Kind.PROGRAM
    if path.suffix == Form.ONNX:
        return Kind.ONNX
    if path.suffix in _PERHAPS_PICKLES and _is_torchscript(path):
        return Kind.TORCHSCRIPT
    if path.suffix in _PICKLES and allow_pickle:
        return Kind.ESTIMATOR
    if path.suffix in (*_PICKLES, *_PERHAPS_PICKLES):
        more = " (or, if you made the file yourself, allow it: --allow-pickle)" if path.suffix in _PICKLES else ""
        raise InvalidModel(
            f"{path.name} is a pickle by its name, and reading a pickle runs whatever code is in it; export the model "
            "to ONNX or with torch.export.save(torch.export.export(model, args), 'model.pt2') and register that" + more
        )
    raise InvalidModel(
        f"{path.name} is neither a .pt2 (torch.export.save) nor an .onnx file, nor a TorchScript archive, nor a folder "
        "of transformers with config.json and safetensors"
    )


def _folder_kind(path: Path) -> Kind:
    if not (path / "config.json").is_file():
        raise InvalidModel(f"the folder {path} has no config.json; a Hugging Face folder has one beside its weights")
    if not any(path.glob("*.safetensors")):
        raise InvalidModel(
            f"the folder {path} has no .safetensors file; other weights are pickles, which could run any code: save it "
            "with model.save_pretrained(folder, safe_serialization=True)"
        )
    return Kind.TRANSFORMERS


def _is_torchscript(path: Path) -> bool:
    """Both kinds of `.pt` are zip archives; only TorchScript carries code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
