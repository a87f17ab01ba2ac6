"""Workers as Ray sees them, and the monitor actor that runs on each."""

import asyncio
import contextlib
from typing import Any

import msgspec
import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from infaas_ray.domain import WorkerType
from infaas_ray.policy.messages import WorkerReported
from infaas_ray.policy.rhythm import MONITOR_S

CONTROLLER = "controller"
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


def living_nodes() -> list[Node]:
    """The nodes that take replicas now."""
    return [
        Node(
            id=x["NodeID"],
            worker_type=x.get("Labels", {}).get(_NODE_TYPE_LABEL, "local"),
            resources={k: v for k, v in x["Resources"].items() if k in ("CPU", "GPU", "neuron_cores")},
            memory_bytes=int(x["Resources"].get("memory", 0)) or 2**30,
        )
        for x in ray.nodes()
        if x["Alive"] and x["Resources"].get("CPU", 0) > 0
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
    """Measures its machine each second and tells the controller, for as long as the actor lives."""

    def __init__(self, node: str, namespace: str) -> None:
        self._node = node
        self._namespace = namespace
        psutil.cpu_percent()  # the first call only sets the mark
        self._task = asyncio.get_running_loop().create_task(self._loop())

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(MONITOR_S)
            report = WorkerReported(
                worker=self._node,
                cpu_share=psutil.cpu_percent() / 100,
                memory_share=psutil.virtual_memory().percent / 100,
            )
            with contextlib.suppress(RayError, ValueError):  # a controller that restarts hears the next one
                controller = ray.get_actor(CONTROLLER, self._namespace)
                await controller.report_worker.remote(report)

    async def ping(self) -> str:
        """The node that is monitored."""
        return self._node


def start_monitor(node: str, namespace: str) -> Any:
    """Start the monitor of a node, unless it has one already; returns its handle."""
    options = actor_options(f"monitor:{node}", namespace, node) | {"num_cpus": 0, "get_if_exists": True}
    return ray.remote(WorkerMonitor).options(**options).remote(node, namespace)
