"""The model repository: artifacts by the hash of their bytes.

An artifact is stored under its SHA-256 and never changes. Rules: a file appears whole or not at all (temporary file,
fsync, rename), writers may run at the same time, and bytes are checked against their hash each time they are fetched.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from infaas_ray.errors import ArtifactCorrupt, ConfigError, InvalidInput

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


class Repository(Protocol):
    """Where artifacts are kept."""

    def put(self, path: Path) -> str:
        """Store the file's bytes; return their SHA-256 in hexadecimal. Bytes already there are not copied again."""
        ...

    def fetch(self, digest: str) -> Path:
        """A local file with these bytes, checked now.

        Raises ArtifactCorrupt where it is missing or its bytes have another hash, InvalidInput for a malformed digest.
        """
        ...

    def digests(self) -> set[str]:
        """Every artifact that is stored."""
        ...

    def remove(self, digest: str) -> None:
        """Forget an artifact; nothing happens where it is not there."""
        ...


def repository_at(location: str) -> Repository:
    """The repository at `location`: a folder path, or `s3://bucket/prefix` as `s3_repository` describes.

    Raises ConfigError for a kind of place that is not supported, MissingExtra where S3 needs boto3.
    """
    scheme, separator, _ = location.partition("://")
    if scheme == "s3" and separator:
        from infaas_ray.storage.s3_repository import S3Repository

        return S3Repository(location)
    if separator:
        raise ConfigError(f"a model repository in {scheme}:// is not supported; give s3:// or the path of a folder")
    if not location.strip():
        raise ConfigError("the model repository needs the path of a folder")
    return FolderRepository(Path(location).expanduser())


def checked_digest(digest: str) -> str:
    """The digest itself; InvalidInput unless it is a full hash, so that no name from outside can point elsewhere."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"artifact {digest!r} is not a SHA-256 in hexadecimal (64 of 0-9, a-f)")
    return digest


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FolderRepository:
    """Artifacts as files `root/ab/abcd...`, named by their SHA-256; `root` may be a shared folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: Path) -> str:
        """Store a copy of the file; a copy that is there but damaged is replaced."""
        digest = file_digest(path)
        if self._intact(digest):
            return digest
        folder = self._place(digest).parent
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder) as (temporary, file):
            copied = _copy(path, file)
            if copied != digest:
                raise InvalidInput(f"{path} changed while it was being stored; try again when nothing writes to it")
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(self._place(digest))
        _sync_folder(folder)
        return digest

    def fetch(self, digest: str) -> Path:
        """The stored file, its bytes checked."""
        place = self._place(digest)
        try:
            found = file_digest(place)
        except FileNotFoundError:
            raise ArtifactCorrupt(
                f"artifact {digest} is missing from the repository {self.root}; register the model again to rebuild it"
            ) from None
        if found != digest:
            raise ArtifactCorrupt(
                f"artifact {place} is corrupt: expected SHA-256 {digest}, found {found}; "
                "register the model again to rebuild it"
            )
        return place

    def digests(self) -> set[str]:
        """Names of all stored files; unfinished temporary files do not count."""
        return {path.name for path in self.root.glob("??/*") if _DIGEST.fullmatch(path.name)}

    def remove(self, digest: str) -> None:
        """Delete the stored file, if there is one."""
        self._place(digest).unlink(missing_ok=True)

    def _place(self, digest: str) -> Path:
        return self.root / checked_digest(digest)[:2] / digest

    def _intact(self, digest: str) -> bool:
        place = self._place(digest)
        return place.exists() and file_digest(place) == digest


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in `folder` (so that renaming it is atomic), deleted afterwards unless it was renamed."""
    descriptor, name = tempfile.mkstemp(prefix=".unfinished-", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # mkstemp allows the owner only; other workers' users must read it
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: BinaryIO) -> str:
    sha = hashlib.sha256()
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha.update(chunk)
            target.write(chunk)
    return sha.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
