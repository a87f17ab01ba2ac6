"""The written-out search for the quickest replica finds what the plain estimate finds."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.policy.candidates import ReplicaLoad, SelectionIndex, finish_s, quickest
from tests.unit.policy.builders import offer, table, v

loads = st.builds(
    ReplicaLoad,
    rows_in_flight=st.integers(0, 30),
    slowdown=st.floats(0.5, 10.0),
    rows_elsewhere=st.integers(0, 5),
    rows_offline=st.integers(0, 3),
)
curves = st.sampled_from(
    [((1, 10.0),), ((1, 10.0), (8, 24.0)), ((1, 30.0), (4, 20.0), (8, 60.0))]  # the last one is not monotonic
)


@given(curves, st.lists(loads, min_size=0, max_size=8), st.integers(1, 20), st.booleans(), st.floats(0.2, 200.0))
def test_as_the_plain_estimate(curve, found, rows, offline, rate_qps) -> None:  # type: ignore[no-untyped-def]
    index = SelectionIndex(table(offer("net", p99_ms=curve, rate_qps=rate_qps), ready={v("net"): len(found)}))
    [candidate] = index.shortlist("net").every
    known = dict(zip(candidate.replicas, found, strict=True))
    expected, who = inf, ""
    for replica in candidate.replicas:
        one = finish_s(candidate, rows, known[replica], offline)
        if one < expected:
            expected, who = one, replica
    assert quickest(candidate, rows, known, offline) == (expected, who)


def test_a_queue_is_as_long_as_its_batches_take_measured_against_their_p99() -> None:
    """Batches that take 12 ms, half of their p99: 8 rows each, so 80 rows ahead take 120 ms."""
    index = SelectionIndex(table(offer("net", rate_qps=8 / 0.012), ready={v("net"): 1}))
    [candidate] = index.shortlist("net").every
    expected = finish_s(candidate, 1, ReplicaLoad(rows_in_flight=80, slowdown=0.5))
    assert expected == pytest.approx(0.120 + 0.012)
