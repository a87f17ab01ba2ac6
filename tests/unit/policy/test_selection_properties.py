"""What holds for every table, load and query."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.candidates import MAX_QUEUE_S, finish_s, quickest
from infaas_ray.policy.selection import Dispatch, Load, Reject, ReplicaLoad, SelectionIndex, explain, select
from tests.unit.policy.builders import USE_CASE, offer, table

_ms = st.floats(0.5, 500)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[SelectionIndex, dict[str, ReplicaLoad]]:
    offers = []
    for n in range(draw(st.integers(1, 5))):
        one = draw(_ms)
        offers.append(
            offer(
                f"net{n}",
                usd=draw(st.sampled_from([0.01, 0.02, 0.05])),
                accuracy=draw(st.sampled_from([0.6, 0.8, 0.9, 0.99])),
                p99_ms=((1, one), (8, one * draw(st.floats(1, 8)))),
                load_s=draw(st.floats(0, 5)),
                rate_qps=draw(st.floats(1, 2000)),
            )
        )
    names = [x.name for x in offers]
    ready = {x: draw(st.integers(0, 2)) for x in names}
    unready = [x for x in names if not ready[x]]
    loading = {x: draw(st.floats(0, 5)) for x in unready if draw(st.booleans())}
    blocked = {x: "no room" for x in names if x not in loading and draw(st.booleans())}
    made = SelectionIndex(table(*offers, ready=ready, loading=loading, blocked=blocked))
    load = st.builds(ReplicaLoad, st.integers(0, 5000), st.floats(0.5, 5))
    loads = {x.id: draw(load) for x in made.table.replicas if draw(st.booleans())}
    loads |= {x: draw(load) for x in unready if draw(st.booleans())}
    return made, loads


slos = st.builds(
    SLO,
    latency_s=st.none() | st.floats(0.0005, 10),
    min_accuracy=st.none() | st.sampled_from([0.5, 0.85, 0.99, 1.0]),
    max_usd_per_1k=st.none() | st.sampled_from([0.005, 0.02, 0.1]),
    on_miss=st.sampled_from(OnMiss),
)
rows = st.integers(1, 40)


@given(worlds(), slos, rows, st.floats(0, 2))
def test_a_dispatch_keeps_what_the_query_insists_on(
    world: tuple[SelectionIndex, dict[str, ReplicaLoad]], slo: SLO, rows: int, waited_s: float
) -> None:
    index, loads = world
    found = select(USE_CASE, rows, slo, index, loads, waited_s)
    if isinstance(found, Reject):
        return
    chosen = index.offer(found.variant)
    left = inf if slo.latency_s is None else slo.latency_s - waited_s
    assert slo.max_usd_per_1k is None or chosen.usd_per_1k <= slo.max_usd_per_1k
    assert found.expected_s <= left or slo.on_miss is OnMiss.LATE
    degraded = slo.min_accuracy is not None and chosen.accuracy < slo.min_accuracy
    assert not degraded or slo.on_miss is OnMiss.DEGRADE
    if isinstance(found, Dispatch):
        assert found.degraded == degraded
        assert found.replica in {x.id for x in index.table.replicas if x.variant == found.variant}
        load = loads.get(found.replica, ReplicaLoad())
        assert load.rows_in_flight / chosen.profile.saturation_qps * load.slowdown <= MAX_QUEUE_S
    else:
        assert found.variant not in index.table.blocked


@given(worlds(), slos, rows)
def test_a_dispatch_is_the_cheapest_that_could_meet_the_slo(
    world: tuple[SelectionIndex, dict[str, ReplicaLoad]], slo: SLO, rows: int
) -> None:
    index, loads = world
    bound = inf if slo.latency_s is None else slo.latency_s
    able = [
        (x.usd_per_1k, quickest(x, rows, loads)[0])
        for x in index.shortlist(USE_CASE).ready
        if x.accuracy >= (slo.min_accuracy or 0)
        and x.usd_per_1k <= (slo.max_usd_per_1k or inf)
        and x.latency_s(rows) <= bound
        and quickest(x, rows, loads)[0] <= bound
        and quickest(x, rows, loads)[1]
    ]
    found = select(USE_CASE, rows, slo, index, loads)
    if able:
        assert isinstance(found, Dispatch)
        assert index.offer(found.variant).usd_per_1k == min(able)[0]
    elif isinstance(found, Dispatch):
        assert slo.on_miss is not OnMiss.REJECT


@given(worlds(), slos, rows, st.floats(0, 2))
def test_the_explanation_agrees_with_the_choice(
    world: tuple[SelectionIndex, dict[str, ReplicaLoad]], slo: SLO, rows: int, waited_s: float
) -> None:
    index, loads = world
    found = select(USE_CASE, rows, slo, index, loads, waited_s)
    verdicts = explain(USE_CASE, rows, slo, index, loads, waited_s=waited_s)
    assert {x.variant for x in verdicts} == set(index.table.catalog.offers)
    chosen = [x for x in verdicts if x.chosen]
    if isinstance(found, Dispatch | Load):
        assert [x.variant for x in chosen] == [found.variant]
        assert chosen[0].expected_ms is not None
        assert abs(chosen[0].expected_ms - found.expected_s * 1e3) < 1e-6
        assert chosen[0].why.startswith("chosen")
    else:
        assert not chosen
        assert found.tell().reasons == {x.variant: x.why for x in verdicts}
        assert all(x.why != "could answer" for x in verdicts)


@given(worlds(), slos, rows)
def test_a_permanent_refusal_can_be_healed_by_its_nearest_slo_and_another_cannot_be_permanent(
    world: tuple[SelectionIndex, dict[str, ReplicaLoad]], slo: SLO, rows: int
) -> None:
    index, loads = world
    found = select(USE_CASE, rows, slo, index, loads)
    if not isinstance(found, Reject):
        return
    if not found.permanent:
        assert found.retry_after_s > 0
        assert found.load is None or found.load == found.wanted
        return
    near = found.tell().nearest
    healed = SLO(
        latency_s=near["latency_ms"] / 1e3 if slo.latency_s is not None else None,
        min_accuracy=near["min_accuracy"] if slo.min_accuracy is not None else None,
        max_usd_per_1k=near["max_usd_per_1k"] if slo.max_usd_per_1k is not None else None,
        on_miss=slo.on_miss,
    )
    again = select(USE_CASE, rows, healed, index, loads)
    assert not (isinstance(again, Reject) and again.permanent)


@given(worlds(), rows, st.integers(0, 1000), st.integers(0, 1000), st.floats(0.5, 5))
def test_more_work_ahead_is_never_faster(
    world: tuple[SelectionIndex, dict[str, ReplicaLoad]], rows: int, less: int, more: int, slowdown: float
) -> None:
    index, _ = world
    candidate = index.shortlist(USE_CASE).every[0]
    low, high = sorted((less, more))
    one, other = (finish_s(candidate, rows, ReplicaLoad(x, slowdown)) for x in (low, high))
    assert one <= other + 1e-12
