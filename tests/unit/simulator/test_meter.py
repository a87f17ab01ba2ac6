import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.simulator.meter import Histogram, Levels


@given(st.lists(st.floats(1e-5, 1e4), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_quantiles_are_right_within_half_a_percent(values: list[float], share: float) -> None:
    found = Histogram()
    for x in values:
        found.add(x)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert found.quantile_s(share) == pytest.approx(exact, rel=0.0051)
    assert found.mean_s == pytest.approx(np.mean(values))


def test_nothing_counted_has_no_quantile() -> None:
    assert (Histogram().quantile_s(0.5), Histogram().mean_s) == (None, None)


def test_levels_add_up_over_time_and_by_bin() -> None:
    levels = Levels(10.0, 30.0, 2)
    levels.change("a", 2, 5.0)  # before the beginning counts from the beginning
    levels.change("a", -1, 15.0)
    levels.change("b", 1, 25.0)
    levels.end(50.0)  # and after the end not at all
    assert levels.hours() == pytest.approx({"a": (2 * 5 + 15) / 3600, "b": 5 / 3600})
    assert levels.series() == {"a": [1.5, 1.0], "b": [0.0, 0.5]}


changes = st.lists(st.tuples(st.floats(0, 40), st.sampled_from([-1, 1, 2])), max_size=10)


@given(changes, st.integers(1, 7))
def test_bins_hold_what_passes_in_all(found: list[tuple[float, int]], bins: int) -> None:
    levels = Levels(10.0, 30.0, bins)
    expected, level, last = 0.0, 0, 0.0
    for at, by in [*sorted(found), (40.0, 0)]:
        expected += level * max(0.0, min(30.0, at) - max(10.0, last))
        levels.change("a", by, at)
        level, last = level + by, at
    assert levels.hours().get("a", 0.0) * 3600 == pytest.approx(expected)
    assert sum(levels.series()["a"]) * 20.0 / bins == pytest.approx(expected)
