"""The contract of `Repository`, over a folder and over S3, the latter against moto's server on loopback."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infaas_ray.errors import ArtifactCorrupt, ConfigError, InvalidInput
from infaas_ray.storage.repository import FolderRepository, Repository, repository_at

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto.server")
from infaas_ray.storage.s3_repository import S3Repository  # noqa: E402 - only where boto3 is

MISSING = "0" * 64
PART = 5 << 20  # the least that S3 takes


@dataclass
class Place:
    """A repository, a way to open it again as another machine would, and to damage what it stores."""

    repository: Repository
    open: Callable[[], Repository]
    tamper: Callable[[str, bytes], object]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "anybody"),
        ("AWS_SECRET_ACCESS_KEY", "anything"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    return boto3.client("s3", endpoint_url=server)


@pytest.fixture
def bucket(client: Any, request: pytest.FixtureRequest) -> str:
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    client.create_bucket(Bucket=name)
    return name


def s3_place(server: str, client: Any, bucket: str, folder: Path) -> Place:
    caches = iter(range(100))

    def open_() -> Repository:
        return repository_at(f"s3://{bucket}/models?endpoint={server}&cache={folder}/cache{next(caches)}")

    def tamper(digest: str, content: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"models/{digest[:2]}/{digest}", Body=content)

    return Place(open_(), open_, tamper)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        server, client = request.getfixturevalue("server"), request.getfixturevalue("client")
        return s3_place(server, client, request.getfixturevalue("bucket"), tmp_path)
    root = tmp_path / "models"
    return Place(
        FolderRepository(root),
        lambda: FolderRepository(root),
        lambda digest, content: (root / digest[:2] / digest).write_bytes(content),
    )


def model_file(folder: Path, content: bytes = b"weights", name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_put_then_fetch_gives_the_bytes_by_their_hash(place: Place, tmp_path: Path) -> None:
    digest = place.repository.put(model_file(tmp_path))
    assert digest == hashlib.sha256(b"weights").hexdigest()
    for repository in (place.repository, place.open()):
        assert repository.fetch(digest).read_bytes() == b"weights"
        assert repository.digests() == {digest}


def test_put_twice_stores_once(place: Place, tmp_path: Path) -> None:
    digest = place.repository.put(model_file(tmp_path))
    before = place.repository.fetch(digest).stat()
    assert place.repository.put(model_file(tmp_path)) == digest
    after = place.repository.fetch(digest).stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)


def test_tampered_bytes_are_refused_on_every_fetch_until_put_again(place: Place, tmp_path: Path) -> None:
    digest = place.repository.put(model_file(tmp_path))
    place.tamper(digest, b"weightz")
    found = hashlib.sha256(b"weightz").hexdigest()
    elsewhere = place.open()
    for _ in range(2):
        with pytest.raises(ArtifactCorrupt, match=f"expected SHA-256 {digest}, found {found}.*register"):
            elsewhere.fetch(digest)
    elsewhere.put(model_file(tmp_path))
    assert place.open().fetch(digest).read_bytes() == b"weights"


def test_missing_artifact_says_what_to_do(place: Place) -> None:
    with pytest.raises(ArtifactCorrupt, match=r"missing.*register the model again"):
        place.repository.fetch(MISSING)


def test_removed_artifact_is_gone_and_removing_again_is_fine(place: Place, tmp_path: Path) -> None:
    digest = place.repository.put(model_file(tmp_path))
    place.repository.fetch(digest)
    place.repository.remove(digest)
    place.repository.remove(digest)
    assert place.repository.digests() == set()
    with pytest.raises(ArtifactCorrupt, match="missing"):
        place.repository.fetch(digest)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "0" * 63, "G" * 64, "0" * 64 + "\n", "../" + "0" * 61])
def test_only_a_full_hash_is_a_name(place: Place, digest: str) -> None:
    with pytest.raises(InvalidInput, match="not a SHA-256"):
        place.repository.fetch(digest)
    with pytest.raises(InvalidInput, match="not a SHA-256"):
        place.repository.remove(digest)


def test_many_writers_of_the_same_artifacts_end_alike(place: Place, tmp_path: Path) -> None:
    files = [model_file(tmp_path, bytes([i]) * 1000, f"m{i}") for i in range(3)]
    failures: list[BaseException] = []

    def write(repository: Repository) -> None:
        try:
            for path in files:
                repository.put(path)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(place.open(),)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    reader = place.open()
    assert reader.digests() == {hashlib.sha256(x.read_bytes()).hexdigest() for x in files}
    assert all(reader.fetch(x).stat().st_size == 1000 for x in reader.digests())


@dataclass
class InParts:
    """An S3 repository of small parts, whose calls are counted."""

    repository: S3Repository
    calls: list[str]
    cache: Path


@pytest.fixture
def in_parts(server: str, client: Any, bucket: str, tmp_path: Path) -> InParts:
    cache = tmp_path / "parts"
    made = S3Repository(f"s3://{bucket}?endpoint={server}&cache={cache}", part_bytes=PART)
    calls: list[str] = []
    made._client.meta.events.register("before-call.s3", lambda model, **_: calls.append(model.name))
    return InParts(made, calls, cache)


def large_file(folder: Path) -> Path:
    return model_file(folder, bytes(range(256)) * (PART // 256 * 2 + 4000), "large")


def test_a_large_file_travels_in_parts(in_parts: InParts, tmp_path: Path) -> None:
    path = large_file(tmp_path)
    digest = in_parts.repository.put(path)
    assert in_parts.calls.count("UploadPart") == 3
    assert in_parts.repository.fetch(digest).read_bytes() == path.read_bytes()
    in_parts.calls.clear()
    in_parts.repository.put(path)
    assert in_parts.calls == ["HeadObject"]


def test_an_interrupted_upload_goes_on_where_it_stopped(in_parts: InParts, tmp_path: Path) -> None:
    path = large_file(tmp_path)
    events = in_parts.repository._client.meta.events

    def interrupt(**_: object) -> None:
        if in_parts.calls.count("UploadPart") == 2:
            raise KeyboardInterrupt

    events.register_last("before-call.s3.UploadPart", interrupt)
    with pytest.raises(KeyboardInterrupt):
        in_parts.repository.put(path)
    assert in_parts.repository.digests() == set()
    events.unregister("before-call.s3.UploadPart", interrupt)
    in_parts.calls.clear()
    digest = in_parts.repository.put(path)
    assert in_parts.calls.count("UploadPart") == 1
    assert in_parts.calls.count("CreateMultipartUpload") == 0
    assert in_parts.repository.fetch(digest).read_bytes() == path.read_bytes()


def test_an_interrupted_download_goes_on_where_it_stopped(in_parts: InParts, tmp_path: Path) -> None:
    path = large_file(tmp_path)
    digest = in_parts.repository.put(path)
    in_parts.cache.mkdir(exist_ok=True)
    (in_parts.cache / f".partial-{digest}").write_bytes(path.read_bytes()[: 7 << 20])
    ranges: list[str] = []
    in_parts.repository._client.meta.events.register(
        "before-call.s3.GetObject", lambda params, **_: ranges.append(params["headers"]["Range"])
    )
    assert in_parts.repository.fetch(digest).read_bytes() == path.read_bytes()
    assert ranges == [f"bytes={7 << 20}-"]
    assert [x.name for x in in_parts.cache.iterdir()] == [digest]


def test_two_fetchers_with_one_cache_do_not_disturb_each_other(in_parts: InParts, tmp_path: Path) -> None:
    path = large_file(tmp_path)
    digest = in_parts.repository.put(path)
    found: list[bytes] = []
    fetchers = [
        threading.Thread(target=lambda: found.append(in_parts.repository.fetch(digest).read_bytes())) for _ in range(3)
    ]
    for fetcher in fetchers:
        fetcher.start()
    for fetcher in fetchers:
        fetcher.join()
    assert found == [path.read_bytes()] * 3
    assert [x.name for x in in_parts.cache.iterdir()] == [digest]


def test_a_wrong_beginning_is_thrown_away(in_parts: InParts, tmp_path: Path) -> None:
    path = large_file(tmp_path)
    digest = in_parts.repository.put(path)
    in_parts.cache.mkdir(exist_ok=True)
    (in_parts.cache / f".partial-{digest}").write_bytes(b"nonsense")
    with pytest.raises(ArtifactCorrupt, match="expected SHA-256"):
        in_parts.repository.fetch(digest)
    assert in_parts.repository.fetch(digest).read_bytes() == path.read_bytes()


def test_the_cache_serves_without_the_server_and_keeps_its_limit(in_parts: InParts, tmp_path: Path) -> None:
    digest = in_parts.repository.put(model_file(tmp_path))
    in_parts.repository.fetch(digest)
    in_parts.calls.clear()
    in_parts.repository.fetch(digest)
    assert in_parts.calls == []
    in_parts.repository._cache._limit_bytes = 1500
    for number in range(3):
        in_parts.repository.fetch(in_parts.repository.put(model_file(tmp_path, bytes([number]) * 1000)))
    assert len(list(in_parts.cache.iterdir())) == 1


def test_a_damaged_local_copy_is_fetched_again(in_parts: InParts, tmp_path: Path) -> None:
    digest = in_parts.repository.put(model_file(tmp_path))
    in_parts.repository.fetch(digest).write_bytes(b"weightz")
    assert in_parts.repository.fetch(digest).read_bytes() == b"weights"


def test_what_is_wrong_with_a_place_is_said(server: str, client: Any, tmp_path: Path) -> None:
    nowhere = repository_at(f"s3://no-such-bucket/x?endpoint={server}&cache={tmp_path}/c")
    with pytest.raises(ConfigError, match="no bucket 'no-such-bucket'"):
        nowhere.put(model_file(tmp_path))
    with pytest.raises(ConfigError, match="unknown option"):
        repository_at("s3://bucket/x?endpint=y")
    with pytest.raises(ConfigError, match="names no bucket"):
        repository_at("s3:///x")
    with pytest.raises(ConfigError, match="cache_gib"):
        repository_at(f"s3://bucket/x?cache_gib=much&cache={tmp_path}/c")
