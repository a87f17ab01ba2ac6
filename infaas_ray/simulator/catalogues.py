"""What can be offered, read from a catalogue file: worker types, and variants from published figures, profiles, timm.

A catalogue file is YAML; paths in it are relative to it, and may name environment variables (`$TIMM/results.csv`):

- `prices`: a price list, as the settings' `prices.catalog` takes; its worker types are those that can be had. Without
  it there is one machine like this one, `this-machine`, priced by its processors.
- `published`: a CSV file of figures (one variant a row), with `use_cases` (their tensors and architectures) and
  `sources` (what the ids in the file's source columns mean). Every row names its sources, or the file is refused.
- `profiles`: each a `file` of `infaas profile --export`, or the `home` folder of a system, whose registered variants
  are then read as they are; with the worker types on which they hold.
- `timm`: result tables of timm, each with the worker types that it stands for.

A variant costs what it costs on the cheapest of its worker types that can run it. `speed` says how much faster a worker
is than the machine that was measured; it is an assumption, and the profile says so in its `versions`.
"""

import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infaas_ray.config import PriceSettings, Settings, read_yaml
from infaas_ray.domain import (
    Accuracy,
    AccuracySource,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
    WorkerType,
)
from infaas_ray.errors import ConfigError, InvalidInput, one_of
from infaas_ray.policy.placement import RESOURCE_OF
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.storage.metadata import Metadata
from infaas_ray.variants.profile_file import ProfileFile, profiles_of, read_profiles
from infaas_ray.variants.timm_tables import Machine, timm_catalog

_NO_ARTIFACT = "0" * 64
_MIB = 2**20
_BATCH = re.compile(r"ms_(\d+)")
_SOURCES = ("latency_source", "accuracy_source", "footprint_source")
Measured = tuple[Variant, Profile, tuple[str, ...]]  # with the names of the worker types on which it holds


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Tensor(_Section):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _UseCase(_Section):
    task: str
    dataset: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    architectures: tuple[str, ...]


class _Profiles(_Section):
    file: Path | None = None
    home: Path | None = None
    worker_types: tuple[str, ...]
    speed: float = Field(default=1.0, gt=0)
    all: bool = Field(default=False, description="those too that were not offered where they were measured")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.home is None):
            raise ValueError("give either `file` or `home`")
        return self


class _Table(_Section):
    name: str
    file: Path
    precision: str
    hardware: HardwareKind
    worker_types: tuple[str, ...]
    threads: int = Field(default=1, ge=1)
    batch_limit: int = Field(default=64, ge=1)
    speed: float = Field(default=1.0, gt=0)


class _Timm(_Section):
    results: Path
    tables: tuple[_Table, ...]


class _File(_Section):
    prices: Path | None = None
    published: Path | None = None
    use_cases: tuple[_UseCase, ...] = ()
    sources: Mapping[str, str] = {}
    profiles: tuple[_Profiles, ...] = ()
    timm: _Timm | None = None
    notes: str = ""


def load_catalogue(path: Path) -> Catalog:
    """The catalogue that a file describes.

    Raises ConfigError where the file is wrong, InvalidInput where one that it names is.
    """
    try:
        content = read_yaml(path)
        file = _File.model_validate(content)
    except OSError as error:
        raise ConfigError(f"cannot read the catalogue {path}: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, x['loc'])) or 'the file'}: {x['msg']}" for x in error.errors())
        raise ConfigError(f"{path}: {problems}") from None
    folder = path.parent
    prices = _worker_types(file.prices, folder)
    architectures: dict[str, Architecture] = {}
    measured: list[Measured] = []
    for part in _parts(file, folder, prices):
        architectures |= part[0]
        measured += part[1]
    return priced(architectures, measured, prices)


def _worker_types(prices: Path | None, folder: Path) -> dict[str, WorkerType]:
    if prices is not None:
        return Settings(prices=PriceSettings(catalog=_place(folder, prices))).worker_types()
    here = Settings().this_machine()
    return {here.name: replace(here, min_workers=1, max_workers=1)}


