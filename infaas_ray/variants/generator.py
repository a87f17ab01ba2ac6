"""Makes artifacts from a source model: which recipes apply to it, and the building of each in its own process.

Recipes: `torch-fp32` (a `.pt2` as it is), `onnxruntime-fp32` (an ONNX file, exported from a `.pt2`), and
`onnxruntime-int8` (that file quantised). The recipe of the source's own format comes first; its variants are the
reference for all others. Rule: same source, recipe and settings, same `Origin`, and then nothing is built.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from infaas_ray.domain import HardwareKind
from infaas_ray.errors import InfaasError, InvalidInput, InvalidModel, one_of
from infaas_ray.storage.repository import file_digest
from infaas_ray.variants.build_job import Described, OpenSource, Quantize, Wrote
from infaas_ray.variants.jobs import JobReport, run_job

_MODULE = "infaas_ray.variants.build_job"
_BUILD_THREADS = 2
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A way to make an artifact. `version` grows when the way changes, so that artifacts are made anew."""

    runtime: str
    precision: str
    suffixes: tuple[str, ...]
    hardware: tuple[HardwareKind, ...]
    version: int = 1

    @property
    def label(self) -> str:
        """`runtime-precision`."""
        return f"{self.runtime}-{self.precision}"


_ANY = (HardwareKind.CPU, HardwareKind.GPU)
RECIPES = (
    Recipe(runtime="torch", precision="fp32", suffixes=(".pt2",), hardware=_ANY),
    Recipe(runtime="onnxruntime", precision="fp32", suffixes=(".pt2", ".onnx"), hardware=_ANY),
    # The GPU provider runs quantise and dequantise pairs as separate kernels, slower than fp32.
    Recipe(runtime="onnxruntime", precision="int8", suffixes=(".pt2", ".onnx"), hardware=(HardwareKind.CPU,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """Which variants to make, and how strictly.

    `threads` apply to CPU; other hardware gets one variant per artifact. `recipes` are labels, None for all that
    apply. `min_fidelity` is the least mean cosine to the reference. Limits are seconds per child process.
    """

    threads: tuple[int, ...] = (1, 2)
    batch_limit: int = 16
    hardware: tuple[HardwareKind, ...] = (HardwareKind.CPU,)
    recipes: tuple[str, ...] | None = None
    min_fidelity: float = 0.98
    most_scoring_rows: int = 2000
    build_limit_s: float = 600.0
    profile_limit_s: float = 600.0

    def __post_init__(self) -> None:
        known = [x.label for x in RECIPES]
        for label in self.recipes or ():
            if label not in known:
                raise InvalidInput(one_of("recipe", label, known))
        if not self.threads or not self.hardware or self.recipes == ():
            raise InvalidInput("threads, hardware and recipes must each name at least one")
        if min(self.threads) < 1 or self.batch_limit < 1 or self.most_scoring_rows < 1:
            raise InvalidInput("threads, batch_limit and most_scoring_rows must be at least 1")

    def recipes_for(self, source: Path) -> list[Recipe]:
        """The recipes to follow for a source, its own format first; InvalidInput where none applies."""
        found = [
            x
            for x in RECIPES
            if source.suffix in x.suffixes
            and (self.recipes is None or x.label in self.recipes)
            and set(self.hardware) & set(x.hardware)
        ]
        if not found:
            raise InvalidInput(f"none of the chosen recipes makes variants of a {source.suffix} model on that hardware")
        return found

    def cells(self, recipe: Recipe) -> list[tuple[HardwareKind, int]]:
        """Hardware and threads of each variant that a recipe's artifact gives."""
        found = []
        for hardware in dict.fromkeys(x for x in self.hardware if x in recipe.hardware):
            threads = dict.fromkeys(self.threads) if hardware is HardwareKind.CPU else (1,)
            found += [(hardware, count) for count in threads]
        return found


def check_source(path: Path) -> None:
    """Raise InvalidModel unless `path` is a file that may be a source model."""
    if path.suffix in _PICKLES:
        raise InvalidModel(
            f"{path.name} is a pickle by its name, and reading a pickle runs whatever code is in it; export the model "
            "to ONNX or with torch.export.save(torch.export.export(model, args), 'model.pt2') and register that"
        )
    if path.suffix not in {suffix for recipe in RECIPES for suffix in recipe.suffixes}:
        raise InvalidModel(f"{path.name} is neither a .pt2 (torch.export.save) nor an .onnx file")
    if not path.is_file():
        raise InvalidModel(f"there is no model file {path}")


def source_digest(path: Path) -> str:
    """SHA-256 over the source and the files beside it that carry its weights (`model.onnx.data` and the like)."""
    parts = [file_digest(x) for x in sorted(path.parent.glob(f"{path.name}*")) if x.is_file()]
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def recipe_origin(recipe: Recipe, settings: dict[str, object]) -> str:
    """The recipe and everything that shapes its variants and what is measured of them, as one short string."""
    digest = hashlib.sha256(msgspec.json.encode(settings, order="deterministic")).hexdigest()[:32]
    return f"{recipe.label}/v{recipe.version}/{digest}"


class Builder:
    """Builds the artifacts of one source in `folder`."""

    def __init__(self, source: Path, folder: Path, *, output_names: list[str] | None, limit_s: float) -> None:
        self._source = source
        self._folder = folder
        self._output_names = output_names
        self._limit_s = limit_s
        self._onnx: Path | InfaasError = InvalidModel("the source was not opened for ONNX")

    def open(self, *, onnx: bool) -> Described:
        """Read what the source takes and gives; with `onnx`, also make the ONNX file that recipes start from.

        Raises InvalidModel where the source cannot be read, MissingExtra where its framework is not installed. An
        export that fails is raised later, by the recipes that need it.
        """
        target = str(self._folder / "source.fp32.onnx") if onnx else None
        job = OpenSource(source=str(self._source), output_names=self._output_names, onnx=target)
        report = self._run(job, f"reading {self._source.name}")
        if not report.results:
            raise report.failure or InvalidModel(f"{self._source.name} cannot be read")
        if report.failure is not None:
            self._onnx = report.failure
        elif onnx:
            self._onnx = Path(report.last(Wrote).path)
        return msgspec.json.decode(report.results[0], type=Described)

    def build(self, recipe: Recipe, calibration: Path | None, batch: int) -> Path:
        """The artifact's file. `calibration` are input rows (`.npz`) for quantising, `batch` at a time.

        Raises InvalidModel where it cannot be made.
        """
        if recipe.runtime == "torch":
            return self._source
        if isinstance(self._onnx, InfaasError):
            raise self._onnx
        if recipe.precision == "fp32":
            return self._onnx
        if calibration is None:
            raise InvalidModel("int8 needs rows to calibrate on: give a validation set")
        target = self._folder / f"{recipe.label}.onnx"
        job = Quantize(onnx=str(self._onnx), rows=str(calibration), batch=batch, target=str(target))
        return Path(self._run(job, "quantising").last(Wrote).path)

    def _run(self, job: OpenSource | Quantize, what: str) -> JobReport:
        return run_job(_MODULE, job, what=what, folder=self._folder, threads=_BUILD_THREADS, limit_s=self._limit_s)
