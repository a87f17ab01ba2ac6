"""What is asked of Ray's autoscaler, in which order, and what is told of its answers; Ray's calls are recorded."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from infaas_ray.domain import WorkerType
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.messages import (
    CatalogChanged,
    Event,
    LaunchFailed,
    ReleaseWorker,
    RequestWorkers,
    WorkerJoined,
    WorkerLost,
)
from infaas_ray.serving import machines
from infaas_ray.serving.cluster_file import Limits
from infaas_ray.serving.machines import Failures, Machines, Observed
from tests.unit.policy.builders import catalog

TYPES = {
    name: WorkerType(name=name, resources={"CPU": 4}, memory_bytes=2**30, usd_per_hour=1.0) for name in ("cpu", "gpu")
}


def failed(name: str = "cpu", at: int = 1, why: str | None = "no\n  capacity") -> Any:
    return SimpleNamespace(ray_node_type_name=name, request_ts_s=at, failed_ts_s=at, details=why)


class Ray:
    """Records what it is asked; `answers` of `observe`, and whether drains are accepted."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.failed: list[Any] = []
        self.draining: dict[str, float] = {}
        self.asked: dict[str, int] = {}
        self.accepts = True

    def request(self, address: str, counts: dict[str, int]) -> None:
        self.calls.append(("request", {name: count for name, count in counts.items() if count}))

    def drain(self, address: str, worker: str) -> tuple[bool, str]:
        self.calls.append(("drain", worker))
        return self.accepts, "" if self.accepts else "it is busy"

    def end_monitor(self, worker: str, namespace: str) -> None:
        self.calls.append(("end monitor", worker))

    def observe(self, address: str) -> Observed:
        return Observed(
            asked=self.asked,
            pending={"cpu": 3},
            starting={"cpu": 2},
            failed=self.failed,
            draining=self.draining,
        )


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    ray = Ray()
    monkeypatch.setattr(machines, "request_workers", ray.request)
    monkeypatch.setattr(machines, "drain_worker", ray.drain)
    monkeypatch.setattr(machines, "end_monitor", ray.end_monitor)
    monkeypatch.setattr(machines, "observe", ray.observe)
    return ray


@pytest.fixture
def fleet() -> Fleet:
    """Two workers of type cpu."""
    fleet = Fleet(1.0)
    fleet.apply(CatalogChanged(catalog=replace(catalog(), worker_types=TYPES)), 0.0)
    for name in ("w1", "w2"):
        join(fleet, name)
    return fleet


def join(fleet: Fleet, name: str) -> None:
    fleet.apply(WorkerJoined(worker=name, worker_type="cpu", resources={"CPU": 4}, memory_bytes=2**30), 0.0)


def made(fleet: Fleet, limits: Limits | None = None) -> tuple[Machines, list[Event]]:
    events: list[Event] = []
    return Machines("ray:1", "space", limits, fleet, events.append), events


def order(fleet: Fleet) -> RequestWorkers:
    return RequestWorkers(counts=fleet.counts(), because="a test")


async def test_what_a_former_controller_asked_for_stands_until_there_is_an_order(ray: Ray, fleet: Fleet) -> None:
    made_, _ = made(fleet)
    ray.asked = {"cpu": 3}
    await made_.turn()
    assert ray.calls == []
    await made_.close()
    assert ray.calls == [("request", {})]


async def test_nothing_is_taken_back_where_nothing_was_asked_for(ray: Ray, fleet: Fleet) -> None:
    made_, _ = made(fleet)
    await made_.turn()
    await made_.close()
    assert ray.calls == []


async def test_the_books_are_asked_for_and_those_that_leave_on_top(ray: Ray, fleet: Fleet) -> None:
    fleet.request_leave("w1")
    fleet.request_workers({"cpu": 2, "gpu": 1}, 0.0)
    made_, _ = made(fleet)
    await made_.request(order(fleet))
    assert ray.calls == [("request", {"cpu": 3, "gpu": 1})]
    await made_.close()
    assert ray.calls[-1] == ("request", {})


async def test_a_worker_is_given_back_with_the_request_lowered_first(ray: Ray, fleet: Fleet) -> None:
    made_, _ = made(fleet)
    await made_.request(order(fleet))
    fleet.request_leave("w1")
    await made_.request(order(fleet))
    assert ray.calls == [("request", {"cpu": 2})]  # it lives still, and must not be counted for another
    fleet.request_release("w1")
    await made_.release(ReleaseWorker(worker="w1", because="a test"))
    assert ray.calls[1:] == [("request", {"cpu": 1}), ("end monitor", "w1"), ("drain", "w1")]
    await made_.close()


