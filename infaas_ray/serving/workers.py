"""Workers as Ray sees them, and the monitor actor that runs on each.

A worker is a Ray node with processors for replicas; a head that declares none is not one. Its type is the
name in its resource `tier_<type>`, or the label `ray.io/node-group`, or `local`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from infaas_ray.config import ClusterSettings
from infaas_ray.domain import WorkerType
from infaas_ray.policy.lifecycle import Worker
from infaas_ray.policy.messages import Event, WorkerInterrupted, WorkerJoined, WorkerLost, WorkerReported
from infaas_ray.policy.placement import BUSY_CPU_SHARE
from infaas_ray.policy.rhythm import MONITOR_S
from infaas_ray.serving import spot

CONTROLLER = "controller"
MARKER = "tier_"
_NODE_TYPE_LABEL = "ray.io/node-group"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A living Ray node: the resources that replicas may use, and the worker type it was started as."""

    id: str
    worker_type: str
    resources: dict[str, float]
    memory_bytes: int

    def priced_by_cpu(self, usd_per_cpu_hour: float) -> WorkerType:
        """A worker type for a machine that no catalogue names."""
        return WorkerType(
            name=self.worker_type,
            resources=self.resources,
            memory_bytes=self.memory_bytes,
            usd_per_hour=usd_per_cpu_hour * self.resources.get("CPU", 0.0),
        )


def worker_type_of(labels: Mapping[str, str], resources: Mapping[str, float]) -> str:
    """The worker type that a node was started as; `local` where nothing tells."""
    marked = sorted(x.removeprefix(MARKER) for x in resources if x.startswith(MARKER))
    return marked[0] if marked else labels.get(_NODE_TYPE_LABEL, "local")


def living_nodes() -> list[Node]:
    """The nodes that live and may take replicas."""
    return [
        Node(
            id=x["NodeID"],
            worker_type=worker_type_of(x.get("Labels", {}), x["Resources"]),
            resources={k: v for k, v in x["Resources"].items() if k in ("CPU", "GPU", "neuron_cores")},
            memory_bytes=int(x["Resources"].get("memory", 0)) or 2**30,
        )
        for x in ray.nodes()
        if x["Alive"] and x["Resources"].get("CPU", 0) > 0
    ]


class Workers:
    """The living workers, and what their monitors said last."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._usage: dict[str, WorkerReported] = {}
        self._drained: set[str] = set()

    def look(self, drained: Mapping[str, float]) -> list[Event]:
        """What changed since the last look. `drained`: nodes that others drain, with the seconds they have left."""
        nodes = {x.id: x for x in living_nodes()}
        events: list[Event] = [WorkerLost(worker=x) for x in self.nodes.keys() - nodes.keys()]
        events += [
            WorkerJoined(worker=x.id, worker_type=x.worker_type, resources=x.resources, memory_bytes=x.memory_bytes)
            for x in nodes.values()
            if x.id not in self.nodes
        ]
        news = (drained.keys() & nodes.keys()) - self._drained
        events += [WorkerInterrupted(worker=x, within_s=drained[x]) for x in sorted(news)]
        self._drained = (self._drained | news) & nodes.keys()
        self._usage = {name: usage for name, usage in self._usage.items() if name in nodes}
        self.nodes = nodes
        return events

    def take(self, report: WorkerReported) -> None:
        """Note what a monitor says."""
        self._usage[report.worker] = report

    def types(self) -> set[str]:
        """The worker types at hand."""
        return {x.worker_type for x in self.nodes.values()}

    def priced(self, known: Mapping[str, WorkerType], usd_per_cpu_hour: float) -> list[WorkerType]:
        """The worker types at hand with their prices: of the catalogue, or by the processors."""
        return [known.get(x.worker_type) or x.priced_by_cpu(usd_per_cpu_hour) for x in self.nodes.values()]

    def calm(self, workers: Iterable[Worker]) -> dict[str, bool]:
        """Of these, whether their processors have time, as far as their monitors have said."""
        return {x.name: x.name in self._usage and x.cpu_share <= BUSY_CPU_SHARE for x in workers}

    def status(self, shells: Callable[[str], int]) -> list[dict[str, Any]]:
        """Each worker in plain values. `shells`: how many wait on it."""
        return [
            {
                "worker": x.id,
                "type": x.worker_type,
                "resources": x.resources,
                "cpu_share": usage.cpu_share if (usage := self._usage.get(x.id)) else None,
                "memory_share": usage.memory_share if usage else None,
                "shells": shells(x.id),
            }
            for x in self.nodes.values()
        ]


def actor_options(name: str, namespace: str, node: str) -> dict[str, Any]:
    """Options of every actor of the system: named, detached, on that node, without restarts or task events."""
    return {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "max_restarts": 0,
        "enable_task_events": False,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
    }


class WorkerMonitor:
    """Measures its machine each second and tells the controller, for as long as the actor lives.

    Where the settings name a metadata service, it also looks there for the notice that the machine is taken away.
    """

    def __init__(self, node: str, cluster: ClusterSettings) -> None:
        self._node = node
        self._cluster = cluster
        psutil.cpu_percent()  # the first call only sets the mark
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._measure())]
        if cluster.metadata_url is not None:
            self._tasks.append(loop.create_task(self._watch(cluster.metadata_url)))

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(MONITOR_S)
            report = WorkerReported(
                worker=self._node,
                cpu_share=psutil.cpu_percent() / 100,
                memory_share=psutil.virtual_memory().percent / 100,
            )
            with contextlib.suppress(RayError, ValueError):  # a controller that restarts hears the next one
                controller = ray.get_actor(CONTROLLER, self._cluster.namespace)
                await controller.report_worker.remote(report)

    async def _watch(self, url: str) -> None:
        await spot.watch(url, self._interrupted, self._cluster.metadata_period_s)

    async def _interrupted(self, within_s: float) -> None:
        """Tell the controller; it may be restarting, and this is told once."""
        until = time.monotonic() + within_s
        while True:
            with contextlib.suppress(RayError, ValueError):
                controller = ray.get_actor(CONTROLLER, self._cluster.namespace)
                await controller.report_interruption.remote(self._node, max(0.0, until - time.monotonic()))
                return
            await asyncio.sleep(MONITOR_S)

    async def ping(self) -> str:
        """The node that is monitored."""
        return self._node


def start_monitor(node: str, cluster: ClusterSettings) -> Any:
    """Start the monitor of a node, unless it has one already; returns its handle."""
    options = actor_options(f"monitor:{node}", cluster.namespace, node) | {"num_cpus": 0, "get_if_exists": True}
    return ray.remote(WorkerMonitor).options(**options).remote(node, cluster)


def end_monitor(node: str, namespace: str) -> None:
    """End the monitor of a node, if it has one: an actor keeps its machine from being idle."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(f"monitor:{node}", namespace))
