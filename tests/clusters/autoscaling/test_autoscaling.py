"""The planner and Ray's real autoscaler: load brings machines, its end sends them away, and no query is lost."""

from collections import Counter
from typing import Any

from infaas_ray.policy.replay import replay
from tests.clusters.autoscaling.conftest import USE_CASE, Trial
from tests.clusters.autoscaling.load import Load
from tests.integration.conftest import wait_for

TARGET = USE_CASE.name
FATES = {"answered", "Unavailable", "Unsatisfiable", "DeadlineExceeded", "ReplicaLost"}


def asked_for(actions: list[dict[str, Any]]) -> Counter[str]:
    """The most workers of each type that any request named."""
    found: Counter[str] = Counter()
    for action in actions:
        if action["type"] == "RequestWorkers":
            found |= Counter(action["counts"])
    return found


def test_load_brings_the_cheapest_machines_that_meet_its_slo_and_its_end_sends_them_away(trial: Trial) -> None:
    with Load(trial.system, TARGET, 20.0, latency_ms=400) as load:
        wait_for(load.met, limit_s=40)
        assert set(trial.types()) == {"cpu"}
        wait_for(lambda: load.answered() >= 300)  # replicas that die sooner after their start count as broken
        (node, *_) = trial.workers()
        trial.kill(node)
        wait_for(lambda: node not in trial.workers(), limit_s=10)
        wait_for(lambda: bool(trial.ready("slow")), limit_s=30)
        wait_for(load.met, limit_s=30)
        assert set(trial.types()) == {"cpu"}
    assert set(load.fates()) <= FATES
    trial.wait_until_all_machines_are_gone()
    assert set(+asked_for(trial.actions())) == {"cpu"}


def test_an_slo_that_only_a_gpu_meets_brings_a_gpu_and_a_spot_notice_moves_its_replicas_first(trial: Trial) -> None:
    with Load(trial.system, TARGET, 20.0, latency_ms=50) as load:
        wait_for(lambda: bool(trial.ready("quick")), limit_s=40)
        (old,) = trial.workers()
        assert trial.workers()[old] == "gpu"
        trial.metadata.give_notice(within_s=120)
        wait_for(lambda: any(x["worker"] != old for x in trial.ready("quick")), limit_s=40)
        wait_for(lambda: old not in trial.workers(), limit_s=40)
        wait_for(load.met, limit_s=20)
    trial.wait_until_all_machines_are_gone()
    order = [
        (x["type"], x["replica"])
        for x in trial.actions()
        if x["type"] in ("StartReplica", "DrainReplica") and x["replica"].startswith("quick")
    ]
    assert [kind for kind, _ in order[:3]] == ["StartReplica", "StartReplica", "DrainReplica"]
    assert set(load.fates()) <= FATES - {"ReplicaLost"}


def test_a_type_that_cannot_be_had_is_replaced_by_the_next_best_and_tried_again(trial: Trial) -> None:
    trial.cluster.launch(cpu="fails")
    with Load(trial.system, TARGET, 20.0, latency_ms=400) as load:
        wait_for(load.met, limit_s=60)
        assert set(trial.types()) == {"neuron"}
        assert "start failed" in str(trial.status()["machines"]["cpu"]["blocked"])
        trial.cluster.launch()
        wait_for(lambda: set(trial.types()) == {"cpu"}, limit_s=90)
        wait_for(load.met, limit_s=20)
    assert set(load.fates()) <= FATES - {"ReplicaLost"}
    trial.wait_until_all_machines_are_gone()


def test_every_query_of_all_these_has_a_fate_and_the_log_replays_to_the_same_actions(trial: Trial) -> None:
    def settled() -> bool:
        counts = trial.counted()
        fates = sum(counts.get(x, 0) for x in ("answered", "rejected", "expired", "failed", "cancelled"))
        return counts["accepted"] == fates > 0

    wait_for(settled)
    assert replay(trial.log()) is None
