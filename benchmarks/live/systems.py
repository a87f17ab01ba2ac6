"""The systems under load, one at a time: Ray Serve with one fixed variant, and ours.

Each is a tree of processes that began with `pid`; the load generator is not among them.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.live.models import BATCH, Measured, live_settings, open_variant, pictures
from benchmarks.live.traffic import Asked, QueryClass, of_ours, of_ray_serve, picture_count
from benchmarks.serving import ours
from benchmarks.serving.generator import MeasurementFailed
from benchmarks.serving.servers import Peer, Row, haproxy, serving
from benchmarks.serving.workloads import Workload
from infaas_ray.client import Client

_ROOT = Path(__file__).parents[2]
REPLICAS = 2  # one a core, one thread each
ACCURATE, FIXED, OURS, OURS_FIXED = (
    "Ray Serve, most accurate, PyTorch eager",
    "Ray Serve, best fixed variant",
    "ours",
    "ours, that variant only",
)
_READY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A system that answers. `accuracies` by variant; `variant` is who answers where only one can.

    `pid` is the process that began all others of the system.
    """

    name: str
    host: str
    port: int
    asked: Asked
    pid: int
    accuracies: Mapping[str, float]
    variant: str = ""


@contextlib.contextmanager
def ray_serve(
    name: str, fixed: Measured, asked: Sequence[QueryClass], cache: Path, accuracies: Mapping[str, float]
) -> Iterator[Served]:
    """Ray Serve with replicas of one variant."""
    variant = fixed[0].name
    home = live_settings(cache).home
    images = pictures(cache, picture_count(asked))
    workload = Workload(
        name=name.partition(", ")[2].replace(" ", "-").replace(",", ""),
        file=home / "metadata.db",
        inputs={"image": images[:BATCH]},
        output="logits",
        expected=open_variant(home, variant).predict({"image": images[:1]})["logits"],
        batch=BATCH,
    )
    told = {
        "BENCH_HOME": str(home),
        "BENCH_VARIANT": variant,
        "BENCH_REPLICAS": str(REPLICAS),
        "PYTHONPATH": str(_ROOT),
    }
    peer = Peer(
        name=name,
        python=Path(sys.executable),
        command=lambda folder, port, workload: ["-m", "benchmarks.live.ray_serve"],
        path=lambda workload: "/",
        encode=lambda workload: _bytes_of,
        decode=lambda body: np.frombuffer(body, np.float32),
        environment=lambda folder: {**haproxy(folder), **told},
    )
    with serving(peer, workload, cache / "logs") as door:
        yield Served(
            name=name,
            host=door.host,
            port=door.port,
            asked=of_ray_serve(asked, images, door.host),
            pid=door.pid,
            accuracies=accuracies,
            variant=variant,
        )


def _bytes_of(row: Row) -> bytes:
    return row["image"].tobytes()


@contextlib.contextmanager
def our_system(
    fixed: Measured, asked: Sequence[QueryClass], cache: Path, accuracies: Mapping[str, float]
) -> Iterator[tuple[Served, Served]]:
    """Ours, asked at the router's own port: model-less, and for comparison by the name of the fixed variant."""
    settings = live_settings(cache)
    images = pictures(cache, picture_count(asked))
    with ours.running(settings) as run:
        host, port = ours.doors(run)["ours (own port)"]
        _wait_for_answers(f"http://{host}:{port}", asked, images[:1])
        variant = fixed[0].name
        model_less = Served(
            name=OURS,
            host=host,
            port=port,
            asked=of_ours(asked, images, host),
            pid=run.head_pid,
            accuracies=accuracies,
        )
        yield (
            model_less,
            Served(
                name=OURS_FIXED,
                host=host,
                port=port,
                asked=of_ours(asked, images, host, variant),
                pid=run.head_pid,
                accuracies=accuracies,
            ),
        )


def _wait_for_answers(url: str, asked: Sequence[QueryClass], image: "np.ndarray") -> None:
    """Until each class has had an answer, so that what it needs first is loaded."""
    from benchmarks.live.models import USE_CASE
    from infaas_ray.errors import InfaasError

    with Client(url) as client:
        for x in asked:
            end = time.monotonic() + _READY_S
            while True:
                try:
                    client.infer(USE_CASE.name, {"image": image}, min_accuracy=x.least_accuracy)
                    break
                except InfaasError as error:
                    if time.monotonic() > end:
                        raise MeasurementFailed(f"ours does not answer {x.name}: {error}") from None
                    time.sleep(0.3)
