"""Metadata in SQLite: what is put in comes out, names stay unambiguous, every change raises the revision."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

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
)
from infaas_ray.errors import AlreadyExists, ConfigError
from infaas_ray.storage.metadata import Metadata, Origin

DIGITS = UseCase(task="classification", dataset="digits")


def architecture(name: str = "cnn", use_case: UseCase = DIGITS, width: int = 64) -> Architecture:
    return Architecture(
        name=name,
        use_case=use_case,
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, width)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, 10)),),
    )


def variant(architecture: str = "cnn", threads: int = 1) -> Variant:
    return Variant(
        architecture=architecture, runtime="onnxruntime", precision="int8", threads=threads, artifact="ab" * 32
    )


def profile(of: Variant, load_s: float = 0.5) -> Profile:
    return Profile(
        variant=of.name,
        hardware=Hardware(kind=HardwareKind.CPU, model="some CPU", cores=2, memory_bytes=1 << 30),
        load_s=load_s,
        latencies=(BatchLatency(batch=1, p50_s=0.001, p95_s=0.002, p99_s=0.003),),
        saturation_qps=1000.0,
        peak_memory_bytes=1 << 20,
        accuracy=Accuracy(
            value=0.9, metric="top1_accuracy", rows=70, standard_error=0.01, source=AccuracySource.DECLARED
        ),
        versions={"onnxruntime": "1"},
        measured_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "infaas.db"


@pytest.fixture
def metadata(path: Path) -> Iterator[Metadata]:
    opened = Metadata(f"sqlite:///{path}")
    yield opened
    opened.close()


def test_everything_survives_reopening(metadata: Metadata, path: Path) -> None:
    metadata.add_architecture(architecture())
    metadata.put_variant(variant(), profile(variant()), Origin(source="s", recipe="r"))
    metadata.record_failure("cnn", "torch-fp32", "no such framework")
    metadata.close()
    again = Metadata(f"sqlite:///{path}")
    assert again.architectures() == {"cnn": architecture()}
    assert again.variants() == [(variant(), profile(variant()))]
    assert again.origins("cnn") == {variant().name: Origin(source="s", recipe="r")}
    [failure] = again.failures()
    assert (failure.architecture, failure.label, failure.reason) == ("cnn", "torch-fp32", "no such framework")
    assert again.revision() == 3
    again.close()


def test_adding_an_equal_architecture_changes_nothing(metadata: Metadata) -> None:
    metadata.add_architecture(architecture())
    metadata.add_architecture(architecture())
    assert metadata.revision() == 1


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (architecture(use_case=UseCase(task="classification", dataset="letters")), "already serves"),
        (architecture(width=65), "other inputs or outputs"),
        (architecture(name="classification"), "name of a task"),
        (architecture(name="other", use_case=UseCase(task="cnn", dataset="digits")), "name of an architecture"),
        (architecture(name="wider", width=65), "takes and gives"),
        (architecture(name="same", use_case=UseCase(task="same", dataset="digits")), "name of a task"),
    ],
)
def test_a_name_means_one_thing(metadata: Metadata, second: Architecture, says: str) -> None:
    metadata.add_architecture(architecture())
    with pytest.raises(AlreadyExists, match=says):
        metadata.add_architecture(second)
    assert metadata.architectures() == {"cnn": architecture()}
    assert metadata.revision() == 1


def test_put_variant_replaces_and_forgets_its_failure(metadata: Metadata) -> None:
    metadata.add_architecture(architecture())
    metadata.record_failure("cnn", variant().name, "crashed")
    metadata.put_variant(variant(), profile(variant()))
    metadata.put_variant(variant(), profile(variant(), load_s=2.0))
    assert metadata.variants("cnn") == [(variant(), profile(variant(), load_s=2.0))]
    assert metadata.failures() == []


def test_a_variant_needs_its_architecture(metadata: Metadata) -> None:
    with pytest.raises(ConfigError, match="architecture registered before"):
        metadata.put_variant(variant(), profile(variant()))
    assert metadata.variants() == []


def test_lists_are_of_one_architecture_or_all(metadata: Metadata) -> None:
    for name in ("cnn", "mlp"):
        metadata.add_architecture(architecture(name))
        metadata.put_variant(variant(name), profile(variant(name)))
        metadata.record_failure(name, "torch-fp32", "why not")
    assert [x.architecture for x, _ in metadata.variants()] == ["cnn", "mlp"]
    assert [x.architecture for x, _ in metadata.variants("mlp")] == ["mlp"]
    assert [x.architecture for x in metadata.failures("cnn")] == ["cnn"]


def test_remove_architecture_takes_variants_and_failures_along(metadata: Metadata) -> None:
    for name in ("cnn", "mlp"):
        metadata.add_architecture(architecture(name))
        metadata.put_variant(variant(name), profile(variant(name)))
        metadata.record_failure(name, "torch-fp32", "why not")
    metadata.remove_architecture("cnn")
    assert list(metadata.architectures()) == ["mlp"]
    assert [x.architecture for x, _ in metadata.variants()] == ["mlp"]
    assert [x.architecture for x in metadata.failures()] == ["mlp"]


def test_every_change_raises_the_revision_and_a_change_of_nothing_does_not(metadata: Metadata) -> None:
    seen = [metadata.revision()]
    changes: list[Callable[[], None]] = [
        lambda: metadata.add_architecture(architecture()),
        lambda: metadata.put_variant(variant(), profile(variant())),
        lambda: metadata.record_failure("cnn", "a", "b"),
        lambda: metadata.clear_failure("cnn", "a"),
        lambda: metadata.remove_variant(variant().name),
        lambda: metadata.remove_architecture("cnn"),
    ]
    for change in changes:
        change()
        seen.append(metadata.revision())
    assert seen == sorted(set(seen))
    metadata.clear_failure("cnn", "a")
    metadata.remove_variant("nobody")
    metadata.remove_architecture("nobody")
    assert metadata.revision() == seen[-1]


def test_the_last_failure_of_a_label_counts(metadata: Metadata) -> None:
    metadata.record_failure("cnn", "int8", "first")
    metadata.record_failure("cnn", "int8", "second")
    assert [x.reason for x in metadata.failures("cnn")] == ["second"]


def test_another_schema_version_says_what_to_do(metadata: Metadata, path: Path) -> None:
    metadata.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE state SET value = 99 WHERE key = 'schema_version'")
    connection.close()
    with pytest.raises(ConfigError, match=r"schema version 99.*register the models again"):
        Metadata(f"sqlite:///{path}")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"hello " * 500)
    with pytest.raises(ConfigError, match="cannot open the metadata database"):
        Metadata(f"sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize("url", ["", "no url", "nosuchdatabase://host/x"])
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="database URL"):
        Metadata(url)


def test_the_file_is_in_write_ahead_mode(metadata: Metadata, path: Path) -> None:
    metadata.add_architecture(architecture())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_reader_sees_the_last_whole_state_while_somebody_writes(metadata: Metadata, path: Path) -> None:
    metadata.add_architecture(architecture())
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM architectures")
    assert list(metadata.architectures()) == ["cnn"]
    writer.rollback()
    writer.close()


def test_variants_of_all_fields_round_trip(metadata: Metadata) -> None:
    odd = replace(variant(), hardware=HardwareKind.GPU, threads=3, batch_limit=7, artifact_bytes=12345)
    metadata.add_architecture(architecture())
    metadata.put_variant(odd, profile(odd))
    assert metadata.variants() == [(odd, profile(odd))]


def test_a_database_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    new = Metadata(f"sqlite:///{path}")
    new.add_architecture(architecture())
    new.put_variant(variant(), profile(variant()))
    new.record_failure("cnn", "x", "because")
    new.close()
    with sqlite3.connect(path) as connection:  # what version 1 had: no such columns, no such keys in the profile
        for table, column in (
            ("variants", "offered"),
            ("failures", "source"),
            ("failures", "recipe"),
            ("failures", "refused"),
        ):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        body = json.loads(connection.execute("SELECT profile FROM variants").fetchone()[0])
        for name in ("warm_load_s", "baseline_memory_bytes", "peak_device_memory_bytes", "outside_load", "fit"):
            del body[name]
        del body["latencies"][0]["p999_s"], body["latencies"][0]["runs"], body["accuracy"]["fidelity"]
        connection.execute("UPDATE variants SET profile = ?", (json.dumps(body),))
        connection.execute("UPDATE state SET value = 1 WHERE key = 'schema_version'")
    connection.close()
    for _ in range(2):
        again = Metadata(f"sqlite:///{path}")
        assert again.variants(offered=True) == [(variant(), profile(variant()))]
        assert [(x.label, x.refused, x.origin) for x in again.failures()] == [("x", False, Origin())]
        again.close()


def test_only_what_is_offered_is_given_on_request(metadata: Metadata) -> None:
    metadata.add_architecture(architecture())
    one, two = variant(), variant(threads=2)
    metadata.put_variant(one, profile(one))
    metadata.put_variant(two, profile(two), offered=False)
    assert [x.name for x, _ in metadata.variants(offered=True)] == [one.name]
    before = metadata.revision()
    metadata.offer("cnn", {two.name})
    assert metadata.revision() == before + 1
    assert [x.name for x, _ in metadata.variants("cnn", offered=True)] == [two.name]
    assert [x.name for x, _ in metadata.variants(offered=False)] == [one.name]
    assert len(metadata.variants()) == 2
    metadata.offer("cnn", {two.name})
    assert metadata.revision() == before + 1


def test_a_refusal_keeps_its_origin(metadata: Metadata) -> None:
    origin = Origin(source="a" * 64, recipe="r/v1")
    metadata.record_failure("cnn", "int8", "too unlike", origin, refused=True)
    [found] = metadata.failures("cnn")
    assert (found.origin, found.refused, found.reason) == (origin, True, "too unlike")
