"""Makes artifacts from a source model: which recipes apply to it, and the building of each in its own process.

The recipe of the source's own format comes first; its variants are the reference for all others. Rule: same source,
recipe and settings, same `Origin`, and then nothing is built.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from infaas_ray.domain import MOST_BATCH, Architecture, HardwareKind
from infaas_ray.errors import InfaasError, InvalidInput, InvalidModel, Refused, one_of
from infaas_ray.variants.build_job import Build, Described, Job, OpenSource, Wrote
from infaas_ray.variants.jobs import JobReport, run_job
from infaas_ray.variants.recipes import Form, Make, Recipe, all_recipes
from infaas_ray.variants.runtime import obstacle, runtime_named
from infaas_ray.variants.sources import Source

_MODULE = "infaas_ray.variants.build_job"
_BUILD_THREADS = 2
_CALIBRATED = (Make.STATIC_INT8, Make.NNCF_INT8, Make.INT8_ENGINE)
# The engine keeps the usual lengths of free dimensions, which only rows tell.
_TAKES_ROWS = (*_CALIBRATED, Make.ENGINE, Make.HALF_ENGINE, Make.NEURON)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """Which variants to make, and how strictly.

    `threads` are those of a CPU, `neuron_cores` those of Neuron; a GPU gets a variant per `gpu_batch_limits` (by
    default the one `batch_limit`). `recipes` are labels, None for all that pay. `min_fidelity` is the least mean
    cosine to the reference. Limits are seconds and bytes per child process; without a limit of memory it is 80 % of
    the machine's. `offer_all` offers dominated variants, too. `allow_pickle` lets a pickled source run its code here.
    """

    threads: tuple[int, ...] = (1, 2)
    batch_limit: int = 16
    hardware: tuple[HardwareKind, ...] = (HardwareKind.CPU,)
    recipes: tuple[str, ...] | None = None
    min_fidelity: float = 0.98
    most_scoring_rows: int = 2000
    build_limit_s: float = 600.0
    profile_limit_s: float = 600.0
    memory_limit_bytes: int | None = None
    gpu_batch_limits: tuple[int, ...] = ()
    neuron_cores: tuple[int, ...] = (1,)
    offer_all: bool = False
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        if self.recipes:
            known = [x.label for x in all_recipes()]
            for label in self.recipes:
                if label not in known:
                    raise InvalidInput(one_of("recipe", label, known))
        if not self.threads or not self.hardware or self.recipes == ():
            raise InvalidInput("threads, hardware and recipes must each name at least one")
        if min(*self.threads, *self.neuron_cores, self.most_scoring_rows) < 1:
            raise InvalidInput("threads, neuron_cores and most_scoring_rows must be at least 1")
        for limit in (self.batch_limit, *self.gpu_batch_limits):
            if not 1 <= limit <= MOST_BATCH:
                raise InvalidInput(f"a batch limit must be from 1 to {MOST_BATCH}, not {limit}")

    def recipes_for(self, form: Form) -> list[Recipe]:
        """The recipes to follow for a source of this form, its own first; InvalidInput where none applies."""
        found = [x for x in all_recipes() if x.takes(form) and self._wants(x)]
        if not found:
            raise InvalidInput(f"none of the chosen recipes makes variants of a {form} model on that hardware")
        return sorted(found, key=lambda x: x.form is not form)

    def _wants(self, recipe: Recipe) -> bool:
        return any(self._wants_on(recipe, x) for x in self.hardware)

    def _wants_on(self, recipe: Recipe, hardware: HardwareKind) -> bool:
        if self.recipes is None:
            return recipe.pays_on(hardware)
        return recipe.label in self.recipes and hardware in recipe.works

    def cells(self, recipe: Recipe) -> list[tuple[HardwareKind, int, int]]:
        """Hardware, threads (on Neuron cores) and batch limit of each variant that a recipe's artifact gives."""
        found: list[tuple[HardwareKind, int, int]] = []
        for hardware in dict.fromkeys(x for x in self.hardware if self._wants_on(recipe, x)):
            match hardware:
                case HardwareKind.CPU:
                    found += [(hardware, count, self.batch_limit) for count in dict.fromkeys(self.threads)]
                case HardwareKind.NEURON:
                    found += [(hardware, count, self.batch_limit) for count in dict.fromkeys(self.neuron_cores)]
                case HardwareKind.GPU:
                    limits = dict.fromkeys(self.gpu_batch_limits or (self.batch_limit,))
                    found += [(hardware, 1, limit) for limit in limits]
        return found

    @property
    def largest_batch(self) -> int:
        """The largest batch limit of any variant."""
        return max(self.batch_limit, *self.gpu_batch_limits, 1)


