"""The repository in a folder: no halves, no leftovers, and which places are known. Its contract is tested apart."""

from pathlib import Path

import pytest

from infaas_ray.errors import ConfigError
from infaas_ray.storage.repository import FolderRepository, repository_at


def model_file(folder: Path, content: bytes = b"weights") -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


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


@pytest.mark.parametrize("location", ["https://example.org/x", "gs://bucket", " "])
def test_unsupported_places_are_named(location: str) -> None:
    with pytest.raises(ConfigError, match="folder"):
        repository_at(location)


def test_a_path_is_a_folder_repository(tmp_path: Path) -> None:
    found = repository_at(str(tmp_path))
    assert isinstance(found, FolderRepository)
    assert found.root == tmp_path
