"""One system, with the planner, on a cluster that its autoscaler grows from a head alone."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import HardwareKind, UseCase
from infaas_ray.policy.messages import Action
from infaas_ray.policy.replay import LoggedTurn, decode, in_words, replay
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.serving.head import Run, joined
from tests.clusters.autoscaling.cluster import Cluster
from tests.clusters.autoscaling.load import Load
from tests.integration.conftest import add_fake, free_port
from tests.integration.metadata_server import MetadataServer, metadata_server

TYPES = {"cpu": {"CPU": 4}, "gpu": {"CPU": 4, "GPU": 1}, "neuron": {"CPU": 4, "neuron_cores": 2}}
USD_PER_HOUR = {"cpu": 0.2, "gpu": 3.0, "neuron": 0.7}
USE_CASE = UseCase(task="double", dataset="numbers")
RATE_QPS = 20.0
SCALING = {
    "strategy": "planner",
    "planner": {"interval_s": 1.0, "release_s": 2.0, "waiting_usd_per_s": 0.0},
    "downscale_delay_s": 1.0,
    "traffic_window_s": 2.0,
    "block_s": 1.0,
}
LIMIT_S = 90.0  # far more than anything takes
_TOLD = 40  # actions that a failure tells
_FATES = ("answered", "rejected", "expired", "failed", "cancelled")


def wait_for(condition: Callable[[], bool], tell: Callable[[], str] = lambda: "") -> None:
    """Wait until it holds; `tell` says how things stand where it does not in time."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"it did not become true within {LIMIT_S:.0f} s\n{tell()}"
        time.sleep(0.1)


class Trial:
    """The system, as a test sees it."""

    def __init__(self, cluster: Cluster, settings: Settings, system: System, metadata: MetadataServer) -> None:
        self.cluster = cluster
        self.metadata = metadata
        self._settings = settings
        self._system = system
        self._loads: list[Load] = []
        self._begun = 0

    def begin(self) -> None:
        """Forget what former tests did."""
        self.cluster.launch()
        self.wait_for(lambda: not self.workers())
        self._begun = len(self._log())

    def load(self, **slo: Any) -> Load:
        """A steady stream of queries; use it with `with`."""
        self._loads.append(Load(self._system, USE_CASE.name, RATE_QPS, **slo))
        return self._loads[-1]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds."""
        wait_for(condition, self._tell)

    def _tell(self) -> str:
        status = self.status()
        lines = [f"{name}: {status[name]}" for name in ("workers", "machines", "replicas", "queries", "blocked")]
        return "\n".join([*lines, *(in_words(x) for x in self.actions()[-_TOLD:])])

    def status(self) -> dict[str, Any]:
        return launch.status(self._settings)

    def workers(self) -> dict[str, str]:
        """The living workers and their types."""
        return {x["worker"]: x["type"] for x in self.status()["workers"]}

    def types(self) -> set[str]:
        return set(self.workers().values())

    def ready(self, architecture: str) -> list[dict[str, Any]]:
        """The ready replicas of an architecture."""
        found = self.status()["replicas"]
        return [x for x in found if x["variant"].startswith(f"{architecture}@") and x["state"] == "ready"]

    def kill(self, worker: str) -> None:
        """Let a worker lose its power."""
        (node,) = [x for x in ray.nodes() if x["NodeID"] == worker]
        self.cluster.kill_worker(node["RayletSocketName"])

    def turns(self) -> list[LoggedTurn]:
        """The turns of the controller in this test."""
        return [x for x in decode(self._log()[self._begun :]) if isinstance(x, LoggedTurn)]

    def actions(self) -> list[Action]:
        """What it did in this test."""
        return [action for turn in self.turns() for action in turn.actions]

    def _log(self) -> list[bytes]:
        """The whole lines of the decision log."""
        return Path(self.status()["decision_log"]).read_bytes().split(b"\n")[:-1]

    def end(self) -> None:
        """All machines go, every query that was asked has had one fate, and the log replays to the same actions."""
        self.wait_for(lambda: not self.workers())
        asked = sum(len(load.outcomes()) for load in self._loads)
        self.wait_for(lambda: self._counted() == {"accepted": asked, "left": asked})
        assert replay(self._log()) is None

    def _counted(self) -> Mapping[str, int]:
        counts = self.status()["queries"]
        return {"accepted": counts["accepted"], "left": sum(counts.get(x, 0) for x in _FATES)}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The head, joined by this process."""
    cluster = Cluster(TYPES)
    try:
        cluster.start()
        with joined(Run(address=cluster.address, url="", namespace="infaas", token=cluster.token)):
            yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def trial(running: Trial) -> Iterator[Trial]:
    running.begin()
    yield running
    running.cluster.launch()


@pytest.fixture(scope="session")
def running(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    home = tmp_path_factory.mktemp("autoscaled")
    prices = [
        {"name": name, "resources": TYPES[name], "memory_gib": 8, "usd_per_hour": usd, "boot_s": 3.0}
        for name, usd in USD_PER_HOUR.items()
    ]
    (home / "prices.yaml").write_text(yaml.safe_dump({"worker_types": prices}))
    with metadata_server() as metadata:
        flags = {
            "home": home,
            "http": {"port": free_port()},
            "cluster": {
                "address": cluster.address,
                "autoscaling_config": cluster.file,
                "metadata_url": metadata.url,
                "metadata_period_s": 0.5,
            },
            "shells": {"per_worker": 1},
            "prices": {"catalog": home / "prices.yaml"},
            "scaling": SCALING,
        }
        settings = load_settings(flags=flags, environment={})
        _register(settings, home)
        launch.up(settings)
        with launch.open_system(settings) as system:
            yield Trial(cluster, settings, system, metadata)
        launch.down(settings)


def _register(settings: Settings, home: Path) -> None:
    """`slow` runs on processors, `quick` on a GPU, `exact` on Neuron cores."""
    add_fake(settings, "slow", accuracy=0.80, row_s=0.03, folder=home)
    add_fake(settings, "quick", accuracy=0.80, row_s=0.001, hardware=HardwareKind.GPU, folder=home)
    add_fake(settings, "exact", accuracy=0.95, row_s=0.028, hardware=HardwareKind.NEURON, folder=home)
