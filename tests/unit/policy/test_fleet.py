"""The books: lifecycles, resources, late facts, and what routers are told."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.errors import InvalidInput
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import ENDS, TRANSITIONS, State
from infaas_ray.policy.messages import (
    CatalogChanged,
    Event,
    LoadRequested,
    ReplicaDied,
    ReplicaDrained,
    ReplicaFailed,
    ReplicaReady,
    ReplicaStopped,
    WorkerLost,
    WorkerReported,
)
from infaas_ray.policy.placement import Crowd, Rooms, fits, place
from tests.unit.policy.builders import MIB, catalog, offer, ready, traffic, v, worker

NET = v("net")


def fleet(*events: Event) -> Fleet:
    made = Fleet(oversubscription=4.0)
    for event in (CatalogChanged(catalog=catalog(offer(load_s=2.0))), worker(cpu=1.0), *events):
        assert made.apply(event, 0.0) is None
    return made


def failed(replica: str, permanent: bool = False) -> ReplicaFailed:
    return ReplicaFailed(replica=replica, variant=replica.rpartition("#")[0], reason="no file", permanent=permanent)


class TestLifecycle:
    def test_a_whole_life(self) -> None:
        made = fleet()
        name = made.request_start(NET, "w1", 0.0)
        assert name == NET + "#1"
        states = [made.replicas[name].state]
        assert made.apply(ready(name), 1.0) is None
        states.append(made.replicas[name].state)
        assert made.request_drain(name, 2.0)
        states.append(made.replicas[name].state)
        assert made.apply(ReplicaDrained(replica=name), 3.0) is None
        assert made.replicas[name].drained
        assert made.request_stop(name, 3.0)
        states.append(made.replicas[name].state)
        assert made.apply(ReplicaStopped(replica=name), 4.0) is None
        assert states == [State.STARTING, State.READY, State.DRAINING, State.STOPPING]
        assert made.replicas == {}
        assert made.take_lost() == []

    def test_every_living_state_can_be_lost_with_its_worker_and_no_end_is_left(self) -> None:
        living = [x for x in State if x not in ENDS]
        assert all(TRANSITIONS[state, WorkerLost] is State.LOST for state in living)
        assert not [state for state, _ in TRANSITIONS if state in ENDS]

    def test_a_ready_replica_is_drained_before_it_is_stopped(self) -> None:
        made = fleet(ready(NET + "#1"))
        assert not made.request_stop(NET + "#1", 1.0)
        assert made.request_drain(NET + "#1", 1.0)
        assert not made.request_drain(NET + "#1", 1.0)

    def test_a_new_address_is_taken_over(self) -> None:
        made = fleet(ready(NET + "#1"))
        again = ReplicaReady(replica=NET + "#1", variant=NET, worker="w1", address="other")
        assert made.apply(again, 1.0) is None
        assert made.replicas[NET + "#1"].address == "other"

    def test_unasked_ends_are_told_once(self) -> None:
        made = fleet(ready(NET + "#1"), ready(NET + "#2"))
        assert made.apply(ReplicaDied(replica=NET + "#1"), 20.0) is None
        assert made.apply(WorkerLost(worker="w1"), 20.0) is None
        assert made.take_lost() == [NET, NET]
        assert made.take_lost() == []
        assert (made.replicas, made.workers) == ({}, {})


class TestLateFacts:
    @pytest.mark.parametrize(
        ("event", "reason"),
        [
            (ready(NET + "#1"), "is stopped already"),
            (ReplicaDied(replica=NET + "#1"), "which is stopped"),
            (ReplicaDrained(replica="x#9"), "which is unknown"),
            (WorkerLost(worker="w9"), "unknown worker 'w9'"),
            (WorkerReported(worker="w9", cpu_share=0, memory_share=0), "unknown worker 'w9'"),
            (ready(NET + "#5", worker="w9"), "unknown worker 'w9'"),
            (ReplicaReady(replica=NET + "#2", variant="other", worker="w1", address=""), "is booked as"),
            (ReplicaDrained(replica=NET + "#2"), "which is ready"),
            (failed(NET + "#2"), "which is ready"),
        ],
    )
    def test_they_are_refused_with_a_reason_and_change_nothing(self, event: Event, reason: str) -> None:
        made = fleet(ready(NET + "#1"), ready(NET + "#2"))
        made.request_drain(NET + "#1", 1.0)
        made.request_stop(NET + "#1", 1.0)
        made.apply(ReplicaStopped(replica=NET + "#1"), 1.0)
        before = made.routing_table(1, 2.0)
        refusal = made.apply(event, 2.0)
        assert refusal is not None
        assert reason in refusal
        assert made.routing_table(1, 2.0) == before

    def test_what_is_not_about_the_fleet_is_passed_over(self) -> None:
        made = fleet()
        assert made.apply(traffic({NET: 1}), 1.0) is None
        assert made.apply(LoadRequested(variant=NET), 1.0) is None
        assert made.replicas == {}


class TestAdoption:
    def test_living_replicas_are_taken_over_and_numbers_go_on_after_them(self) -> None:
        made = fleet(ready(NET + "#7"), ready(NET + "#3"))
        assert made.request_start(NET, "w1", 1.0) == NET + "#8"

    def test_one_of_an_unknown_variant_gets_its_needs_when_the_catalogue_comes(self) -> None:
        made = fleet(ready(v("later") + "#1"))
        assert made.workers["w1"].room().free["CPU"] == 1.0
        made.apply(CatalogChanged(catalog=catalog(offer("later"))), 1.0)
        assert made.workers["w1"].room().free["CPU"] == 0.75

    def test_more_than_fits_leaves_nothing_free_rather_than_less(self) -> None:
        made = fleet(*(ready(f"{NET}#{n}") for n in range(1, 8)))
        assert made.workers["w1"].room().free["CPU"] == 0.0


class TestResources:
    def test_replicas_occupy_until_they_are_gone(self) -> None:
        made = fleet()
        name = made.request_start(NET, "w1", 0.0)
        room = made.workers["w1"].room()
        assert room.free["CPU"] == 0.75
        assert room.free_memory_bytes == 8 * 2**30 - 100 * MIB
        made.apply(ready(name), 1.0)
        made.request_drain(name, 1.0)
        made.request_stop(name, 1.0)
        assert made.workers["w1"].room().free["CPU"] == 0.75
        made.apply(ReplicaStopped(replica=name), 2.0)
        assert made.workers["w1"].room().free["CPU"] == 1.0

    def test_what_does_not_fit_or_is_unknown_is_not_booked(self) -> None:
        made = fleet(*(ready(f"{NET}#{n}") for n in range(1, 5)))
        for variant, on, reason in ((NET, "w1", "no room"), (NET, "w9", "unknown"), ("x", "w1", "unknown")):
            with pytest.raises(InvalidInput, match=reason):
                made.request_start(variant, on, 1.0)
        assert len(made.replicas) == 4

    def test_a_worker_may_join_again_with_other_resources(self) -> None:
        made = fleet(ready(NET + "#1"))
        assert made.apply(worker(cpu=2.0), 1.0) is None
        assert made.workers["w1"].room().free["CPU"] == 1.75

    def test_a_busy_worker_is_known_as_busy(self) -> None:
        made = fleet(WorkerReported(worker="w1", cpu_share=0.95, memory_share=0.2))
        assert made.workers["w1"].room().busy


class TestFailedStarts:
    def made(self, permanent: bool = False) -> Fleet:
        """Of two equal workers the first is taken, and there the start fails."""
        made = fleet(worker("w2", cpu=1.0))
        assert made.place(NET).worker == "w1"
        made.apply(failed(made.request_start(NET, "w1", 0.0), permanent), 1.0)
        return made

    def test_the_next_try_is_elsewhere_while_there_is_room(self) -> None:
        made = self.made()
        assert made.place(NET).worker == "w2"
        for _ in range(4):
            made.request_start(NET, "w2", 2.0)
        assert made.place(NET).worker == "w1"

    def test_where_all_failed_they_take_turns(self) -> None:
        made = self.made()
        made.apply(ReplicaDied(replica=made.request_start(NET, "w2", 2.0)), 3.0)
        assert made.place(NET).worker == "w1"
        made.apply(failed(made.request_start(NET, "w1", 5.0)), 6.0)
        assert made.place(NET).worker == "w2"

    def test_what_cannot_heal_is_not_held_against_the_worker(self) -> None:
        assert self.made(permanent=True).place(NET).worker == "w1"

    @pytest.mark.parametrize(
        "events",
        [
            (ready(NET + "#2"),),
            (WorkerLost(worker="w1"), worker(cpu=1.0)),
            (CatalogChanged(catalog=catalog(offer())),),
        ],
    )
    def test_it_is_forgotten_when_it_may_start_there_again(self, events: Sequence[Event]) -> None:
        made = self.made()
        for event in events:
            assert made.apply(event, 2.0) is None
        assert made.blocks.failed_on(NET) == {}

    def test_another_start_that_succeeds_there_has_it_forgotten(self) -> None:
        made = self.made()
        made.apply(ready(made.request_start(NET, "w1", 2.0)), 3.0)
        assert made.blocks.failed_on(NET) == {}


class TestRoutingTable:
    def test_it_holds_the_ready_and_the_first_load_of_the_others(self) -> None:
        made = fleet()
        first = made.request_start(NET, "w1", 0.0)
        made.request_start(NET, "w1", 1.0)
        assert made.routing_table(1, 1.5).loading == {NET: pytest.approx(0.5)}
        made.apply(ready(first), 2.0)
        found = made.routing_table(7, 2.0)
        assert (found.version, [x.id for x in found.replicas], found.loading) == (7, [first], {})
        made.request_drain(first, 3.0)
        assert made.routing_table(8, 3.0).replicas == ()

    def test_a_late_load_is_not_promised_for_now(self) -> None:
        made = fleet()
        made.request_start(NET, "w1", 0.0)
        assert made.routing_table(1, 9.0).loading == {
            NET: pytest.approx(2 * 1.5**4 + 0.1 * (1 + 1.5 + 1.5**2 + 1.5**3) - 9)
        }

    def test_starts_are_expected_to_take_what_they_took_here(self) -> None:
        made = fleet()
        made.apply(ready(made.request_start(NET, "w1", 0.0)), 6.0)
        assert made.start_s(NET) == 6.0
        assert made.ready_in_s(NET, 7.0) is None

    def test_blocked_variants_are_named_while_they_are(self) -> None:
        made = fleet()
        made.apply(failed(made.request_start(NET, "w1", 0.0)), 1.0)
        assert "no file" in made.routing_table(1, 1.5).blocked[NET]
        assert made.routing_table(1, 2.5).blocked == {}
        made.apply(failed(made.request_start(NET, "w1", 3.0), permanent=True), 4.0)
        assert NET in made.routing_table(1, 1e6).blocked
        made.apply(CatalogChanged(catalog=catalog(offer())), 5.0)
        assert made.routing_table(1, 5.0).blocked == {}

    def test_replicas_that_die_early_one_after_the_other_block_and_those_that_served_do_not(self) -> None:
        made = fleet(ready(NET + "#1"), ready(NET + "#2"))
        for name in ("#1", "#2"):
            made.apply(ReplicaDied(replica=NET + name), 60.0)
        for now in (60.0, 62.0):
            name = made.request_start(NET, "w1", now)
            made.apply(ReplicaReady(replica=name, variant=NET, worker="w1", address="a"), now + 1)
            assert made.blocks.reason(NET, now + 1) is None
            made.apply(ReplicaDied(replica=name), now + 1)
        assert made.blocks.reason(NET, 63.0) is not None

    def test_a_death_while_starting_blocks(self) -> None:
        made = fleet()
        made.apply(ReplicaDied(replica=made.request_start(NET, "w1", 0.0)), 1.0)
        assert "its process died" in str(made.blocks.reason(NET, 1.0))

    def test_what_dies_with_its_worker_blocks_nothing_be_the_loss_noticed_later(self) -> None:
        made = fleet()
        first, second = (made.request_start(NET, "w1", 0.0) for _ in range(2))
        for name in (first, second):
            made.apply(ReplicaReady(replica=name, variant=NET, worker="w1", address="a"), 1.0)
        for name in (first, second):
            made.apply(ReplicaDied(replica=name), 3.0)
        assert made.blocks.reason(NET, 3.0) is None
        made.apply(failed(made.request_start(NET, "w1", 3.5)), 4.0)
        assert made.blocks.reason(NET, 4.0) is not None
        made.apply(WorkerLost(worker="w1"), 4.5)
        assert made.blocks.reason(NET, 4.5) is None


_ids = st.sampled_from([f"{v(a)}#{n}" for a in ("net", "other") for n in (1, 2, 3)])
_workers = st.sampled_from(["w1", "w2"])
events = st.one_of(
    st.builds(worker, _workers, cpu=st.sampled_from([0.25, 1.0]), memory_bytes=st.sampled_from([150 * MIB, 2**30])),
    st.builds(lambda name: WorkerLost(worker=name), _workers),
    st.builds(ready, _ids, _workers),
    st.builds(failed, _ids, st.booleans()),
    st.builds(lambda name: ReplicaDied(replica=name), _ids),
    st.builds(lambda name: ReplicaDrained(replica=name), _ids),
    st.builds(lambda name: ReplicaStopped(replica=name), _ids),
    st.sampled_from(
        [CatalogChanged(catalog=catalog(offer(), offer("other"))), CatalogChanged(catalog=catalog(offer()))]
    ),
)
orders = st.tuples(st.sampled_from(["start", "drain", "stop", "leave"]), _ids, _workers)


@given(st.lists(events | orders, max_size=30))
def test_any_sequence_of_facts_and_orders_keeps_the_books_in_order(
    moves: Sequence[Event | tuple[str, str, str]],
) -> None:
    made = Fleet(oversubscription=4.0)
    seen: dict[str, State] = {}
    for now, move in enumerate(moves):
        match move:
            case ("start", name, on):
                variant = name.rpartition("#")[0]
                known = variant in made.catalog.offers and on in made.workers
                if known and not made.workers[on].leaving and fits(made.needs(variant), made.workers[on].room()):
                    assert made.request_start(variant, on, now) not in seen
            case ("drain", name, _):
                made.request_drain(name, now)
            case ("leave", _, on):
                made.request_leave(on)
            case ("stop", name, _):
                made.request_stop(name, now)
            case event:
                made.apply(event, now)  # type: ignore[arg-type]
        seen |= {x.id: x.state for x in made.replicas.values()}
        check(made)


def check(made: Fleet) -> None:
    for name, replica in made.replicas.items():
        assert replica.id == name
        assert replica.state not in ENDS
        assert made.workers[replica.worker].replicas[name] is replica
        assert made.of(replica.variant, replica.state)
    assert sum(len(x.replicas) for x in made.workers.values()) == len(made.replicas)
    for on in made.workers.values():
        room = on.room()
        assert all(0 <= room.free[x] <= on.resources[x] for x in on.resources)
        assert 0 <= room.free_memory_bytes <= on.memory_bytes
        assert room == on.room_without(lambda _: False)
        assert on.room_soon() == on.room_without(lambda x: x.state in (State.DRAINING, State.STOPPING))
    for variant in made.catalog.offers:
        rooms = Rooms([x.room() for x in made.workers.values() if not x.leaving])
        siblings = Counter(x.worker for x in made.of(variant, State.STARTING, State.READY))
        crowd = Crowd(siblings=siblings, failures=made.blocks.failed_on(variant))
        assert made.place(variant) == place([(made.needs(variant), rooms)], crowd)
        assert set(crowd.failures) <= set(made.workers)
    offers = made.catalog.offers
    unsettled = [
        x for x in made.replicas.values() if x.drained or x.variant not in offers or made.workers[x.worker].leaving
    ]
    assert [x for x in made.unsettled() if x.state is not State.STOPPING] == [
        x for x in unsettled if x.state is not State.STOPPING
    ]
    table = made.routing_table(1, 100.0)
    assert [x.id for x in table.replicas] == [
        x.id for x in made.replicas.values() if x.state is State.READY and x.variant in offers
    ]
    assert {x.address for x in table.replicas} == {made.replicas[x.id].address for x in table.replicas}
    assert {x.id for x in table.replicas} <= set(made.replicas)
    assert not {x.variant for x in table.replicas} & set(table.loading)
