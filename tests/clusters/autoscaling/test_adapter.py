"""What our calls of Ray's autoscaler do on a real one, without a system on the cluster."""

from collections import Counter

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from infaas_ray.serving.machines import drain_worker, observe, request_workers
from infaas_ray.serving.workers import living_nodes
from tests.clusters.autoscaling.cluster import Cluster
from tests.clusters.autoscaling.conftest import wait_for


def here() -> dict[str, str]:
    return {x.id: x.worker_type for x in living_nodes()}


def settled(address: str, **types: int) -> bool:
    """Whether these workers live and none is on its way. (Ray sees a node before its launch has returned.)"""
    return Counter(here().values()) == types and not +Counter(observe(address).pending)


def test_each_type_comes_by_its_name_and_a_drained_worker_is_replaced_while_it_still_answers(cluster: Cluster) -> None:
    request_workers(cluster.address, {"cpu": 1, "neuron": 1})
    wait_for(lambda: settled(cluster.address, cpu=1, neuron=1))
    assert observe(cluster.address).asked == {"cpu": 1, "neuron": 1}
    (old,) = [name for name, kind in here().items() if kind == "cpu"]

    @ray.remote(num_cpus=0, max_restarts=0)
    class Busy:
        def answer(self) -> int:
            return 1

    busy = Busy.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=old, soft=False)).remote()
    assert ray.get(busy.answer.remote()) == 1
    assert drain_worker(cluster.address, old) == (True, "")
    assert 50 < observe(cluster.address).draining[old] <= 60
    wait_for(lambda: settled(cluster.address, cpu=2, neuron=1))
    assert ray.get(busy.answer.remote()) == 1
    ray.kill(busy)
    wait_for(lambda: old not in here())
    request_workers(cluster.address, {})
    for worker in here():
        assert drain_worker(cluster.address, worker) == (True, "")
    wait_for(lambda: here() == {})


def test_a_launch_that_fails_is_listed_and_a_boot_that_never_ends_is_ended_when_it_is_not_wanted(
    cluster: Cluster,
) -> None:
    cluster.launch(gpu="fails")
    request_workers(cluster.address, {"gpu": 1})
    wait_for(lambda: any(x.ray_node_type_name == "gpu" for x in observe(cluster.address).failed))
    cluster.launch(gpu="hangs")
    wait_for(lambda: [x.ray_node_type_name for x in get_cluster_status(cluster.address).pending_nodes] == ["gpu"])
    assert observe(cluster.address).pending["gpu"] == 1
    request_workers(cluster.address, {})
    wait_for(lambda: settled(cluster.address))
