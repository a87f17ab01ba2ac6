"""The controller killed under load: what it had begun, what runs, and what its successor makes of both."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayError

from infaas_ray.client import Client, Result
from infaas_ray.config import Settings
from infaas_ray.domain import UseCase, Variant
from infaas_ray.policy.messages import DrainReplica, StartReplica, StopReplica
from infaas_ray.policy.replay import decode_turn, replay
from infaas_ray.serving import launch
from infaas_ray.serving.head import joined, read_run
from infaas_ray.serving.variant_actor import VariantActor
from infaas_ray.serving.workers import actor_options
from infaas_ray.storage.metadata import Metadata
from tests.integration.conftest import add_fake, wait_for

USE_CASE = UseCase(task="stay", dataset="numbers")
CLIENTS, PERIOD_S = 7, 0.1
ROW_S = 0.02  # one replica answers far fewer than CLIENTS / PERIOD_S in a second, two answer more


@pytest.fixture(autouse=True, scope="module")
def member(settings: Settings) -> Iterator[None]:
    """This process is one of the cluster's: joining for each look would take the time of those who ask queries."""
    run = read_run(settings)
    assert run is not None
    with joined(run):
        yield


def described(settings: Settings) -> dict[str, dict[str, Any]]:
    """What each living variant actor says of itself, by the actor's name."""
    found = {}
    names = [x["name"] for x in ray.util.list_named_actors(all_namespaces=True)]
    for name in (x for x in names if x.startswith(("replica:", "shell:"))):
        with contextlib.suppress(RayError, ValueError):  # it ended meanwhile
            found[name] = ray.get(ray.get_actor(name, settings.cluster.namespace).describe.remote(), timeout=10)
    return found


def waiting(settings: Settings) -> set[str]:
    """Names of the idle shells."""
    return {name for name, x in described(settings).items() if x["phase"] == "shell"}


def phases(settings: Settings, variant: Variant) -> list[str]:
    """In which phase each living actor of a variant is."""
    return [x["phase"] for x in described(settings).values() if x["variant"] == variant.name]


def ready(settings: Settings, variant: Variant) -> dict[str, int]:
    """Process ids of the ready replicas of a variant, by replica id."""
    found = launch.status(settings)["replicas"]
    return {x["replica"]: x["pid"] for x in found if x["variant"] == variant.name and x["state"] == "ready"}


def kill_controller(settings: Settings) -> None:
    """Kill it, and return when its successor works."""
    victim = launch.status(settings)["controller_pid"]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: launch.status(settings)["controller_pid"] != victim)


def log_of(settings: Settings, name: str) -> list[bytes]:
    """The whole lines of a decision log; a killed controller may leave half a line."""
    return [x for x in (settings.home / name).read_bytes().splitlines(keepends=True) if x.endswith(b"\n")]


def orders(settings: Settings, variant: Variant) -> list[Any]:
    """What the living controller has ordered about replicas of a variant."""
    turns = [decode_turn(x) for x in log_of(settings, "decisions.jsonl")[1:]]
    found = [x for turn in turns for x in turn.actions]
    return [
        x
        for x in found
        if isinstance(x, StartReplica | DrainReplica | StopReplica) and x.replica.startswith(f"{variant.name}#")
    ]


@contextlib.contextmanager
def steady_load(client: Client, target: str, fates: Counter[str]) -> Iterator[None]:
    """CLIENTS clients that ask each PERIOD_S."""
    end = threading.Event()
    x = np.ones((1, 4), np.float32)

    def ask() -> None:
        due = time.monotonic()
        while not end.is_set():
            try:
                client.infer(target, {"x": x}, latency_ms=10_000)
                fates["answered"] += 1
            except Exception as error:  # each kind of it is counted
                fates[repr(error)] += 1
            due += PERIOD_S
            time.sleep(max(0.0, due - time.monotonic()))

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    try:
        yield
    finally:
        end.set()
        for one in clients:
            one.join()


@pytest.fixture
def steady(settings: Settings, client: Client, tmp_path: Path) -> Iterator[Variant]:
    made = add_fake(settings, "steady", accuracy=0.9, row_s=ROW_S, batch_limit=1, use_case=USE_CASE, folder=tmp_path)
    wait_for(lambda: any(x["name"] == "steady" for x in client.targets()))
    yield made
    remove(settings, "steady")


def remove(settings: Settings, architecture: str) -> None:
    metadata = Metadata(settings.metadata_url)
    metadata.remove_architecture(architecture)
    metadata.close()


