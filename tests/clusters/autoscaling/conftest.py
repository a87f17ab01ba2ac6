"""One system, with the planner, on a cluster that its autoscaler grows from a head alone."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ray
import yaml

from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import HardwareKind, UseCase
from infaas_ray.serving import launch
from infaas_ray.serving.driver import System
from infaas_ray.serving.head import Run, joined
from tests.clusters.autoscaling.cluster import Cluster
from tests.integration.conftest import add_fake, free_port, wait_for
from tests.integration.metadata_server import MetadataServer, metadata_server

TYPES = {"cpu": {"CPU": 4}, "gpu": {"CPU": 4, "GPU": 1}, "neuron": {"CPU": 4, "neuron_cores": 2}}
USD_PER_HOUR = {"cpu": 0.2, "gpu": 3.0, "neuron": 0.7}
USE_CASE = UseCase(task="double", dataset="numbers")
SCALING = {
    "strategy": "planner",
    "planner": {"interval_s": 1.0, "release_s": 2.0, "waiting_usd_per_s": 0.0},
    "downscale_delay_s": 1.0,
    "traffic_window_s": 2.0,
    "block_s": 1.0,
}


class Trial:
    """The system, as its tests see it."""

    def __init__(self, cluster: Cluster, settings: Settings, system: System, metadata: MetadataServer) -> None:
        self.cluster = cluster
        self.settings = settings
        self.system = system
        self.metadata = metadata

    def status(self) -> dict[str, Any]:
        return launch.status(self.settings)

    def workers(self) -> dict[str, str]:
        """The living workers and their types."""
        return {x["worker"]: x["type"] for x in self.status()["workers"]}

    def types(self) -> Counter[str]:
        return Counter(self.workers().values())

    def ready(self, variant: str) -> list[dict[str, Any]]:
        """The replicas of variants whose names start so that are ready."""
        return [x for x in self.status()["replicas"] if x["replica"].startswith(variant) and x["state"] == "ready"]

    def counted(self) -> dict[str, int]:
        counts: dict[str, int] = self.status()["queries"]
        return counts

    def actions(self) -> list[dict[str, Any]]:
        """Every action of the controller so far, as its log tells."""
        return [action for line in self.log()[1:] for action in msgspec.json.decode(line)["actions"]]

    def kill(self, worker: str) -> None:
        """Let a worker lose its power."""
        (node,) = [x for x in ray.nodes() if x["NodeID"] == worker]
        self.cluster.kill_worker(node["RayletSocketName"])

    def log(self) -> list[bytes]:
        """The whole lines of the decision log."""
        return Path(self.status()["decision_log"]).read_bytes().split(b"\n")[:-1]

    def wait_until_all_machines_are_gone(self) -> None:
        wait_for(lambda: self.status()["workers"] == [], limit_s=60)


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
        assert cluster.processes() == []


@pytest.fixture(autouse=True)
def launches_work_again(cluster: Cluster) -> Iterator[None]:
    """What one test breaks does not break the next."""
    yield
    cluster.launch()


@pytest.fixture(scope="session")
def trial(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
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
