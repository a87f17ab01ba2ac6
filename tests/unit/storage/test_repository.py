"""The contract of `Repository`, over every implementation that needs no network."""

import hashlib
from pathlib import Path

import pytest

from infaas_ray.errors import ArtifactCorrupt, ConfigError, InvalidInput
from infaas_ray.storage.repository import FolderRepository, Repository, repository_at

MISSING = "0" * 64


@pytest.fixture(params=["folder"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    return {"folder": lambda: FolderRepository(tmp_path / "models")}[request.param]()


def model_file(folder: Path, content: bytes = b"weights") -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


def test_put_then_fetch_gives_the_bytes_by_their_hash(repository: Repository, tmp_path: Path) -> None:
    digest = repository.put(model_file(tmp_path))
    assert digest == hashlib.sha256(b"weights").hexdigest()
    assert repository.fetch(digest).read_bytes() == b"weights"
    assert repository.digests() == {digest}


def test_put_twice_stores_once(repository: Repository, tmp_path: Path) -> None:
    digest = repository.put(model_file(tmp_path))
    before = repository.fetch(digest).stat()
    assert repository.put(model_file(tmp_path)) == digest
    after = repository.fetch(digest).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_tampered_bytes_are_refused_on_every_fetch_until_put_again(repository: Repository, tmp_path: Path) -> None:
    digest = repository.put(model_file(tmp_path))
    place = repository.fetch(digest)
    place.write_bytes(b"weightz")
    found = hashlib.sha256(b"weightz").hexdigest()
    for _ in range(2):
        with pytest.raises(ArtifactCorrupt, match=f"expected SHA-256 {digest}, found {found}.*register"):
            repository.fetch(digest)
    repository.put(model_file(tmp_path))
    assert repository.fetch(digest).read_bytes() == b"weights"


def test_missing_artifact_says_what_to_do(repository: Repository) -> None:
    with pytest.raises(ArtifactCorrupt, match=r"missing.*register the model again"):
        repository.fetch(MISSING)


def test_removed_artifact_is_gone_and_removing_again_is_fine(repository: Repository, tmp_path: Path) -> None:
    digest = repository.put(model_file(tmp_path))
    repository.remove(digest)
    repository.remove(digest)
    assert repository.digests() == set()


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "0" * 63, "G" * 64, "0" * 64 + "\n", "../" + "0" * 61])
def test_only_a_full_hash_is_a_name(repository: Repository, digest: str) -> None:
    with pytest.raises(InvalidInput, match="not a SHA-256"):
        repository.fetch(digest)
    with pytest.raises(InvalidInput, match="not a SHA-256"):
        repository.remove(digest)


def test_unfinished_files_are_not_artifacts(tmp_path: Path) -> None:
    repository = FolderRepository(tmp_path / "models")
    digest = repository.put(model_file(tmp_path))
    (tmp_path / "models" / digest[:2] / ".unfinished-x").write_bytes(b"half")
    assert repository.digests() == {digest}


def test_a_failed_put_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = FolderRepository(tmp_path / "models")

    def no_space(_descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("infaas_ray.storage.repository.os.fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        repository.put(model_file(tmp_path))
    assert [x for x in (tmp_path / "models").rglob("*") if x.is_file()] == []


@pytest.mark.parametrize("location", ["s3://bucket/models", "https://example.org/x", " "])
def test_unsupported_places_are_named(location: str) -> None:
    with pytest.raises(ConfigError, match="folder"):
        repository_at(location)


def test_a_path_is_a_folder_repository(tmp_path: Path) -> None:
    found = repository_at(str(tmp_path))
    assert isinstance(found, FolderRepository)
    assert found.root == tmp_path
