"""The model repository in S3, or in anything that speaks its protocol.

`s3://bucket/prefix`, with options as in a URL: `?endpoint=http://127.0.0.1:9000` for another server than Amazon's,
`cache=/folder` and `cache_gib=20` for the local copies, `region=...`. Credentials come as boto3 finds them.

An artifact is the object `prefix/ab/abcd...`, named by its SHA-256. Rules: an object appears whole or not at all (S3
publishes at the end of an upload), writers of the same artifact write the same bytes, an upload or a download that was
interrupted goes on where it stopped, and bytes are checked against their hash each time they are fetched.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from infaas_ray.errors import ArtifactCorrupt, ConfigError, InvalidInput, MissingExtra, Unavailable, one_of
from infaas_ray.storage.cache import DEFAULT_LIMIT_BYTES, LocalCache, cache_root
from infaas_ray.storage.repository import checked_digest, file_digest

PART_BYTES = 16 << 20  # S3 takes at most 10,000 parts, so artifacts up to 160 GB
_CHUNK_BYTES = 1 << 20
_OPTIONS = ("endpoint", "cache", "cache_gib", "region")


class S3Repository:
    """Artifacts as objects in a bucket. `part_bytes` is the size from which, and in which, files travel in parts."""

    def __init__(self, location: str, *, part_bytes: int = PART_BYTES) -> None:
        parsed = urlsplit(location)
        options = dict(parse_qsl(parsed.query, keep_blank_values=True))
        for name in options:
            if name not in _OPTIONS:
                raise ConfigError(one_of("option of an s3:// location", name, _OPTIONS))
        if not parsed.netloc:
            raise ConfigError(f"{location!r} names no bucket: s3://bucket/prefix")
        self._bucket = parsed.netloc
        self._prefix = parsed.path.strip("/")
        self._part_bytes = part_bytes
        self._cache = _cache(options)
        self._client = _client(options)

    def put(self, path: Path) -> str:
        """Upload the file, in parts if it is large; an object that is there but damaged is replaced."""
        digest, etag = file_digest(path), self._etag(path)
        with self._asking(f"store artifact {digest}"):
            if self._stored_etag(digest) == etag:
                return digest
            if path.stat().st_size <= self._part_bytes:
                body = path.read_bytes()
                _require_unchanged(hashlib.sha256(body).hexdigest(), digest, path)
                self._client.put_object(Bucket=self._bucket, Key=self._key(digest), Body=body)
            else:
                self._put_in_parts(path, digest)
        return digest

    def fetch(self, digest: str) -> Path:
        """The local copy, its bytes checked; downloaded where there is none or a damaged one."""
        checked_digest(digest)
        found = self._cache.get(digest)
        if found is not None and file_digest(found) == digest:
            return found
        self._cache.remove(digest)
        with self._asking(f"fetch artifact {digest}"):
            return self._cache.put(digest, lambda made: self._download(digest, made))

    def digests(self) -> set[str]:
        """Every artifact in the bucket under the prefix."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._asking("list artifacts"):
            keys = [
                entry["Key"]
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(""))
                for entry in page.get("Contents", [])
            ]
        names = (key.rsplit("/", 1)[-1] for key in keys)
        return {name for name in names if len(name) == 64 and set(name) <= set("0123456789abcdef")}

    def remove(self, digest: str) -> None:
        """Delete the object and the local copy."""
        checked_digest(digest)
        self._cache.remove(digest)
        with self._asking(f"remove artifact {digest}"):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(digest))

    def _key(self, digest: str) -> str:
        folder = f"{self._prefix}/" if self._prefix else ""
        return f"{folder}{digest[:2]}/{digest}" if digest else folder

    def _etag(self, path: Path) -> str:
        """What S3 calls this content: MD5, or the MD5 of the parts' MD5s and their number.

        A bucket encrypted with keys of its own calls it otherwise; there an artifact is uploaded again, no worse.
        """
        sums = [hashlib.md5(part, usedforsecurity=False).digest() for part in _parts(path, self._part_bytes)]
        if path.stat().st_size <= self._part_bytes:
            return sums[0].hex() if sums else hashlib.md5(b"", usedforsecurity=False).hexdigest()
        return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sums)}"

    def _stored_etag(self, digest: str) -> str | None:
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=self._key(digest))
        except self._client.exceptions.ClientError as error:
            if _status(error) == 404:
                return None
            raise
        return str(found["ETag"]).strip('"')

    def _put_in_parts(self, path: Path, digest: str) -> None:
        """Upload in parts, continuing an upload of the same artifact that was begun and left."""
        place = {"Bucket": self._bucket, "Key": self._key(digest)}
        upload = self._begun_upload(digest) or self._client.create_multipart_upload(**place)["UploadId"]
        there = {x["PartNumber"]: str(x["ETag"]).strip('"') for x in self._parts_there(upload, place)}
        parts, sha = [], hashlib.sha256()
        for number, part in enumerate(_parts(path, self._part_bytes), start=1):
            sha.update(part)
            md5 = hashlib.md5(part, usedforsecurity=False)
            if there.get(number) != md5.hexdigest():
                self._client.upload_part(
                    **place,
                    UploadId=upload,
                    PartNumber=number,
                    Body=part,
                    ContentMD5=base64.b64encode(md5.digest()).decode(),
                )
            parts.append({"PartNumber": number, "ETag": f'"{md5.hexdigest()}"'})
        try:
            _require_unchanged(sha.hexdigest(), digest, path)
        except InvalidInput:
            self._client.abort_multipart_upload(**place, UploadId=upload)
            raise
        try:
            self._client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
        except self._client.exceptions.ClientError:
            if self._stored_etag(digest) != self._etag(path):  # else a neighbour has just finished the same upload
                raise

    def _begun_upload(self, digest: str) -> str | None:
        key = self._key(digest)
        found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", [])
        return next((str(x["UploadId"]) for x in found if x["Key"] == key), None)

    def _parts_there(self, upload: str, place: dict[str, str]) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_parts").paginate(**place, UploadId=upload)
        return [part for page in pages for part in page.get("Parts", [])]

    def _download(self, digest: str, target: Path) -> None:
        """Write the object's bytes to `target`; what an interrupted download left is kept beside and continued."""
        partial = self._cache.root / f".partial-{digest}"
        with _locked(partial) as file:
            if self._cache.get(digest) is not None:  # a neighbour has fetched it while we waited
                shutil.copyfile(self._cache.root / digest, partial)
            else:
                self._append(digest, file)
            self._accept(digest, partial, target)

    def _append(self, digest: str, file: BinaryIO) -> None:
        """Write what the file lacks of the object."""
        start = f"bytes={file.seek(0, os.SEEK_END)}-"
        try:
            given = self._client.get_object(Bucket=self._bucket, Key=self._key(digest), Range=start)
        except self._client.exceptions.ClientError as error:
            if _status(error) == 404:
                Path(file.name).unlink()
                raise ArtifactCorrupt(
                    f"artifact {digest} is missing from the repository s3://{self._bucket}/{self._prefix}; "
                    "register the model again to rebuild it"
                ) from None
            if _status(error) != 416:  # nothing is left to send
                raise
            return
        for chunk in given["Body"].iter_chunks(_CHUNK_BYTES):
            file.write(chunk)
        file.flush()

    def _accept(self, digest: str, partial: Path, target: Path) -> None:
        found = file_digest(partial)
        if found != digest:
            partial.unlink()
            raise ArtifactCorrupt(
                f"artifact s3://{self._bucket}/{self._key(digest)} is corrupt: expected SHA-256 {digest}, found "
                f"{found}; register the model again to rebuild it"
            )
        partial.replace(target)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Say in words what the server or the network answered."""
        errors = self._client.exceptions
        try:
            yield
        except errors.NoSuchBucket:
            raise ConfigError(f"cannot {what}: there is no bucket {self._bucket!r}") from None
        except errors.ClientError as error:
            if _status(error) in (400, 401, 403):
                raise ConfigError(f"cannot {what} in s3://{self._bucket}: {error}") from error
            raise Unavailable(f"cannot {what} in s3://{self._bucket}: {error}", 5.0) from error
        except _network_errors() as error:
            raise Unavailable(f"cannot {what} in s3://{self._bucket}: {error}", 5.0) from error


def _cache(options: dict[str, str]) -> LocalCache:
    root = Path(options["cache"]).expanduser() if "cache" in options else cache_root() / "artifacts"
    try:
        limit = int(float(options["cache_gib"]) * 2**30) if "cache_gib" in options else DEFAULT_LIMIT_BYTES
    except ValueError:
        raise ConfigError(f"cache_gib must be a number, not {options['cache_gib']!r}") from None
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return LocalCache(root, limit)


def _client(options: dict[str, str]) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise MissingExtra("boto3 is not installed: pip install 'infaas_ray[s3]'", "s3") from error
    retries = {"total_max_attempts": 4, "mode": "standard"}
    config = Config(retries=retries, request_checksum_calculation="when_required", connect_timeout=10)
    try:
        return boto3.client(
            "s3", endpoint_url=options.get("endpoint"), region_name=options.get("region"), config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"cannot use S3: {error}") from error


def _network_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError

    return (BotoCoreError,)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open to append, that no other process has locked; one that became an entry meanwhile is left alone."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield file
                return


def _parts(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(size):
            yield part


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _require_unchanged(found: str, digest: str, path: Path) -> None:
    if found != digest:
        raise InvalidInput(f"{path} changed while it was being stored; try again when nothing writes to it")
