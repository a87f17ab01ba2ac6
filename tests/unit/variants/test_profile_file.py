"""Profiles as files: what is exported comes in again elsewhere, and nothing is replaced unasked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infaas_ray.domain import (
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    LatencyFit,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
)
from infaas_ray.errors import AlreadyExists, InvalidInput
from infaas_ray.storage.metadata import Metadata
from infaas_ray.variants.profile_file import export_profiles, import_profiles

STORED, ABSENT = "a" * 64, "b" * 64


def architecture(name: str, width: int = 4) -> Architecture:
    return Architecture(
        name=name,
        use_case=UseCase(task="classification", dataset="digits"),
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, width)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 10)),),
    )


def measured(name: str, artifact: str, accuracy: float = 0.9) -> tuple[Variant, Profile]:
    variant = Variant(
        architecture=name, runtime="tensorrt", precision="fp16", hardware=HardwareKind.GPU, artifact=artifact
    )
    profile = Profile(
        variant=variant.name,
        hardware=Hardware(kind=HardwareKind.GPU, model="some GPU", cores=8, memory_bytes=1 << 34),
        load_s=1.5,
        warm_load_s=0.5,
        latencies=(BatchLatency(batch=1, p50_s=0.1, p95_s=0.2, p99_s=0.3, p999_s=0.4, runs=100),),
        saturation_qps=10.0,
        peak_memory_bytes=100,
        baseline_memory_bytes=40,
        peak_device_memory_bytes=7,
        accuracy=Accuracy(value=accuracy, metric="top1_accuracy", rows=100, standard_error=0.03, fidelity=0.999),
        fit=LatencyFit(fixed_s=0.05, per_row_s=0.05, median_error=0.1, p95_error=0.2),
    )
    return variant, profile


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[Metadata, Metadata]]:
    made = Metadata(f"sqlite:///{tmp_path}/one.db"), Metadata(f"sqlite:///{tmp_path}/two.db")
    for name, artifact in (("cnn", STORED), ("mlp", ABSENT)):
        made[0].add_architecture(architecture(name))
        made[0].put_variant(*measured(name, artifact))
    yield made
    for x in made:
        x.close()


def test_what_is_exported_comes_in_elsewhere(databases: tuple[Metadata, Metadata], tmp_path: Path) -> None:
    here, there = databases
    assert export_profiles(here, tmp_path / "p.json") == 2
    found = import_profiles(there, tmp_path / "p.json", {STORED})
    assert (len(found.added), found.left) == (2, ())
    assert there.variants() == here.variants()
    assert there.architectures() == here.architectures()
    assert [v.architecture for v, _ in there.variants(offered=True)] == ["cnn"]  # the other's artifact is not there


def test_one_architecture_alone(databases: tuple[Metadata, Metadata], tmp_path: Path) -> None:
    here, there = databases
    assert export_profiles(here, tmp_path / "p.json", ["mlp"]) == 1
    import_profiles(there, tmp_path / "p.json", set())
    assert list(there.architectures()) == ["mlp"]
    with pytest.raises(InvalidInput, match="architecture 'rnn'"):
        export_profiles(here, tmp_path / "p.json", ["rnn"])


def test_nothing_is_replaced_unless_asked(databases: tuple[Metadata, Metadata], tmp_path: Path) -> None:
    here, there = databases
    export_profiles(here, tmp_path / "p.json", ["cnn"])
    mine = measured("cnn", STORED, accuracy=0.5)
    there.add_architecture(architecture("cnn"))
    there.put_variant(*mine)
    assert import_profiles(there, tmp_path / "p.json", {STORED}).left == (mine[0].name,)
    assert there.variants() == [mine]
    assert import_profiles(there, tmp_path / "p.json", {STORED}, replace=True).added == (mine[0].name,)
    assert there.variants() == here.variants("cnn")


def test_another_architecture_of_the_name_is_refused(databases: tuple[Metadata, Metadata], tmp_path: Path) -> None:
    here, there = databases
    export_profiles(here, tmp_path / "p.json")
    there.add_architecture(architecture("cnn", width=5))
    with pytest.raises(AlreadyExists, match="other inputs"):
        import_profiles(there, tmp_path / "p.json", set())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nonsense", "is not a file of"),
        ("{}", "is not a file of"),
        ('{"format":"infaas-profiles","version":9,"architectures":[],"variants":[]}', "has format infaas-profiles 9"),
    ],
)
def test_wrong_files_are_refused(databases: tuple[Metadata, Metadata], tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(InvalidInput, match=says):
        import_profiles(databases[1], tmp_path / "p.json", set())


def test_a_profile_of_another_variant_is_refused(databases: tuple[Metadata, Metadata], tmp_path: Path) -> None:
    here, there = databases
    variant, profile = measured("cnn", STORED)
    here.put_variant(variant, replace(profile, variant="somebody-else"))
    export_profiles(here, tmp_path / "p.json")
    with pytest.raises(InvalidInput, match="another's profile"):
        import_profiles(there, tmp_path / "p.json", set())
