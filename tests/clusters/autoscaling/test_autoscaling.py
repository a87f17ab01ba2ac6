"""The planner and Ray's real autoscaler: load brings machines, its end sends them away, and no query is lost."""

from infaas_ray.policy.messages import DrainReplica, LaunchFailed, ReplicaReady, RequestWorkers
from tests.clusters.autoscaling.conftest import Trial

FATES = {"answered", "Unavailable", "Unsatisfiable", "DeadlineExceeded"}  # what may become of a query


def asked_for(trial: Trial) -> set[str]:
    """The types of which any worker was asked for."""
    requests = [x for x in trial.actions() if isinstance(x, RequestWorkers)]
    return {name for x in requests for name, count in x.counts.items() if count}


def test_load_brings_the_cheapest_machines_that_meet_its_slo_and_their_successors_where_they_die(trial: Trial) -> None:
    with trial.load(latency_ms=400) as load:
        trial.wait_for(load.met)
        victim = trial.ready("slow")[0]["worker"]
        trial.kill(victim)
        trial.wait_for(lambda: victim not in trial.workers())
        trial.wait_for(lambda: bool(trial.ready("slow")))
        mark = load.asked()
        trial.wait_for(lambda: load.met(after=mark))
        assert trial.types() == {"cpu"}
    trial.end()
    assert set(load.fates()) <= FATES | {"ReplicaLost"}
    assert load.answered_by() == {"slow"}
    assert asked_for(trial) == {"cpu"}


def test_an_slo_that_only_a_gpu_meets_brings_a_gpu_and_a_spot_notice_moves_its_replicas_first(trial: Trial) -> None:
    looked = trial.metadata.asked
    with trial.load(latency_ms=50) as load:
        trial.wait_for(lambda: bool(trial.ready("quick")))
        (old,) = trial.workers()
        trial.wait_for(lambda: trial.metadata.asked > looked)  # its monitor listens
        trial.metadata.give_notice(within_s=120)
        trial.wait_for(lambda: old not in trial.workers())
        mark = load.asked()
        trial.wait_for(lambda: load.met(after=mark))
        assert trial.types() == {"gpu"}
    trial.end()
    assert set(load.fates()) <= FATES
    assert load.answered_by() == {"quick"}
    assert asked_for(trial) == {"gpu"}
    turns = trial.turns()
    came = [n for n, x in enumerate(turns) for e in x.events if isinstance(e, ReplicaReady) and e.worker != old]
    went = [n for n, x in enumerate(turns) for a in x.actions if isinstance(a, DrainReplica)]
    assert min(came) <= min(went)


def test_a_type_that_cannot_be_had_is_replaced_by_the_next_best_and_tried_again(trial: Trial) -> None:
    trial.cluster.launch(cpu="fails")
    with trial.load(latency_ms=400) as load:
        trial.wait_for(lambda: "start failed" in str(trial.status()["machines"]["cpu"]["blocked"]))
        trial.wait_for(lambda: trial.types() == {"neuron"})
        trial.cluster.launch()  # while it is not to be tried again yet
        trial.wait_for(load.met)
        trial.wait_for(lambda: trial.types() == {"cpu"})
        mark = load.asked()
        trial.wait_for(lambda: load.met(after=mark))
    trial.end()
    assert any(isinstance(e, LaunchFailed) and e.worker_type == "cpu" for x in trial.turns() for e in x.events)
    assert set(load.fates()) <= FATES
    assert asked_for(trial) == {"cpu", "neuron"}
