"""The work of one registration.

Order: read the model's tensors, lay out the validation rows, then for each recipe build its artifact, store it, and
profile each variant. Rules: a variant is in the metadata only once it was built, measured and accepted; what is there
already from the same source and settings is left alone, so an interrupted registration continues; what fails is
recorded with its reason and the rest goes on; what was refused is not tried again, while a crash or a timeout is. An
architecture has one source: variants of an earlier one go when the new one has given its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from infaas_ray.domain import Accuracy, Architecture, Array, HardwareKind, Profile, UseCase, Variant
from infaas_ray.errors import ArtifactCorrupt, InfaasError, InvalidModel, MissingExtra, Refused
from infaas_ray.storage.metadata import Metadata, Origin
from infaas_ray.storage.repository import Repository
from infaas_ray.variants.generator import Builder, GenerationOptions, missing_frameworks, recipe_origin
from infaas_ray.variants.pareto import undominated
from infaas_ray.variants.profiler import Bench, Judge, lay_out, measure, profile_of
from infaas_ray.variants.recipes import Form, Recipe
from infaas_ray.variants.sources import Source
from infaas_ray.variants.validation import ValidationSet, read_validation, synthetic_validation

_NO_ARTIFACT = "0" * 64
_Computation = tuple[str, str, str, HardwareKind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`done` of `total` steps are behind; `step` names the one that begins or ended, `note` says how it stands."""

    step: str
    done: int
    total: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a registration left: all variants of this source, which of them were there before, and what failed.

    `offered` names the variants that no other dominates; `missing` says, by runtime, what is not installed here.
    """

    architecture: Architecture
    variants: tuple[tuple[Variant, Profile], ...]
    skipped: tuple[str, ...]
    failures: Mapping[str, str]
    offered: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked, with the digest of the source file."""

    source: Source
    digest: str
    architecture: str
    use_case: UseCase
    validation: Path | None
    validation_digest: str | None
    metric: str
    options: GenerationOptions
    declared_accuracy: float | None
    output_names: tuple[str, ...] | None

    def origin(self, recipe: Recipe) -> Origin:
        """What a recipe's variants will be said to come from."""
        settings: dict[str, object] = {
            "validation": self.validation_digest,
            "metric": self.metric,
            "declared": self.declared_accuracy,
            "outputs": self.output_names,
            "min_fidelity": self.options.min_fidelity,
            "most_scoring_rows": self.options.most_scoring_rows,
        }
        if recipe.of_batch:
            settings["batch"] = self.options.largest_batch
        return Origin(source=self.digest, recipe=recipe_origin(recipe, settings))

    def variant(self, recipe: Recipe, hardware: HardwareKind, threads: int, batch_limit: int) -> Variant:
        """The variant of one cell, its artifact still unknown."""
        return Variant(
            architecture=self.architecture,
            runtime=recipe.runtime,
            precision=recipe.precision,
            hardware=hardware,
            threads=threads,
            batch_limit=batch_limit,
            artifact=_NO_ARTIFACT,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What every variant of this registration is tried with.

    `verdicts` are the accuracy or the refusal of each artifact as each runtime and precision computes it on each kind
    of hardware, as far as known.
    """

    architecture: Architecture
    builder: Builder
    bench: Bench
    judge: Judge
    verdicts: dict[_Computation, Accuracy | InfaasError]


class Run:
    """One registration under way."""

    def __init__(
        self,
        request: Request,
        metadata: Metadata,
        repository: Repository,
        folder: Path,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._request = request
        self._metadata = metadata
        self._repository = repository
        self._folder = folder
        self._on_progress = on_progress
        recipes = request.options.recipes_for(request.source.form)
        self._missing = missing_frameworks(recipes, request.options)
        self._recipes = [x for x in recipes if x.runtime not in self._missing]
        self._total = 1 + sum(1 + len(request.options.cells(x)) for x in self._recipes)
        self._step = 0
        self._known = metadata.architectures().get(request.architecture)
        self._there = self._already_there()
        self._refused = self._already_refused()
        self._made: dict[str, tuple[Variant, Profile]] = {}
        self._failures: dict[str, str] = {}

    def run(self) -> Registration:
        """Do what is left to do."""
        if self._known is not None:  # another use case is refused before any work
            self._metadata.add_architecture(replace(self._known, use_case=self._request.use_case))
        if not self._recipes:
            listed = "; ".join(f"{name} is {how}" for name, how in self._missing.items())
            raise MissingExtra(f"nothing can be made of {self._request.source.path.name}: {listed}")
        if self._known is not None and self._there and not any(self._left(x) for x in self._recipes):
            self._failures |= self._refused
            self._advance("all variants", "already there", steps=self._total)
            return self._finish(self._known)
        trial = self._open()
        for recipe in self._recipes:
            self._follow(recipe, trial)
        return self._finish(trial.architecture)

    def _already_there(self) -> dict[str, tuple[Variant, Profile]]:
        """Variants by name that came from this source by these recipes and whose artifacts are whole."""
        name = self._request.architecture
        origins, wanted = self._metadata.origins(name), {self._request.origin(x) for x in self._recipes}
        intact: dict[str, bool] = {}
        found = {}
        for variant, profile in self._metadata.variants(name):
            if origins.get(variant.name) in wanted:
                if variant.artifact not in intact:
                    intact[variant.artifact] = self._intact(variant.artifact)
                if intact[variant.artifact]:
                    found[variant.name] = (variant, profile)
        return found

    def _already_refused(self) -> dict[str, str]:
        """Why recipes and variants of this source and these settings were refused before, by label."""
        wanted = {self._request.origin(x) for x in self._recipes}
        found = self._metadata.failures(self._request.architecture)
        return {x.label: x.reason for x in found if x.refused and x.origin in wanted}

    def _left(self, recipe: Recipe) -> list[Variant]:
        """The variants of a recipe that have to be tried."""
        if recipe.label in self._refused:
            return []
        return [x for x in self._cells(recipe) if x.name not in self._there and x.name not in self._refused]

    def _intact(self, digest: str) -> bool:
        try:
            self._repository.fetch(digest)
        except ArtifactCorrupt:
            return False
        return True

    def _cells(self, recipe: Recipe) -> list[Variant]:
        cells = self._request.options.cells(recipe)
        return [self._request.variant(recipe, hardware, threads, limit) for hardware, threads, limit in cells]

    def _open(self) -> _Trial:
        request, options = self._request, self._request.options
        self._note("reading the model", "started")
        names = None if request.output_names is None else list(request.output_names)
        builder = Builder(request.source, self._folder, options, output_names=names)
        left = [x for x in self._recipes if self._left(x)]
        described = builder.open(request.validation, onnx=any(x.form is Form.ONNX for x in left))
        architecture = Architecture(
            name=request.architecture,
            use_case=request.use_case,
            inputs=tuple(described.inputs),
            outputs=tuple(described.outputs),
        )
        validation = self._validation(architecture)
        bench = lay_out(
            self._folder,
            validation,
            batch_limit=options.largest_batch,
            limit_s=options.profile_limit_s,
            memory_limit_bytes=options.memory_limit_bytes,
        )
        declared = request.declared_accuracy
        judge = Judge(bench, metric=request.metric, min_fidelity=options.min_fidelity, declared=declared)
        self._metadata.add_architecture(architecture)
        self._advance("reading the model", "done")
        there = {_computation(x): profile.accuracy for x, profile in self._there.values()}
        return _Trial(architecture=architecture, builder=builder, bench=bench, judge=judge, verdicts={**there})

    def _validation(self, architecture: Architecture) -> ValidationSet:
        if self._request.validation is None:
            return synthetic_validation(architecture.inputs)
        return read_validation(
            self._request.validation,
            architecture.inputs,
            needs_label=self._request.declared_accuracy is None,
            most_scoring_rows=self._request.options.most_scoring_rows,
        )

    def _follow(self, recipe: Recipe, trial: _Trial) -> None:
        """Build a recipe's artifact, unless all is there, and profile its variants."""
        left = self._left(recipe)
        self._step += len(self._cells(recipe)) - len(left)
        labels = (recipe.label, *(x.name for x in self._cells(recipe)))
        self._failures |= {x: self._refused[x] for x in labels if x in self._refused}
        if not left:
            self._advance(recipe.label, "refused before" if recipe.label in self._refused else "already there")
            return
        self._metadata.clear_failure(trial.architecture.name, recipe.label)
        self._note(recipe.label, "building")
        try:
            digest, path = self._artifact(recipe, trial)
        except InfaasError as error:
            self._fail(recipe.label, error, recipe, steps=1 + len(left))
            return
        self._advance(recipe.label, "built")
        for cell in left:
            self._try(replace(cell, artifact=digest, artifact_bytes=path.stat().st_size), path, recipe, trial)

    def _artifact(self, recipe: Recipe, trial: _Trial) -> tuple[str, Path]:
        """Digest and stored file: of a variant that is there with the same artifact, or newly built."""
        for cell in self._cells(recipe):
            if cell.name in self._there:
                digest = self._there[cell.name][0].artifact
                return digest, self._repository.fetch(digest)
        built = trial.builder.build(recipe, trial.architecture, trial.bench.sample, trial.bench.calibration)
        digest = self._repository.put(built)
        return digest, self._repository.fetch(digest)

    def _try(self, variant: Variant, artifact: Path, recipe: Recipe, trial: _Trial) -> None:
        """Profile one variant and record it, or why not."""
        self._note(variant.name, "profiling")
        self._metadata.clear_failure(variant.architecture, variant.name)
        try:
            profile = self._profile(variant, artifact, trial)
        except InfaasError as error:
            self._fail(variant.name, error, recipe)
            return
        self._metadata.put_variant(variant, profile, self._request.origin(recipe))
        self._made[variant.name] = (variant, profile)
        self._advance(variant.name, "profiled")

    def _profile(self, variant: Variant, artifact: Path, trial: _Trial) -> Profile:
        """Time the variant, and have its answers judged unless its artifact's were."""
        key = _computation(variant)
        verdict = trial.verdicts.get(key)
        if isinstance(verdict, InfaasError):
            raise verdict
        measured, answers = measure(
            variant, trial.architecture, artifact, trial.bench, timed=True, answers=verdict is None
        )
        if verdict is None:
            self._require_reference(trial)
            verdict = trial.verdicts[key] = _verdict(trial.judge, answers, fp32=variant.precision == "fp32")
        if isinstance(verdict, InfaasError):
            raise verdict
        return profile_of(variant, measured, verdict)

    def _require_reference(self, trial: _Trial) -> None:
        """Where the fp32 variant was there before this run, compute its answers now."""
        stored = [variant for variant, _ in self._there.values() if variant.precision == "fp32"]
        if trial.judge.reference is not None or not stored:
            return
        order = [x.runtime for x in self._recipes]
        first = min(stored, key=lambda x: (order.index(x.runtime), x.threads))
        path = self._repository.fetch(first.artifact)
        _, answers = measure(first, trial.architecture, path, trial.bench, timed=False, answers=True)
        trial.judge.judge(answers, fp32=True)

    def _finish(self, architecture: Architecture) -> Registration:
        """Drop what this source replaced; the result, or InvalidModel if there is none."""
        if not self._made and not self._there:
            if self._known is None:
                self._metadata.remove_architecture(architecture.name)
            first: dict[str, str] = {}  # each reason once, in the order of the recipes
            for label, reason in self._failures.items():
                first.setdefault(reason, label)
            reasons = "; ".join(f"{label}: {reason}" for reason, label in first.items())
            raise InvalidModel(f"no variant of {architecture.name!r} works: {reasons}")
        for name, origin in self._metadata.origins(architecture.name).items():
            if name in self._failures or origin.source != self._request.digest:
                self._metadata.remove_variant(name)
        variants = {name: x for name, x in (self._there | self._made).items() if name not in self._failures}
        offered = self._offer(architecture.name)
        return Registration(
            architecture=architecture,
            variants=tuple(variants.values()),
            skipped=tuple(x for x in self._there if x not in self._made),
            failures=dict(self._failures),
            offered=frozenset(offered & set(variants)),
            missing=dict(self._missing),
        )

    def _offer(self, architecture: str) -> set[str]:
        """Offer the variants of the architecture, old and new, that none dominates, as far as they can be loaded."""
        every = self._metadata.variants(architecture)
        stored = self._repository.digests()
        here = [x for x in every if x[0].artifact in stored]
        offered = {x.name for x, _ in here} if self._request.options.offer_all else undominated(here)
        self._metadata.offer(architecture, offered)
        return offered

    def _fail(self, label: str, error: InfaasError, recipe: Recipe, *, steps: int = 1) -> None:
        self._failures[label] = error.message
        self._metadata.record_failure(
            self._request.architecture,
            label,
            error.message,
            self._request.origin(recipe),
            refused=isinstance(error, Refused),
        )
        self._advance(label, f"failed: {error.message}", steps=steps)

    def _advance(self, step: str, note: str, *, steps: int = 1) -> None:
        self._step += steps
        self._note(step, note)

    def _note(self, step: str, note: str) -> None:
        self._on_progress(Progress(step=step, done=self._step, total=self._total, note=note))


def _verdict(judge: Judge, answers: Array, *, fp32: bool) -> Accuracy | InfaasError:
    try:
        return judge.judge(answers, fp32=fp32)
    except InfaasError as error:
        return error


def _computation(variant: Variant) -> _Computation:
    """What two variants share that must give the same answers."""
    return (variant.artifact, variant.runtime, variant.precision, variant.hardware)