def _parts(
    file: _File, folder: Path, prices: Mapping[str, WorkerType]
) -> Iterator[tuple[Mapping[str, Architecture], list[Measured]]]:
    if file.published is not None:
        known = _architectures(file.use_cases)
        yield known, list(_published(_place(folder, file.published), known, file.sources))
    for source in file.profiles:
        yield _own(source, folder)
    if file.timm is not None:
        yield _timm(file.timm, folder, prices)


def _place(folder: Path, path: Path) -> Path:
    text = os.path.expandvars(path.expanduser())
    if "$" in text:
        raise ConfigError(f"set the environment variable in {str(path)!r} to the folder where you have that file")
    return folder / text


def priced(
    architectures: Mapping[str, Architecture], measured: Iterable[Measured], types: Mapping[str, WorkerType]
) -> Catalog:
    """Offers at the price of the cheapest worker type; InvalidInput for one that is unknown or cannot run its variant.

    Architectures without an offer are left out.
    """
    offers: dict[str, Offer] = {}
    for variant, profile, names in measured:
        usd = math.inf
        for name in names:
            if name not in types:
                raise InvalidInput(one_of("worker type", name, list(types)))
            usd = min(usd, types[name].usd_per_1k(variant, profile))
        if usd == math.inf:
            raise InvalidInput(
                f"{variant.name} needs {RESOURCE_OF[variant.hardware]}, which none of {', '.join(names) or '()'} has"
            )
        offers[variant.name] = Offer(variant=variant, profile=profile, usd_per_1k=usd, worker_types=names)
    used = {x.variant.architecture for x in offers.values()}
    return Catalog(
        revision=1,
        worker_types=dict(types),
        architectures={name: x for name, x in architectures.items() if name in used},
        offers=offers,
    )


def at_speed(profile: Profile, speed: float) -> Profile:
    """The profile as it would be on hardware that is `speed` times as fast: an assumption, noted in `versions`."""
    if speed == 1:
        return profile
    latencies = tuple(
        replace(
            x,
            p50_s=x.p50_s / speed,
            p95_s=x.p95_s / speed,
            p99_s=x.p99_s / speed,
            p999_s=None if x.p999_s is None else x.p999_s / speed,
        )
        for x in profile.latencies
    )
    fit = profile.fit and replace(
        profile.fit, fixed_s=profile.fit.fixed_s / speed, per_row_s=profile.fit.per_row_s / speed
    )
    return replace(
        profile,
        latencies=latencies,
        fit=fit,
        saturation_qps=profile.saturation_qps * speed,
        versions={**profile.versions, "speed": f"{speed:g} times the measured machine, assumed"},
    )


# ---- published figures -------------------------------------------------------------------------------------------


def _architectures(use_cases: Sequence[_UseCase]) -> dict[str, Architecture]:
    return {
        name: Architecture(
            name=name,
            use_case=UseCase(task=x.task, dataset=x.dataset),
            inputs=tuple(TensorSpec(name=t.name, datatype=t.datatype, shape=t.shape) for t in x.inputs),
            outputs=tuple(TensorSpec(name=t.name, datatype=t.datatype, shape=t.shape) for t in x.outputs),
        )
        for x in use_cases
        for name in x.architectures
    }


def _published(path: Path, known: Mapping[str, Architecture], sources: Mapping[str, str]) -> Iterator[Measured]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    yield _row(row, known, sources)
                except (KeyError, ValueError, OverflowError, TypeError, AttributeError, InvalidInput) as error:
                    what = f"there is no column {error}" if isinstance(error, KeyError) else str(error)
                    raise InvalidInput(f"{path}, line {number}: {what}") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from None


