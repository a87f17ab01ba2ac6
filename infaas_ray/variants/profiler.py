"""Measures variants, each in a fresh process with the threads it will have in service, and judges their answers.

A variant whose answers differ too much from the reference (the first fp32 variant that works) is refused: a broken
quantisation must not be sold as a cheaper model. Accuracy belongs to an artifact on a kind of hardware; its other
thread counts inherit it.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from infaas_ray.domain import Accuracy, AccuracySource, Architecture, Array, Profile, Variant
from infaas_ray.errors import InvalidModel, Refused
from infaas_ray.variants.jobs import run_job
from infaas_ray.variants.latency_fit import fit_latency
from infaas_ray.variants.metrics import Scored, mean_cosine, score
from infaas_ray.variants.profile_job import Measured, ProfileJob
from infaas_ray.variants.runtime import prepares, runtime_of
from infaas_ray.variants.timing import batch_sizes
from infaas_ray.variants.validation import ValidationSet

_MODULE = "infaas_ray.variants.profile_job"
# What an empty variant actor takes (Python, Ray, our code); `make bench-variants` measures it beside the variants.
ACTOR_BYTES = 108_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The rows of a validation set laid out as files for child processes.

    `rows` holds the calibration rows, then the scoring rows; `calibration` the former alone (None where there are
    none); `sample` one batch of them.
    """

    folder: Path
    validation: ValidationSet
    rows: Path
    calibration: Path | None
    sample: Path
    limit_s: float
    memory_limit_bytes: int | None = None


def lay_out(
    folder: Path,
    validation: ValidationSet,
    *,
    batch_limit: int,
    limit_s: float,
    memory_limit_bytes: int | None = None,
) -> Bench:
    """Write the files. `limit_s` and `memory_limit_bytes` bound each measurement."""
    order = np.concatenate([validation.calibration, validation.scoring])
    rows, sample = folder / "rows.npz", folder / "sample.npz"
    np.savez(rows, allow_pickle=False, **validation.rows(order))
    np.savez(sample, allow_pickle=False, **validation.rows(validation.scoring[:batch_limit]))
    calibration = folder / "calibration.npz" if len(validation.calibration) else None
    if calibration is not None:
        np.savez(calibration, allow_pickle=False, **validation.rows(validation.calibration))
    return Bench(
        folder=folder,
        validation=validation,
        rows=rows,
        calibration=calibration,
        sample=sample,
        limit_s=limit_s,
        memory_limit_bytes=memory_limit_bytes,
    )


def measure(
    variant: Variant, architecture: Architecture, artifact: Path, bench: Bench, *, timed: bool, answers: bool
) -> tuple[Measured, Array]:
    """Run one profile job: time batch sizes (`timed`), give the first outputs of all rows (`answers`; else empty).

    A runtime that keeps something per machine gets to make it first, in a process whose time is not counted.
    Raises InvalidModel, VariantFailed, MissingExtra or ConfigError: the variant does not work here.
    """
    outputs = bench.folder / "outputs.npy"
    job = ProfileJob(
        artifact=str(artifact),
        variant=variant,
        architecture=architecture,
        sample=str(bench.sample),
        batches=batch_sizes(variant.batch_limit) if timed else [],
        rows=str(bench.rows) if answers else None,
        outputs=str(outputs),
    )
    if timed and prepares(runtime_of(variant), artifact, variant):
        _run(msgspec.structs.replace(job, batches=[], rows=None), bench)
    measured = _run(job, bench)
    return measured, np.load(outputs, allow_pickle=False) if answers else np.empty(0)


def _run(job: ProfileJob, bench: Bench) -> Measured:
    report = run_job(
        _MODULE,
        job,
        what="profiling",
        folder=bench.folder,
        threads=job.variant.threads,
        limit_s=bench.limit_s,
        memory_limit_bytes=bench.memory_limit_bytes,
    )
    return report.last(Measured)


def profile_of(variant: Variant, measured: Measured, accuracy: Accuracy) -> Profile:
    """The profile of a variant that was timed. Load time includes the first call.

    Memory is that of a replica: of the measuring process only what the variant added to it counts.
    """
    added_bytes = max(0, measured.peak_memory_bytes - measured.baseline_memory_bytes)
    return Profile(
        variant=variant.name,
        hardware=measured.hardware,
        load_s=measured.load_s + measured.first_call_s,
        latencies=tuple(measured.latencies),
        saturation_qps=max(x.batch / x.p50_s for x in measured.latencies),
        peak_memory_bytes=ACTOR_BYTES + added_bytes,
        accuracy=accuracy,
        versions=measured.versions,
        warm_load_s=measured.warm_load_s,
        baseline_memory_bytes=ACTOR_BYTES,
        peak_device_memory_bytes=measured.peak_device_memory_bytes,
        outside_load=measured.outside_load,
        fit=fit_latency(measured.latencies),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class Judge:
    """Turns a variant's answers on a bench into an accuracy, or refuses them.

    `declared` replaces the measured accuracy and is marked so. `reference` is None until the first answers of an
    fp32 variant were accepted.
    """

    def __init__(self, bench: Bench, *, metric: str, min_fidelity: float, declared: float | None) -> None:
        self._validation = bench.validation
        self._metric = metric
        self._min_fidelity = min_fidelity
        self._declared = declared
        self.reference: Array | None = None

    def judge(self, answers: Array, *, fp32: bool) -> Accuracy:
        """The accuracy of these first outputs.

        Raises Refused where they are not good enough, InvalidModel where they cannot be judged.
        """
        if not np.isfinite(answers).all():
            raise Refused("refused: its outputs on the validation rows are not all finite")
        if self.reference is None and not fp32:
            raise InvalidModel("refused: no fp32 variant works, so there is nothing to compare its outputs with")
        fidelity = None
        if self.reference is not None:
            fidelity = self._compare(answers[self._scoring], self.reference[self._scoring])
        accuracy = replace(self._accuracy(answers), fidelity=fidelity)
        if self.reference is None:
            self.reference = answers
        return accuracy

    @property
    def _scoring(self) -> slice:
        return slice(len(self._validation.calibration), None)

    def _compare(self, answers: Array, reference: Array) -> float:
        fidelity = mean_cosine(answers, reference)
        if not fidelity >= self._min_fidelity:
            raise Refused(
                f"refused: the mean cosine of its outputs to the fp32 reference is {fidelity:.4f}, "
                f"below the bound of {self._min_fidelity:g}"
            )
        return fidelity

    def _accuracy(self, answers: Array) -> Accuracy:
        validation, labels = self._validation, self._validation.labels
        if self._declared is not None:
            return Accuracy(
                value=self._declared, metric=self._metric, rows=0, standard_error=0.0, source=AccuracySource.DECLARED
            )
        if labels is None:
            raise InvalidModel("there are no labels to measure accuracy with")
        split = len(validation.calibration)
        scored = Scored(
            outputs=answers[split:],
            labels=labels[validation.scoring],
            calibration_outputs=answers[:split],
            calibration_labels=labels[validation.calibration],
        )
        return score(self._metric, scored)
