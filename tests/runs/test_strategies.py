"""What holds for every strategy of scaling, whatever happens: limits, no order twice, nothing on what leaves, replay.

The planner is not among them: its plans are made outside the autoscaler.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infaas_ray.domain import HardwareKind
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.messages import (
    Action,
    DrainReplica,
    LoadRequested,
    ReleaseWorker,
    ReplicaDied,
    ReplicaFailed,
    RequestWorkers,
    StartReplica,
    StopReplica,
    WorkerReported,
)
from infaas_ray.policy.replay import encode_header, encode_turn, replay
from tests.unit.policy.builders import offer, traffic, worker, worker_type
from tests.unit.policy.fluid import Asked
from tests.unit.policy.world import World, starts

CHEAP = offer("cheap", usd=0.001, accuracy=0.7, rate_qps=200, p99_ms=((1, 5.0), (8, 40.0)))
GOOD = offer("good", usd=0.004, accuracy=0.9, rate_qps=50, p99_ms=((1, 20.0), (8, 160.0)), load_s=3.0, threads=2)
QUICK = offer("good", usd=0.003, accuracy=0.9, rate_qps=2000, p99_ms=((1, 4.0), (32, 20.0)), hardware=HardwareKind.GPU)
OFFERS = (CHEAP, GOOD, QUICK)
TYPES = (
    worker_type("cpu", usd=0.4, boot_s=8.0, most=4),
    worker_type("big", cpu=16.0, usd=1.6, boot_s=8.0, most=2),
    worker_type("gpu", gpu=1.0, usd=3.0, boot_s=12.0, most=2),
)

STRATEGIES: dict[str, ScalingSettings] = {
    "static": ScalingSettings(strategy="static", keep_warm={CHEAP.name: 3, GOOD.name: 2}),
    "planner": ScalingSettings(),
    "individual": ScalingSettings(strategy="individual"),
    "SM+": ScalingSettings(strategy="individual", fixed=True, keep_warm={GOOD.name: 1}),
    "infaas": ScalingSettings(strategy="infaas"),
    "queue_length": ScalingSettings(strategy="queue_length", keep_warm={GOOD.name: 1}),
    "proteus": ScalingSettings(strategy="proteus"),
    "model_switching": ScalingSettings(strategy="model_switching"),
}


def world(name: str) -> World:
    return World(*OFFERS, types=TYPES, settings=STRATEGIES[name], load_s=2.0)


# ---- any sequence of events

Happening = Callable[[World], list[Action]]


def _asked(rows: int, latency_s: float | None, accuracy: float | None) -> Happening:
    return lambda made: made.ask(Asked(rows=rows, latency_s=latency_s, min_accuracy=accuracy), seconds=5)


def _lost(pick: int) -> Happening:
    def act(made: World) -> list[Action]:
        names = sorted(made.autoscaler.fleet.workers)
        return made.lose(names[pick % len(names)]) if names else made.step()

    return act


def _interrupted(pick: int) -> Happening:
    def act(made: World) -> list[Action]:
        names = sorted(made.autoscaler.fleet.workers)
        return made.interrupt(names[pick % len(names)], 20.0) if names else made.step()

    return act


def _replica(pick: int, died: bool, permanent: bool) -> Happening:
    def act(made: World) -> list[Action]:
        living = list(made.autoscaler.fleet.replicas.values())
        if not living:
            return made.step()
        x = living[pick % len(living)]
        if died:
            return made.step(ReplicaDied(replica=x.id))
        return made.step(ReplicaFailed(replica=x.id, variant=x.variant, reason="no file", permanent=permanent))

    return act


def _failing(names: set[str]) -> Happening:
    def act(made: World) -> list[Action]:
        made.failing = names
        return made.step()

    return act


def _busy(pick: int, share: float) -> Happening:
    def act(made: World) -> list[Action]:
        names = sorted(made.autoscaler.fleet.workers)
        events = [WorkerReported(worker=names[pick % len(names)], cpu_share=share, memory_share=0.1)] if names else []
        return made.step(*events)

    return act


def _slow(pick: int, factor: float) -> Happening:
    def act(made: World) -> list[Action]:
        living = list(made.autoscaler.fleet.replicas.values())
        if not living:
            return made.step()
        x = living[pick % len(living)]
        return made.step(traffic({x.variant: 100}, slowdowns={x.id: factor}))

    return act


def _load(variant: str) -> Happening:
    return lambda made: made.step(LoadRequested(variant=variant))


_pick = st.integers(0, 50)
happenings = st.one_of(
    st.builds(
        _asked,
        st.sampled_from([0, 5, 40, 150, 600, 3000]),
        st.sampled_from([None, 0.03, 0.1, 1.0]),
        st.sampled_from([None, 0.8]),
    ),
    st.builds(_lost, _pick),
    st.builds(_interrupted, _pick),
    st.builds(_replica, _pick, st.booleans(), st.booleans()),
    st.builds(_failing, st.sets(st.sampled_from(["cpu", "gpu"]))),
    st.builds(_busy, _pick, st.sampled_from([0.1, 0.9])),
    st.builds(_slow, _pick, st.sampled_from([1.3, 4.0])),
    st.builds(_load, st.sampled_from([x.name for x in OFFERS])),
)


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(happenings, min_size=1, max_size=14))
def test_whatever_happens_the_orders_are_sound(name: str, what: Sequence[Happening]) -> None:
    made = world(name)
    watch = Watch(made)
    for happening in what:
        happening(made)
        watch.look()
    made.ask(Asked(rows=0), seconds=3)
    watch.look()
    lines = [encode_header(made.autoscaler.settings)]
    lines += [encode_turn(now, events, actions) for now, events, actions in made.log]
    assert replay(lines) is None


class Watch:
    """Looks at every turn of a world once."""

    def __init__(self, made: World) -> None:
        self._made = made
        self._seen = 0
        self._given: set[Action] = set()
        self._left: set[str] = set()

    def look(self) -> None:
        """Check the turns since the last look."""
        made = self._made
        fleet = made.autoscaler.fleet
        for _, events, actions in made.log[self._seen :]:
            self._check(actions, [type(x).__name__ for x in events])
        self._seen = len(made.log)
        for name, count in fleet.counts().items():
            assert count <= made.types[name].max_workers
        for variant in fleet.variants():
            assert len(fleet.of(variant)) <= made.autoscaler.settings.max_replicas_per_variant
        for x in fleet.workers.values():
            if x.leaving:
                self._left.add(x.name)
            for resource, amount in x.resources.items():
                used = sum(r.needs.amount for r in x.replicas.values() if r.needs and r.needs.resource == resource)
                assert used <= amount + 1e-6

    def _check(self, actions: Sequence[Action], events: Sequence[str]) -> None:
        requests = [x for x in actions if isinstance(x, RequestWorkers)]
        assert len({tuple(sorted(x.counts.items())) for x in requests}) == len(requests), (requests, events)
        for action in actions:
            match action:
                case RequestWorkers(counts=counts):
                    assert all(0 <= n <= self._made.types[kind].max_workers for kind, n in counts.items())
                case StartReplica(replica=x, worker=on):
                    assert on not in self._left
                    self._once("start", x)
                case DrainReplica(replica=x):
                    self._once("drain", x)
                case StopReplica(replica=x):
                    self._once("stop", x)
                case ReleaseWorker(worker=x):
                    self._once("release", x)
            assert action.because

    def _once(self, verb: str, name: str) -> None:
        key: object = (verb, name)
        assert key not in self._given, f"{verb} {name} twice"
        self._given.add(key)  # type: ignore[arg-type]


# ---- a flat noisy load


@pytest.mark.parametrize("rate", [30, 400])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_flat_noisy_load_moves_little(name: str, rate: int) -> None:
    """In ten minutes of Poisson arrivals, after as many to settle: how often something is started or asked for."""
    made = world(name)
    rows = np.random.default_rng(7).poisson(rate, 1200).tolist()
    turns = [made.ask(Asked(rows=count, latency_s=0.1, min_accuracy=0.6)) for count in rows]
    assert sum(bool(starts(turn)) for turn in turns[600:]) <= 6
    assert sum(any(isinstance(x, RequestWorkers) for x in turn) for turn in turns[600:]) <= 6


@pytest.mark.parametrize("name", [x for x in STRATEGIES if x != "static"])
def test_a_load_that_rises_is_served_again(name: str) -> None:
    made = world(name)
    made.ask(Asked(rows=20, latency_s=0.2), seconds=60)
    made.ask(Asked(rows=200, latency_s=0.2), seconds=200)
    assert made.missed < 0.01


@pytest.mark.parametrize("name", ["planner", "individual", "infaas"])
@pytest.mark.parametrize("broken", [{"w1"}, {"w1", "w2"}])
def test_a_replica_that_fails_on_one_worker_comes_up_on_another(name: str, broken: set[str]) -> None:
    names = ["w1", "w2", "w3"]
    made = World(CHEAP, workers=[worker(x) for x in names], settings=STRATEGIES[name])
    made.broken = broken
    made.ask(Asked(rows=20), seconds=40)
    tried = [x.worker for _, _, actions in made.log for x in actions if isinstance(x, StartReplica)]
    assert tried == names[: len(broken) + 1]
    assert made.counts() == {CHEAP.name: 1}
    assert made.missed == 0.0
    lines = [encode_header(made.autoscaler.settings)]
    lines += [encode_turn(now, events, actions) for now, events, actions in made.log]
    assert replay(lines) is None


@pytest.mark.parametrize("name", [x for x in STRATEGIES if x != "static"])
def test_when_the_load_ends_the_machines_go(name: str) -> None:
    made = world(name)
    made.ask(Asked(rows=300, latency_s=0.2), seconds=120)
    made.ask(Asked(rows=0), seconds=1300)
    kept = 1 if STRATEGIES[name].keep_warm else 0
    assert sum(made.workers().values()) <= kept