def missing_frameworks(recipes: list[Recipe], options: GenerationOptions) -> dict[str, str]:
    """Runtimes of these recipes that can compute on none of the hardware here, and what would help.

    None where recipes were asked for by label: then each says so itself.
    """
    if options.recipes is not None:
        return {}
    found: dict[str, list[str]] = {}
    for recipe in recipes:
        wanted = dict.fromkeys(hardware for hardware, _, _ in options.cells(recipe))
        found.setdefault(recipe.runtime, []).extend(obstacle(runtime_named(recipe.runtime), x) for x in wanted)
    return {name: reasons[0] for name, reasons in found.items() if all(reasons)}


def recipe_origin(recipe: Recipe, settings: dict[str, object]) -> str:
    """The recipe and everything that shapes its variants and what is measured of them, as one short string."""
    digest = hashlib.sha256(msgspec.json.encode(settings, order="deterministic")).hexdigest()[:32]
    return f"{recipe.label}/v{recipe.version}/{digest}"


class Builder:
    """Builds the artifacts of one source in `folder`."""

    def __init__(
        self, source: Source, folder: Path, options: GenerationOptions, *, output_names: list[str] | None
    ) -> None:
        self._source = source
        self._folder = folder
        self._options = options
        self._output_names = output_names
        self._forms: dict[Form, Path | InfaasError] = {}

    def open(self, validation: Path | None, *, onnx: bool) -> Described:
        """Read what the source takes and gives; with `onnx`, also make the ONNX file that recipes start from.

        `validation` gives the input rows that some kinds of source are traced with.
        Raises InvalidModel where the source cannot be read, MissingExtra where its framework is not installed. An
        export that fails is raised later, by the recipes that need it.
        """
        job = OpenSource(
            source=str(self._source.path),
            kind=self._source.kind,
            output_names=self._output_names,
            validation=None if validation is None else str(validation),
            folder=str(self._folder),
            onnx=onnx,
        )
        report = self._run(job, f"reading {self._source.path.name}")
        if not report.results:
            raise report.failure or InvalidModel(f"{self._source.path.name} cannot be read")
        described, *wrote = report.results
        found = msgspec.json.decode(described, type=Described)
        self._forms[self._source.form] = Path(found.path)
        if wrote:
            self._forms[Form.ONNX] = Path(msgspec.json.decode(wrote[0], type=Wrote).path)
        elif report.failure is not None:
            self._forms[Form.ONNX] = report.failure
        return found

    def build(self, recipe: Recipe, architecture: Architecture, rows: Path, calibration: Path | None) -> Path:
        """The artifact's file. `calibration` are input rows (`.npz`) for quantising, `rows` any rows, for their shapes.

        Raises Refused where the source cannot give it, InvalidModel where it cannot be made.
        """
        source = self._forms.get(recipe.form, InvalidModel(f"the source was not opened as {recipe.form}"))
        if isinstance(source, InfaasError):
            raise source
        if recipe.make is Make.AS_IS:
            return source
        if recipe.make in _CALIBRATED and calibration is None:
            raise Refused("int8 needs rows to calibrate on: give a validation set")
        options = self._options
        given = calibration if recipe.make in _CALIBRATED else rows if recipe.make in _TAKES_ROWS else None
        job = Build(
            make=recipe.make,
            precision=recipe.precision,
            source=str(source),
            rows=None if given is None else str(given),
            batch=options.largest_batch,
            inputs=list(architecture.inputs),
            asked=options.recipes is not None,
            target=str(self._folder / f"{recipe.label}.artifact"),
        )
        return Path(self._run(job, f"making {recipe.make}").last(Wrote).path)

    def _run(self, job: Job, what: str) -> JobReport:
        return run_job(
            _MODULE,
            job,
            what=what,
            folder=self._folder,
            threads=_BUILD_THREADS,
            limit_s=self._options.build_limit_s,
            memory_limit_bytes=self._options.memory_limit_bytes,
        )
