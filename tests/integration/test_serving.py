"""The running system, from outside: queries at three levels, reasons, bad input, scaling, and deaths."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray

from infaas_ray.client import Client
from infaas_ray.config import Settings
from infaas_ray.domain import Answer
from infaas_ray.errors import InfaasError, InvalidInput, Unavailable, UnknownTarget, Unsatisfiable
from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.replay import LoggedTurn, decode
from infaas_ray.serving import launch
from infaas_ray.serving.addresses import actor_in
from infaas_ray.serving.driver import System
from infaas_ray.serving.head import joined, read_run
from infaas_ray.serving.workers import CONTROLLER
from infaas_ray.storage.metadata import Metadata
from tests.integration.conftest import USE_CASE, add_fake, wait_for

TARGET = USE_CASE.name


def replicas(settings: Settings, state: str = "ready") -> dict[str, int]:
    """Process ids of the replicas in a state, by replica id."""
    return {x["replica"]: x["pid"] for x in launch.status(settings)["replicas"] if x["state"] == state}


def ready_now(settings: Settings, variant: str) -> list[str]:
    return [x for x in replicas(settings) if x.startswith(variant)]


def told_of(settings: Settings, application: str) -> int:
    """The rows of an application that routers have told the controller of."""
    with (settings.home / "decisions.jsonl").open("rb") as log:
        turns = [x for x in decode(log) if isinstance(x, LoggedTurn)]
    events = [x for turn in turns for x in turn.events if isinstance(x, TrafficReported)]
    return sum(rows for x in events for rows in x.applications.get(application, {}).values())


class TestQueries:
    @pytest.mark.parametrize("target", [TARGET, "double", "small", "small@fake-fp32-cpu-t1-b8"])
    def test_each_level_answers(self, client: Client, x: np.ndarray, target: str) -> None:
        result = client.infer(target, {"x": x})
        np.testing.assert_array_equal(result.outputs["y"], x)
        assert result.variant == "small@fake-fp32-cpu-t1-b8"
        assert result.accuracy == 0.80
        assert result.usd_per_1k > 0
        assert result.compute_ms >= 1
        assert result.slo_met

    def test_the_slo_decides_who_answers_and_loads_what_is_missing(self, client: Client, x: np.ndarray) -> None:
        for accuracy, expected in ((0.85, "middle"), (0.95, "large"), (0.5, "small")):
            assert client.infer(TARGET, {"x": x}, min_accuracy=accuracy).variant.startswith(f"{expected}@")

    def test_a_query_of_many_rows_is_answered_whole(self, client: Client) -> None:
        rows = np.random.default_rng(1).random((21, 4), np.float32)
        np.testing.assert_array_equal(client.infer("small", {"x": rows}).outputs["y"], rows)

    def test_what_nothing_can_meet_is_refused_with_the_nearest(self, client: Client, x: np.ndarray) -> None:
        with pytest.raises(Unsatisfiable) as refused:
            client.infer(TARGET, {"x": x}, min_accuracy=0.999)
        assert refused.value.nearest["min_accuracy"] == pytest.approx(0.99)
        assert len(refused.value.reasons) == 3
        with pytest.raises(Unsatisfiable) as refused:
            client.infer(TARGET, {"x": x}, latency_ms=5, min_accuracy=0.95)
        assert refused.value.nearest["latency_ms"] > 5

    def test_explain_tells_why_each_candidate_wins_or_loses(self, client: Client, system: System) -> None:
        wait_for(lambda: any(v["replicas"] for v in client.explain(TARGET)))
        over_http = client.explain(TARGET, min_accuracy=0.85)
        assert [v["variant"].split("@")[0] for v in over_http if v["chosen"]] == ["middle"]
        assert all(v["why"] for v in over_http)
        over_channel = system.explain(TARGET, min_accuracy=0.85)
        assert [v["variant"] for v in over_channel] == [v["variant"] for v in over_http]

    def test_metadata_and_index_name_what_can_be_asked(self, client: Client) -> None:
        assert client.metadata(TARGET)["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        names = {x["name"] for x in client.targets()}
        assert {TARGET, "double", "small", "large@fake-fp32-cpu-t1-b8"} <= names


class TestDrivers:
    def test_one_query_without_http(self, system: System, x: np.ndarray) -> None:
        answer = system.query("small", {"x": x}, latency_ms=500)
        np.testing.assert_array_equal(answer.outputs["y"], x)

    def test_thousands_come_back_in_order(self, system: System) -> None:
        rows = np.arange(8000, dtype=np.float32).reshape(2000, 4)
        outcomes = list(system.query_many("small", {"x": rows}))
        assert len(outcomes) == 2000
        for row, outcome in zip(rows, outcomes, strict=True):
            assert isinstance(outcome, Answer)
            np.testing.assert_array_equal(outcome.outputs["y"][0], row)

    def test_as_completed_names_each_query(self, system: System) -> None:
        rows = np.arange(800, dtype=np.float32).reshape(200, 4)
        found = dict(system.as_completed("small", {"x": rows}, rows_per_query=2, window=4))
        assert sorted(found) == list(range(100))
        for number, outcome in found.items():
            assert isinstance(outcome, Answer)
            np.testing.assert_array_equal(outcome.outputs["y"], rows[2 * number : 2 * number + 2])

    def test_an_iterator_of_queries_of_any_size(self, system: System) -> None:
        sizes = [1, 3, 9, 2]
        queries = ({"x": np.full((n, 4), n, np.float32)} for n in sizes)
        outcomes = list(system.query_many("small", queries, progress=True))
        assert [len(x.outputs["y"]) for x in outcomes if isinstance(x, Answer)] == sizes

    def test_what_is_too_much_at_once_is_asked_in_parts(self, system: System, client: Client) -> None:
        client.infer("large", {"x": np.zeros((1, 4), np.float32)})  # loaded
        rows = np.zeros((64, 4), np.float32)
        # Eight rows of it take about 130 ms, so 32 at once could never keep this bound; one alone can.
        outcomes = list(system.query_many("large", {"x": rows}, latency_ms=300))
        assert len(outcomes) == 64
        assert any(isinstance(x, Answer) for x in outcomes)

    def test_large_inputs_pass_whole(self, system: System, settings: Settings) -> None:
        rows = np.random.default_rng(0).random((40_000, 4), np.float32)  # 640 KB a query
        answer = system.query("small", {"x": rows[:8]})
        np.testing.assert_array_equal(answer.outputs["y"], rows[:8])
        (outcome,) = system.query_many("wide", {"x": rows.reshape(1, -1)})
        assert isinstance(outcome, Answer)
        np.testing.assert_array_equal(outcome.outputs["y"], rows.reshape(1, -1))

    def test_whose_queries_they_are_is_counted(self, system: System, client: Client, settings: Settings) -> None:
        list(system.query_many("small", {"x": np.zeros((40, 4), np.float32)}, application="shop"))
        client.infer("small", {"x": np.zeros((2, 4), np.float32)}, application="shop")
        with pytest.raises(InvalidInput, match="application must be"):
            client.infer("small", {"x": np.zeros((2, 4), np.float32)}, application="a shop")
        with pytest.raises(InvalidInput, match="application must be"):
            system.query("small", {"x": np.zeros((2, 4), np.float32)}, application="a shop")
        assert 'infaas_application_rows_total{application="shop"} 42.0' in httpx.get(f"{client.url}/metrics").text
        wait_for(lambda: told_of(settings, "shop") == 42)

    def test_errors_keep_their_class(self, system: System, x: np.ndarray) -> None:
        with pytest.raises(UnknownTarget, match="known: "):
            system.query("nothing", {"x": x})
        with pytest.raises(InvalidInput, match="expected FP32"):
            system.query("small", {"x": x.astype(np.float64)})
        with pytest.raises(Unsatisfiable):
            system.query(TARGET, {"x": x}, min_accuracy=1.0)


def infer(body: object, target: str = TARGET, **more: object) -> dict:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}
    return {"url": f"/v2/models/{target}/infer", "json": body or {"inputs": [tensor], **more}}


GOOD = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}
BAD = {
    "unknown target": (infer(None, "nothing"), 404, "known: "),
    "negative latency": (infer(None, parameters={"latency_ms": -5}), 400, "above 0"),
    "accuracy above the best": (infer(None, parameters={"min_accuracy": 0.9999}), 422, "accuracy"),
    "accuracy above 1": (infer(None, parameters={"min_accuracy": 3}), 400, "at most 1"),
    "misspelt parameter": (infer(None, parameters={"latncy_ms": 3}), 400, "known: latency_ms"),
    "wrong shape": (infer({"inputs": [GOOD | {"shape": [1, 2, 2]}]}), 400, r"expected [-1, 4]"),
    "wrong dtype": (infer({"inputs": [GOOD | {"datatype": "INT64"}]}), 400, "expected FP32"),
    "wrong input name": (infer({"inputs": [GOOD | {"name": "z"}]}), 400, "takes the inputs ['x']"),
    "no inputs": (infer({"inputs": []}), 400, "no inputs"),
    "no rows": (infer({"inputs": [GOOD | {"shape": [0, 4], "data": []}]}), 400, "any length from 1"),
    "unknown output": (infer(None, outputs=[{"name": "z"}]), 400, "known: y"),
    "truncated JSON": ({"url": f"/v2/models/{TARGET}/infer", "content": b'{"inputs": [{"na'}, 400, "cut short"),
    "empty body": ({"url": f"/v2/models/{TARGET}/infer", "content": b""}, 400, "body is empty"),
    "100 MB body": ({"url": f"/v2/models/{TARGET}/infer", "content": b"0" * 100_000_000}, 413, "fewer rows"),
    "too many dimensions": (infer({"inputs": [GOOD | {"shape": [1] * 100}]}), 400, "32 lengths"),
    "ragged data": (infer({"inputs": [GOOD | {"data": [[0, 1, 2], [3]]}]}), 400, "nested as the shape"),
    "null latency": (infer(None, parameters={"latency_ms": None}), 400, "must be a number, not null"),
    "no such version": ({"url": f"/v2/models/{TARGET}/versions/abc/infer", "json": {}}, 400, "versions/1"),
    "wrong method": ({"url": "/v2", "json": {}}, 405, "use GET"),
    "no such path": ({"url": "/v1/predict", "json": {}}, 404, "/v2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_what_would_be_right_and_the_next_query_is_answered(
    client: Client, x: np.ndarray, name: str
) -> None:
    request, status, says = BAD[name]
    with httpx.Client(base_url=client.url, timeout=60) as http:
        response = http.post(**request)
    assert response.status_code == status, response.text
    assert says in response.json()["error"]
    assert client.infer(TARGET, {"x": x}).slo_met


def test_get_on_infer_names_the_method(client: Client) -> None:
    response = httpx.get(f"{client.url}/v2/models/{TARGET}/infer")
    assert (response.status_code, response.json()) == (405, {"error": f"use POST for /v2/models/{TARGET}/infer"})


def test_an_artifact_that_changed_is_refused_with_the_reason(
    client: Client, settings: Settings, x: np.ndarray, tmp_path: Path
) -> None:
    variant = add_fake(settings, "spoilt", accuracy=0.7, row_s=0.0123, folder=tmp_path)
    (file,) = Path(settings.repository).rglob(variant.artifact)
    file.chmod(0o644)
    file.write_bytes(b"something else")
    wait_for(lambda: any(t["name"] == "spoilt" for t in client.targets()))
    with pytest.raises(Unsatisfiable, match="spoilt") as refused:
        client.infer("spoilt", {"x": x})
    assert "register" in str(refused.value.reasons)
    assert client.infer(TARGET, {"x": x}).slo_met
    metadata = Metadata(settings.metadata_url)
    metadata.remove_architecture("spoilt")
    metadata.close()


def test_load_scales_a_variant_out_and_quiet_retires_it(client: Client, settings: Settings, system: System) -> None:
    rows = np.zeros((4000, 4), np.float32)
    before = len(ready_now(settings, "middle"))
    outcomes: list[object] = []
    burst = threading.Thread(target=lambda: outcomes.extend(system.query_many("middle", {"x": rows}, window=200)))
    burst.start()
    wait_for(lambda: len(ready_now(settings, "middle")) > max(1, before), limit_s=40)
    burst.join()
    assert len(outcomes) == 4000
    assert all(isinstance(x, Answer | InfaasError) for x in outcomes)
    assert sum(isinstance(x, Answer) for x in outcomes) > 0
    wait_for(lambda: len(ready_now(settings, "middle")) <= 1, limit_s=90)


def test_a_killed_replica_loses_no_query_and_comes_back(client: Client, settings: Settings) -> None:
    client.infer("large", {"x": np.zeros((1, 4), np.float32)})
    (victim,) = [pid for name, pid in replicas(settings).items() if name.startswith("large")]
    fates: list[str] = []

    def ask(number: int) -> None:
        x = np.full((1, 4), number, np.float32)
        try:
            result = client.infer("large", {"x": x}, latency_ms=20_000)
            np.testing.assert_array_equal(result.outputs["y"], x)
            fates.append("answered")
        except Unavailable as error:
            fates.append("rejected" if error.message else "rejected without a reason")

    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(ask, number) for number in range(50)]
        time.sleep(0.3)
        os.kill(victim, signal.SIGKILL)
        for one in waiting:
            one.result()
    assert len(fates) == 50
    assert set(fates) <= {"answered", "rejected"}
    assert fates.count("answered") >= 1
    wait_for(lambda: bool(ready_now(settings, "large")))
    assert victim not in replicas(settings).values()


def test_queries_are_answered_while_the_controller_is_gone_and_a_new_one_takes_over(
    client: Client, settings: Settings, x: np.ndarray
) -> None:
    client.infer("small", {"x": x})
    before = replicas(settings)
    victim = launch.status(settings)["controller_pid"]
    os.kill(victim, signal.SIGKILL)
    for _ in range(20):
        assert client.infer("small", {"x": x}).slo_met
    wait_for(lambda: launch.status(settings)["controller_pid"] != victim)
    wait_for(lambda: set(before.items()) <= set(replicas(settings).items()))
    assert client.infer(TARGET, {"x": x}).slo_met


def test_which_plan_is_followed_can_be_asked(client: Client, settings: Settings, x: np.ndarray) -> None:
    client.infer("small", {"x": x})
    found = launch.plan(settings, others=5)
    assert found.strategy == settings.scaling.strategy
    assert (found.followed is not None) == (found.strategy == "planner")
    assert sum(found.workers.values()) == 1
    assert any(name.startswith("small") for name in found.ready)


def test_every_replica_also_answers_through_its_actor(client: Client, settings: Settings, x: np.ndarray) -> None:
    client.infer("small", {"x": x})
    run = read_run(settings)
    assert run is not None
    with joined(run):
        table = ray.get(ray.get_actor(CONTROLLER, run.namespace).listen.remote(-1))
        found = [y for y in table.replicas if y.variant.startswith("small@")]
        for replica in found:
            actor = ray.get_actor(actor_in(replica.address), run.namespace)
            fields, outputs = ray.get(actor.infer.remote({"x": x}, 1, 5.0, False))
            assert fields["batch_rows"] == 1
            np.testing.assert_array_equal(outputs["y"], x)
    assert found


def test_a_driver_that_goes_takes_back_what_waits(client: Client, settings: Settings, x: np.ndarray) -> None:
    def cancelled() -> int:
        return int(launch.status(settings)["queries"].get("cancelled", 0))

    before = cancelled()
    with launch.open_system(settings) as leaving:
        leaving.query("large", {"x": x})
        for _ in range(300):
            leaving.submit("large", {"x": x})
        time.sleep(0.2)  # on their way
    wait_for(lambda: cancelled() > before)


def test_every_query_is_accounted_for(client: Client, settings: Settings) -> None:
    def settled() -> bool:
        counts = launch.status(settings)["queries"]
        fates = sum(counts.get(name, 0) for name in ("answered", "rejected", "expired", "failed", "cancelled"))
        return bool(counts.get("accepted", 0) == fates > 0)

    wait_for(settled)
    text = httpx.get(f"{client.url}/metrics").text
    assert 'infaas_queries_total{outcome="answered"}' in text