def _row(row: Mapping[str, str], known: Mapping[str, Architecture], sources: Mapping[str, str]) -> Measured:
    if row["architecture"] not in known:
        raise InvalidInput(one_of("architecture", row["architecture"], list(known)))
    for column in _SOURCES:
        for name in row[column].split("; "):
            if not sources.get(name):
                raise InvalidInput(f"{column} names {name!r}, which `sources` does not explain")
    variant = Variant(
        architecture=row["architecture"],
        runtime=row["runtime"],
        precision=row["precision"],
        hardware=HardwareKind(row["hardware"]),
        threads=int(row["threads"]),
        batch_limit=int(row["batch_limit"]),
        artifact=_NO_ARTIFACT,
        artifact_bytes=int(float(row["artifact_mib"]) * _MIB),
    )
    types = tuple(row["worker_types"].split())
    return variant, _profile(variant, row, types[0] if types else ""), types


def _profile(variant: Variant, row: Mapping[str, str], machine: str) -> Profile:
    p95, p99 = float(row["p95_ratio"]), float(row["p99_ratio"])
    points = {int(x[1]): float(row[x[0]]) / 1000 for name in row if (x := _BATCH.fullmatch(name)) and row[name]}
    latencies = tuple(
        BatchLatency(batch=batch, p50_s=s, p95_s=s * p95, p99_s=s * p99) for batch, s in sorted(points.items())
    )
    return Profile(
        variant=variant.name,
        hardware=Hardware(kind=variant.hardware, model=machine, cores=variant.threads, memory_bytes=0),
        load_s=float(row["load_s"]),
        latencies=latencies,
        saturation_qps=max(x.batch / x.p50_s for x in latencies),
        peak_memory_bytes=int(float(row["memory_mib"]) * _MIB),
        peak_device_memory_bytes=int(float(row["device_memory_mib"]) * _MIB),
        accuracy=Accuracy(
            value=float(row["accuracy"]),
            metric=row["metric"],
            rows=0,
            standard_error=0.0,
            source=AccuracySource.DECLARED,
        ),
        versions={x: row[x] for x in (*_SOURCES, "latency_estimated", "accuracy_estimated")},
    )


# ---- our own profiles, and timm's tables -------------------------------------------------------------------------


def _own(source: _Profiles, folder: Path) -> tuple[dict[str, Architecture], list[Measured]]:
    found = read_profiles(_place(folder, source.file)) if source.file is not None else _registered(source, folder)
    return {x.name: x for x in found.architectures}, [
        (x.variant, at_speed(x.profile, source.speed), source.worker_types)
        for x in found.variants
        if x.offered or source.all
    ]


def _registered(source: _Profiles, folder: Path) -> ProfileFile:
    """What is registered in a home folder, as if exported."""
    assert source.home is not None
    home = _place(folder, source.home)
    if not home.is_dir():
        raise InvalidInput(f"there is no home folder {home}")
    with closing(Metadata(Settings(home=home).metadata_url)) as metadata:
        return profiles_of(metadata)


def _timm(
    timm: _Timm, folder: Path, prices: Mapping[str, WorkerType]
) -> tuple[Mapping[str, Architecture], list[Measured]]:
    """All rows of the tables, each with the worker types that its table stands for."""
    machines = [_machine(x, folder, prices) for x in timm.tables]
    by_runtime = {f"timm.{x.name}": x for x in timm.tables}
    catalog = timm_catalog(_place(folder, timm.results), machines)
    measured = []
    for offer in catalog.offers.values():
        table = by_runtime[offer.variant.runtime]
        measured.append((offer.variant, at_speed(offer.profile, table.speed), table.worker_types))
    return catalog.architectures, measured


def _machine(table: _Table, folder: Path, prices: Mapping[str, WorkerType]) -> Machine:
    name = table.worker_types[0] if table.worker_types else ""
    if name not in prices:
        raise InvalidInput(one_of("worker type", name, list(prices)))
    worker = prices[name]
    cores = int(worker.resources.get("CPU", 1))
    return Machine(
        name=table.name,
        table=_place(folder, table.file),
        precision=table.precision,
        hardware=Hardware(kind=table.hardware, model=table.name, cores=cores, memory_bytes=worker.memory_bytes),
        worker_type=worker,
        threads=table.threads,
        batch_limit=table.batch_limit,
    )