def a_shell(settings: Settings) -> None:
    """Make one as the controller does, which makes them only while the processors have time."""
    worker = launch.status(settings)["workers"][0]["worker"]
    options = actor_options(f"shell:{worker[:12]}:by-hand", settings.cluster.namespace, worker)
    shell = ray.remote(VariantActor).options(**options, num_cpus=0, max_concurrency=10_000).remote()
    ray.get(shell.describe.remote(), timeout=60)


def settled(settings: Settings, variant: Variant) -> dict[str, int]:
    """The ready replicas once there are several and their number stays for a while."""
    found: dict[str, int] = {}
    since = time.monotonic()

    def stays() -> bool:
        nonlocal found, since
        now = ready(settings, variant)
        if now != found:
            found, since = now, time.monotonic()
        return len(found) > 1 and time.monotonic() - since > 2 * settings.scaling.downscale_delay_s

    wait_for(stays, limit_s=90)
    return found


def test_a_new_controller_goes_on_with_what_lives(client: Client, settings: Settings, steady: Variant) -> None:
    fates: Counter[str] = Counter()
    with steady_load(client, "steady", fates):
        before = settled(settings, steady)
        version = launch.status(settings)["table_version"]
        if not waiting(settings):
            a_shell(settings)
        shells = waiting(settings)
        kill_controller(settings)
        answered = fates["answered"]
        wait_for(lambda: before.items() <= ready(settings, steady).items())
        assert launch.status(settings)["table_version"] > version
        assert shells & described(settings).keys()  # they wait on, but for one that may have become a replica
        wait_for(lambda: launch.status(settings)["workers"][0]["shells"] >= len(shells & waiting(settings)))
        time.sleep(2 * settings.scaling.downscale_delay_s)  # a controller that had misread the load would act by then
        assert before.items() <= ready(settings, steady).items()
        given = orders(settings, steady)
        assert [x for x in given if not isinstance(x, StartReplica)] == []
        # A busy machine may need one more; one that had forgotten those that live would start as many again.
        assert len(given) < len(before)
        assert {x.replica for x in given}.isdisjoint(before)
        wait_for(lambda: fates["answered"] > answered + 50)
    assert set(fates) == {"answered"}
    for life in ("decisions.old.jsonl", "decisions.jsonl"):
        lines = log_of(settings, life)
        assert len(lines) > 2
        assert replay(lines) is None


def ask_in_background(client: Client, target: str, pool: ThreadPoolExecutor, rows: int = 1) -> "Future[Result]":
    return pool.submit(client.infer, target, {"x": np.ones((rows, 4), np.float32)})


def test_a_load_that_the_dead_one_had_begun_is_done_once(client: Client, settings: Settings, tmp_path: Path) -> None:
    use_case = UseCase(task="load-slowly", dataset="numbers")
    made = add_fake(settings, "slow-load", accuracy=0.9, row_s=0.0, load_s=4.0, use_case=use_case, folder=tmp_path)
    wait_for(lambda: any(x["name"] == "slow-load" for x in client.targets()))
    with ThreadPoolExecutor(1) as pool:
        asked = ask_in_background(client, "slow-load", pool)
        wait_for(lambda: any(x["variant"] == made.name for x in launch.status(settings)["replicas"]))
        kill_controller(settings)
        assert asked.result(60).variant == made.name
    assert len(ready(settings, made)) == 1
    assert phases(settings, made) == ["ready"]
    remove(settings, "slow-load")
    wait_for(lambda: not phases(settings, made))


def test_a_replica_that_drains_answers_and_goes(client: Client, settings: Settings, tmp_path: Path) -> None:
    use_case = UseCase(task="answer-slowly", dataset="numbers")
    made = add_fake(settings, "slow-row", accuracy=0.9, row_s=0.75, use_case=use_case, folder=tmp_path)
    wait_for(lambda: any(x["name"] == "slow-row" for x in client.targets()))
    accepted = launch.status(settings)["queries"].get("accepted", 0)
    with ThreadPoolExecutor(1) as pool:
        ask_in_background(client, "slow-row", pool).result(60)
        asked = ask_in_background(client, "slow-row", pool, rows=8)
        wait_for(lambda: launch.status(settings)["queries"]["accepted"] == accepted + 2)  # it is on its way
        remove(settings, "slow-row")
        wait_for(lambda: "ending" in phases(settings, made))
        kill_controller(settings)
        assert asked.result(60).variant == made.name
    wait_for(lambda: not phases(settings, made))
    assert ready(settings, made) == {}


def test_what_is_reserved_is_what_runs(settings: Settings) -> None:
    def agree() -> bool:
        groups = ray.util.placement_group_table().values()
        held = {x["name"].split(":", 2)[2] for x in groups if x["state"] != "REMOVED"}
        were_shells = {x["replica"] for name, x in described(settings).items() if name.startswith("shell:")} - {""}
        return held == were_shells

    wait_for(agree)
