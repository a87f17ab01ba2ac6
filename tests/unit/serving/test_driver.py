"""What a driver is given, before anything is sent."""

import numpy as np
import pytest

from infaas_ray.errors import InvalidInput
from infaas_ray.serving.driver import System, make_slo


@pytest.mark.parametrize(
    ("inputs", "options", "says"),
    [
        ({"x": [1.0]}, {}, "'x' must be a NumPy array"),
        ({"x": np.float32(1.0)}, {}, "'x' must be a NumPy array"),
        ({"x": np.zeros((3, 1)), "y": np.zeros((2, 1))}, {}, "same number of rows"),
        ({"x": np.zeros((3, 1))}, {"rows_per_query": 2}, "3 rows do not make whole queries of 2"),
        ({"x": np.zeros((3, 1))}, {"window": 1.5}, "window must be a number of messages"),
        ({"x": np.zeros((3, 1))}, {"latency_ms": True}, "latency must be a number"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_sent(
    inputs: dict[str, object], options: dict[str, float], says: str
) -> None:
    system = System.__new__(System)  # without connections: nothing is to be sent
    with pytest.raises(InvalidInput, match=says):
        list(system.query_many("digits", inputs, **options))


def test_milliseconds_are_seconds() -> None:
    assert make_slo(20, 0.5, None, "late").latency_s == 0.02
