"""Refusals: for good or for now, the words, the nearest SLO, and when to come again."""

import pytest

from infaas_ray.domain import SLO
from infaas_ray.policy.selection import Reject, ReplicaLoad, SelectionIndex, select
from tests.unit.policy.builders import USE_CASE, offer, table, v

SMALL = offer("small", usd=0.01, accuracy=0.80, p99_ms=((1, 5), (8, 12)))
LARGE = offer("large", usd=0.03, accuracy=0.97, p99_ms=((1, 40), (8, 90)))
READY = {v("small"): 1, v("large"): 1}


def refuse(slo: SLO, index: SelectionIndex, loads: dict[str, ReplicaLoad] | None = None, rows: int = 1) -> Reject:
    found = select(USE_CASE, rows, slo, index, loads or {})
    assert isinstance(found, Reject)
    return found


def index(**kwargs: object) -> SelectionIndex:
    return SelectionIndex(table(SMALL, LARGE, **kwargs))  # type: ignore[arg-type]


def test_a_permanent_refusal_says_what_was_asked_why_not_and_what_would_do() -> None:
    found = refuse(SLO(latency_s=0.010, min_accuracy=0.9), index(ready=READY))
    assert found.permanent
    assert found.tell().message == (
        "no variant of 'classification:digits' meets latency <= 10 ms and accuracy >= 0.9; "
        "the nearest that can be met: latency 40 ms, accuracy 0.9"
    )
    assert found.tell().reasons == {
        v("small"): "accuracy 0.8 is below 0.9",
        v("large"): "takes 40 ms for 1 row; the bound is 10 ms",
    }
    assert (found.retry_after_s, found.load, found.wanted) == (0.0, None, None)


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        # latency goes first: the least at the asked accuracy
        (SLO(latency_s=0.010, min_accuracy=0.9), {"latency_ms": 40.0, "min_accuracy": 0.9}),
        (SLO(latency_s=0.001), {"latency_ms": 5.0}),
        # no variant is so accurate: the best in time
        (SLO(latency_s=0.050, min_accuracy=0.99), {"latency_ms": 50.0, "min_accuracy": 0.97}),
        (SLO(latency_s=0.010, min_accuracy=0.99), {"latency_ms": 10.0, "min_accuracy": 0.8}),
        # none is so cheap: the cheapest that keeps the rest
        (SLO(latency_s=0.050, max_usd_per_1k=0.001), {"latency_ms": 50.0, "max_usd_per_1k": 0.01}),
        (SLO(min_accuracy=0.9, max_usd_per_1k=0.02), {"min_accuracy": 0.8, "max_usd_per_1k": 0.02}),
        # two bounds have to go
        (
            SLO(latency_s=0.010, min_accuracy=0.9, max_usd_per_1k=0.001),
            {"latency_ms": 40.0, "min_accuracy": 0.9, "max_usd_per_1k": 0.03},
        ),
        # all have to go
        (
            SLO(latency_s=0.001, min_accuracy=0.99, max_usd_per_1k=0.001),
            {"latency_ms": 5.0, "min_accuracy": 0.8, "max_usd_per_1k": 0.01},
        ),
    ],
)
def test_the_nearest_slo_gives_up_as_little_as_possible(slo: SLO, expected: dict[str, float]) -> None:
    assert refuse(slo, index(ready=READY)).tell().nearest == pytest.approx(expected, rel=1e-3)


def test_the_nearest_slo_is_one_that_can_be_loaded() -> None:
    blocked = {v("small"): "its file is corrupt"}
    assert refuse(SLO(latency_s=0.001), index(blocked=blocked)).tell().nearest["latency_ms"] == pytest.approx(
        40, rel=1e-3
    )
    both = blocked | {v("large"): "its file is corrupt"}
    assert refuse(SLO(latency_s=0.001), index(blocked=both)).tell().nearest["latency_ms"] == pytest.approx(5, rel=1e-3)


def test_rows_are_named() -> None:
    found = refuse(SLO(latency_s=0.001), index(ready=READY), rows=4)
    assert "for 4 rows" in found.tell().message
    assert found.tell().reasons[v("small")] == "takes 8 ms for 4 rows; the bound is 1 ms"


def test_a_busy_system_tells_when_the_backlog_will_be_short_enough() -> None:
    loads = {v("small") + "#1": ReplicaLoad(100), v("large") + "#1": ReplicaLoad(50)}
    found = refuse(SLO(latency_s=0.1), index(ready=READY), loads)
    assert not found.permanent
    assert found.tell().nearest == {}
    assert found.retry_after_s == pytest.approx(50 / (8 / 0.090) + 0.090 - 0.1)
    assert found.tell().message == (
        f"no replica of 'classification:digits' can meet latency <= 100 ms now: {v('small')}: "
        "busy: would answer in 1.01 s; the bound leaves 100 ms; try again in 552 ms"
    )
    assert (found.wanted, found.load) == (v("small"), None)


def test_a_query_whose_time_has_passed_could_be_taken_afresh_at_once() -> None:
    found = select(USE_CASE, 1, SLO(latency_s=0.1), index(ready=READY), {}, waited_s=0.2)
    assert isinstance(found, Reject)
    assert not found.permanent
    assert found.retry_after_s == pytest.approx(0.01)


def test_a_cold_system_asks_for_the_load_that_helps() -> None:
    found = refuse(SLO(latency_s=0.1), index())
    assert (found.load, found.wanted, found.permanent) == (v("small"), v("small"), False)
    assert found.retry_after_s == pytest.approx(1.0)
    assert refuse(SLO(latency_s=0.1), index(loading={v("small"): 0.4})).retry_after_s == pytest.approx(0.4)


def test_a_blocked_system_is_not_hopeless() -> None:
    found = refuse(SLO(), index(blocked={v("small"): "no room", v("large"): "no room"}))
    assert (found.permanent, found.load, found.wanted) == (False, None, None)
    assert found.retry_after_s == pytest.approx(2.0)
    assert "can take it now" in found.tell().message
    assert "cannot be loaded now: no room" in found.tell().message


def test_replicas_slower_than_their_profile_get_time_to_recover() -> None:
    loads = {v("small") + "#1": ReplicaLoad(0, slowdown=100.0)}
    found = refuse(SLO(latency_s=0.1), SelectionIndex(table(SMALL, ready={v("small"): 1})), loads)
    assert not found.permanent
    assert found.retry_after_s == pytest.approx(2.0)


def test_reasons_are_limited_where_candidates_are_many() -> None:
    many = [offer(f"net{n}", accuracy=0.5, usd=0.01 + n / 1000) for n in range(100)]
    found = refuse(SLO(min_accuracy=0.9), SelectionIndex(table(*many)))
    assert len(found.tell().reasons) == 32
    assert v("net0") in found.tell().reasons
