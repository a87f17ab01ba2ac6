"""Workers as Ray's nodes tell of them."""

from typing import Any

import pytest

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.messages import WorkerInterrupted, WorkerJoined, WorkerLost
from infaas_ray.serving import workers
from infaas_ray.serving.replica_actors import resources_of
from infaas_ray.serving.workers import Workers, worker_type_of


def node(name: str, alive: bool = True, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Labels": labels or {}, "Resources": {"CPU": 4.0, **resources}}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(workers.ray, "nodes", lambda: found)
    return found


@pytest.mark.parametrize(
    ("labels", "resources", "expected"),
    [
        ({}, {}, "local"),
        ({"ray.io/node-group": "gpu"}, {}, "gpu"),
        ({}, {"tier_cpu": 1.0}, "cpu"),
        ({"ray.io/node-group": "head"}, {"tier_cpu": 1.0}, "cpu"),
    ],
)
def test_the_type_is_what_the_node_was_started_as(
    labels: dict[str, str], resources: dict[str, float], expected: str
) -> None:
    assert worker_type_of(labels, resources) == expected


def test_nodes_come_and_go_and_a_pure_head_is_no_worker(nodes: list[dict[str, Any]]) -> None:
    seen = Workers()
    nodes += [node("head", CPU=0.0), node("w1", tier_cpu=1.0, memory=5.0), node("dead", alive=False)]
    assert seen.look({}) == [WorkerJoined(worker="w1", worker_type="cpu", resources={"CPU": 4.0}, memory_bytes=5)]
    assert seen.look({}) == []
    nodes[1]["Alive"] = False
    assert seen.look({}) == [WorkerLost(worker="w1")]
    assert seen.look({}) == []


def test_one_that_others_drain_is_told_once_and_never_joins_again(nodes: list[dict[str, Any]]) -> None:
    seen = Workers()
    nodes.append(node("w1"))
    assert [type(x) for x in seen.look({"w1": 30.0, "gone": 5.0})] == [WorkerJoined, WorkerInterrupted]
    assert seen.look({"w1": 29.0}) == []
    nodes.clear()
    assert seen.look({"w1": 28.0}) == [WorkerLost(worker="w1")]
    assert seen.look({"w1": 27.0}) == []


def test_types_are_priced_by_the_catalogue_or_by_their_processors(nodes: list[dict[str, Any]]) -> None:
    nodes += [node("w1", tier_cpu=1.0), node("w2")]
    seen = Workers()
    seen.look({})
    known = WorkerType(name="cpu", resources={"CPU": 4}, memory_bytes=1, usd_per_hour=7.0)
    assert [x.usd_per_hour for x in seen.priced({"cpu": known}, 0.5)] == [7.0, 2.0]


@pytest.mark.parametrize("parts", range(1, 17))
def test_as_many_replicas_fit_on_a_gpu_as_were_planned(parts: int) -> None:
    share = resources_of(HardwareKind.GPU, 1 / parts)["num_gpus"]
    assert round(share * 10_000) * parts <= 10_000
    assert share > 1 / parts - 1e-4


def test_processors_and_neuron_cores_are_asked_for_as_they_are() -> None:
    assert resources_of(HardwareKind.CPU, 0.25) == {"num_cpus": 0.25}
    assert resources_of(HardwareKind.NEURON, 2.0) == {"num_cpus": 0, "resources": {"neuron_cores": 2.0}}