async def test_a_refused_drain_is_tried_again_until_the_worker_is_gone(ray: Ray, fleet: Fleet) -> None:
    ray.accepts = False
    made_, _ = made(fleet)
    fleet.request_leave("w1")
    fleet.request_release("w1")
    await made_.release(ReleaseWorker(worker="w1", because="a test"))
    await made_.turn()
    await made_.turn()
    assert ray.calls.count(("drain", "w1")) == 3
    ray.draining = {"w1": 60.0}
    await made_.turn()
    fleet.apply(WorkerLost(worker="w1"), 1.0)
    ray.draining = {}
    await made_.turn()
    assert ray.calls.count(("drain", "w1")) == 3
    await made_.close()


async def test_a_worker_goes_though_the_control_store_was_away_when_it_was_given_back(
    ray: Ray, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(address: str, counts: dict[str, int]) -> None:
        raise TimeoutError("the control store does not answer")

    made_, _ = made(fleet)
    fleet.request_leave("w1")
    fleet.request_release("w1")
    monkeypatch.setattr(machines, "request_workers", away)
    with pytest.raises(TimeoutError):
        await made_.release(ReleaseWorker(worker="w1", because="a test"))
    assert ray.calls == []
    monkeypatch.setattr(machines, "request_workers", ray.request)
    await made_.turn()
    assert ray.calls == [("request", {"cpu": 1}), ("end monitor", "w1"), ("drain", "w1")]
    await made_.close()


async def test_the_request_follows_a_worker_that_dies_and_is_renewed(
    ray: Ray, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_, _ = made(fleet)
    await made_.request(order(fleet))
    await made_.turn()
    assert ray.calls == [("request", {"cpu": 2})]
    fleet.apply(WorkerLost(worker="w2"), 1.0)
    await made_.turn()
    assert ray.calls[1:] == [("request", {"cpu": 1})]
    monkeypatch.setattr(machines, "_RENEW_S", 0.0)
    await made_.turn()
    assert ray.calls[1:] == [("request", {"cpu": 1})] * 2
    await made_.close()


async def test_what_the_cluster_can_never_have_is_told_as_a_failed_launch(ray: Ray, fleet: Fleet) -> None:
    fleet.request_workers({"gpu": 5}, 0.0)
    made_, events = made(fleet, Limits(least={}, most={"cpu": 4, "gpu": 2}, total=6))
    await made_.request(order(fleet))
    assert ray.calls == [("request", {"cpu": 2, "gpu": 2})]
    assert events == [LaunchFailed(worker_type="gpu", reason="the cluster's file allows 2", coming=2)]
    await made_.close()


async def test_failed_launches_are_told_once_and_old_ones_not_at_all(ray: Ray, fleet: Fleet) -> None:
    ray.failed = [failed(at=1)]
    made_, events = made(fleet)
    await made_.turn()
    assert events == []
    ray.failed = [failed(at=1), failed(at=9)]
    await made_.turn()
    await made_.turn()
    assert events == [LaunchFailed(worker_type="cpu", reason="no capacity", coming=2)]
    await made_.close()


async def test_workers_that_others_drain_are_told_apart(ray: Ray, fleet: Fleet) -> None:
    ray.draining = {"w1": 50.0, "w2": 60.0}
    made_, _ = made(fleet)
    await made_.turn()
    await made_.release(ReleaseWorker(worker="w2", because="a test"))
    assert made_.drained_by_others() == {"w1": 50.0}
    assert made_.status()["cpu"] == {"wanted": 2, "pending": 3, "blocked": None}
    await made_.close()


async def test_a_control_store_that_is_away_is_asked_again(
    ray: Ray, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_PERIOD_S", 0.0)
    loop, looked = asyncio.get_running_loop(), asyncio.Event()
    answers = iter([ray.observe("ray:1"), ConnectionError("it restarts"), ConnectionError("it restarts")])

    def observe(address: str) -> Any:
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            loop.call_soon_threadsafe(looked.set)
        return answer or ray.observe(address)

    monkeypatch.setattr(machines, "observe", observe)
    made_, _ = made(fleet)
    await made_.start()
    await asyncio.wait_for(looked.wait(), 5)
    await made_.close()


class TestFailures:
    def test_equal_failures_are_told_apart_by_their_number(self) -> None:
        failures = Failures()
        assert failures.fresh([]) == {}
        assert failures.fresh([failed()]) == {"cpu": "no capacity"}
        assert failures.fresh([failed()]) == {}
        assert failures.fresh([failed(), failed()]) == {"cpu": "no capacity"}
        assert failures.fresh([]) == {}

    @pytest.mark.parametrize("why", [None, ""])
    def test_a_failure_without_details_tells_where_they_are(self, why: str | None) -> None:
        failures = Failures()
        failures.fresh([])
        assert "monitor.log" in failures.fresh([failed("gpu", why=why)])["gpu"]
