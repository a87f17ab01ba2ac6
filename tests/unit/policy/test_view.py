"""A router's view: which replicas it decides by, and what its reports count."""

import pytest

from infaas_ray.domain import SLO
from infaas_ray.policy.demand import Asked
from infaas_ray.policy.selection import Dispatch, Reject
from infaas_ray.policy.underway import hold, learn
from infaas_ray.policy.view import View
from tests.unit.policy.builders import offer, table, v

NET = v("net")
ANY = SLO()


def view(ready: int = 2) -> View[Asked]:
    """A view of so many ready replicas of `net`, at the time 0."""
    made: View[Asked] = View("r", 0.0, asked_of=lambda asked: asked)
    made.update(table(offer("net"), ready={NET: ready}), 0.0)
    return made


def decide(made: View[Asked], slo: SLO = ANY, target: str = "net", *, first: bool = True) -> object:
    return made.decide((target, slo, 1), target, 1, slo, 0.0, 0.0, first=first)


def test_a_query_is_counted_with_its_first_decision() -> None:
    made = view()
    for first in (True, False, False):
        assert isinstance(decide(made, first=first), Dispatch)
    made.serve(NET, 1)
    report = made.report(2.0, {"shop": {NET: 1}})
    assert (report.router, report.window_s) == ("r", 2.0)
    assert (report.wanted, report.served, report.refused) == ({NET: 1}, {NET: 1}, {})
    assert [(x.target, x.rows, x.missed) for x in report.classes] == [("net", 1, 0)]
    assert report.applications == {"shop": {NET: 1}}


def test_a_report_starts_a_new_window() -> None:
    made = view()
    decide(made)
    made.miss(("net", ANY, 1))
    assert [x.missed for x in made.report(2.0, {}).classes] == [1]
    again = made.report(3.0, {})
    assert (again.window_s, again.wanted, again.classes) == (1.0, {}, ())
    assert made.report(3.0, {}).window_s > 0


def test_what_nothing_could_answer_is_no_demand() -> None:
    made = view()
    refusal = decide(made, SLO(min_accuracy=0.99))
    assert isinstance(refusal, Reject)
    assert refusal.permanent
    report = made.report(1.0, {})
    assert (report.wanted, report.refused, report.classes) == ({}, {}, ())


def test_what_is_refused_for_lack_of_room_is_demand() -> None:
    made = view(ready=1)
    hold(made.loads[f"{NET}#1"], ANY, 1000)
    assert isinstance(decide(made, SLO(latency_s=0.02)), Reject)
    report = made.report(1.0, {})
    assert (report.wanted, report.refused) == ({NET: 1}, {NET: 1})
    assert report.ongoing == {NET: 1000}


def test_keys_that_ask_the_same_are_one_class() -> None:
    made: View[str] = View("r", 0.0, asked_of=lambda key: ("net", ANY, 1))
    made.update(table(offer("net"), ready={NET: 1}), 0.0)
    for key in ("one", "other", "one"):
        made.decide(key, "net", 1, ANY, 0.0, 0.0, first=True)
    made.miss("other")
    assert [(x.rows, x.missed) for x in made.report(1.0, {}).classes] == [(3, 1)]


def test_a_lost_replica_is_left_out_until_it_is_found() -> None:
    made = view()
    assert made.lose(f"{NET}#1")
    assert not made.lose(f"{NET}#1")
    assert [x.id for x in made.replicas] == [f"{NET}#2"]
    assert [x.id for x in made.lost()] == [f"{NET}#1"]
    made.update(table(offer("net"), ready={NET: 2}), 1.0)
    assert [x.id for x in made.replicas] == [f"{NET}#2"]
    assert made.find(f"{NET}#1")
    assert not made.find(f"{NET}#1")
    assert len(made.replicas) == 2


def test_a_lost_replica_that_leaves_the_table_is_forgotten() -> None:
    made = view()
    made.lose(f"{NET}#2")
    made.update(table(offer("net"), ready={NET: 1}), 1.0)
    made.update(table(offer("net"), ready={NET: 2}), 2.0)
    assert len(made.replicas) == 2


def test_the_load_of_a_replica_that_left_stays_until_its_last_answer() -> None:
    made = view()
    hold(made.loads[f"{NET}#2"], ANY, 3)
    made.update(table(offer("net"), ready={}), 1.0)
    made.report(1.0, {})
    assert set(made.loads) == {f"{NET}#2"}
    hold(made.loads[f"{NET}#2"], ANY, -3)
    made.report(2.0, {})
    assert made.loads == {}


def test_replicas_slower_than_profiled_are_reported_and_named() -> None:
    made = view()
    for _ in range(100):
        learn(made.loads[f"{NET}#1"], 0, 1.0, 0.25)
    assert made.report(1.0, {}).slowdowns == {f"{NET}#1": pytest.approx(4.0, rel=0.01)}
    assert made.conditions() == {f"{NET}#1": "interfered"}


def test_a_silent_way_is_forgotten_by_and_by() -> None:
    made = view()
    for _ in range(200):
        made.way.learn(0.01)
    before_s = made.way.high_s
    made.serve(NET, 1)
    made.report(1.0, {})
    assert made.way.high_s == before_s
    made.report(2.0, {})
    assert made.way.high_s < before_s


def test_what_a_replica_would_take_is_not_counted() -> None:
    made = view()
    assert made.takes("net", 1, ANY)
    assert not made.takes("net", 1, SLO(latency_s=0.001))
    assert [x.variant for x in made.explain("net", 1, ANY, 0.0)] == [NET]
    assert made.report(1.0, {}).wanted == {}
