"""One system on a local Ray for the whole session, serving models of the fake runtime with known times."""

import dataclasses
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from infaas_ray.client import Client
from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import (
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
)
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.repository import repository_at
from infaas_ray.variants.fake_runtime import FakeLatency, FakeModel

USE_CASE = UseCase(task="double", dataset="numbers")
HARDWARE = Hardware(kind=HardwareKind.CPU, model="fake", cores=2, memory_bytes=2**34)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def add_fake(
    settings: Settings,
    architecture: str,
    *,
    accuracy: float,
    row_s: float,
    fixed_s: float = 0.001,
    load_s: float = 0.05,
    use_case: UseCase = USE_CASE,
    batch_limit: int = 8,
    width: int = 4,
    hardware: HardwareKind = HardwareKind.CPU,
    folder: Path,
) -> Variant:
    """Register a fake model that repeats x as y; its profile says what it does."""
    x, y = (TensorSpec(name=name, datatype="FP32", shape=(-1, width)) for name in "xy")
    file = folder / f"{architecture}.json"
    model = FakeModel(outputs={"y": "x"}, latency_s=FakeLatency(fixed=fixed_s, per_row=row_s), load_s=load_s)
    file.write_bytes(msgspec.json.encode(model))
    variant = Variant(
        architecture=architecture,
        runtime="fake",
        precision="fp32",
        hardware=hardware,
        batch_limit=batch_limit,
        artifact=repository_at(settings.repository).put(file),
        artifact_bytes=file.stat().st_size,
    )
    points = []
    for batch in sorted({1, batch_limit}):
        p50 = fixed_s + row_s * batch
        points.append(BatchLatency(batch=batch, p50_s=p50, p95_s=p50 * 1.5, p99_s=p50 * 2))
    profile = Profile(
        variant=variant.name,
        hardware=dataclasses.replace(HARDWARE, kind=hardware),
        load_s=load_s,
        latencies=tuple(points),
        saturation_qps=batch_limit / points[-1].p50_s,
        peak_memory_bytes=80 * 2**20,
        accuracy=Accuracy(value=accuracy, metric="top1_accuracy", rows=1000, standard_error=0.01),
    )
    metadata = Metadata(settings.metadata_url)
    metadata.add_architecture(Architecture(name=architecture, use_case=use_case, inputs=(x,), outputs=(y,)))
    metadata.put_variant(variant, profile)
    metadata.close()
    return variant


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A running system with three architectures of one use case: small, middle and large."""
    home = tmp_path_factory.mktemp("home")
    scaling = {"idle_timeout_s": 60.0, "downscale_delay_s": 2.0, "planner": {"hold_s": 20.0}}
    flags = {"home": home, "http": {"port": free_port()}, "cluster": {"cpus": 4}, "scaling": scaling}
    settings = load_settings(flags=flags, environment={})
    add_fake(settings, "small", accuracy=0.80, row_s=0.001, folder=home)
    add_fake(settings, "middle", accuracy=0.90, row_s=0.004, folder=home)
    add_fake(settings, "large", accuracy=0.99, row_s=0.016, folder=home)
    images = UseCase(task="repeat", dataset="images")
    add_fake(settings, "wide", accuracy=0.9, row_s=0.0, use_case=images, width=160_000, folder=home)
    launch.up(settings)
    yield settings
    launch.down(settings)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{settings.http.port}") as client:
        wait_for(lambda: len(client.targets()) >= 7)
        yield client


@pytest.fixture
def system(settings: Settings) -> Iterator[System]:
    with launch.open_system(settings) as system:
        yield system


@pytest.fixture
def x() -> np.ndarray:
    return np.arange(4, dtype=np.float32).reshape(1, 4)


def wait_for(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.05)
