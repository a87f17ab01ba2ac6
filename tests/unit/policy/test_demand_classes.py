"""Head room that is learned from what was missed."""

import pytest

from infaas_ray.domain import OnMiss
from infaas_ray.policy.demand_classes import Demanded, Key
from infaas_ray.policy.forecast import Forecast


def judged(known: Demanded, missed: float, times: int = 1) -> float:
    """The head room after so many times a thousand queries of which so many missed their SLO."""
    for _ in range(times):
        known.queries, known.missed = 1000.0, missed
        known.judge()
    return known.room


@pytest.fixture
def known() -> Demanded:
    key = Key("digits", 0.1, None, None, OnMiss.REJECT, 1)
    return Demanded(key, Forecast(0.7, 0.0), 1.0)


def test_misses_raise_it_and_none_lower_it_but_never_below_what_theory_says(known: Demanded) -> None:
    assert judged(known, missed=0.0, times=50) == 1.0
    raised = judged(known, missed=30.0)
    assert raised == pytest.approx(1.5)
    assert 1.0 < judged(known, missed=0.0) < raised
    assert judged(known, missed=0.0, times=100) == 1.0


def test_it_has_a_limit_and_few_queries_say_nothing(known: Demanded) -> None:
    assert judged(known, missed=900.0, times=100) == 4.0
    known.queries, known.missed = 100.0, 0.0
    known.judge()
    assert (known.room, known.queries) == (4.0, 100.0)
