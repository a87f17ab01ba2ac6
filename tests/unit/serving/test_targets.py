"""Queries are checked against what their target takes."""

import numpy as np
import pytest

from infaas_ray.domain import SLO, Query
from infaas_ray.errors import InvalidInput, UnknownTarget
from infaas_ray.serving.targets import Targets
from tests.unit.policy.builders import USE_CASE, catalog, offer

TARGETS = Targets(catalog(offer("net")))
X = np.zeros((2, 4), np.float32)


def query(target: str = USE_CASE, rows: int = 2, **inputs: np.ndarray) -> Query:
    return Query(id="q", target=target, slo=SLO(), inputs=inputs, rows=rows)


def test_what_fits_passes_under_every_name() -> None:
    for target in ("classification", USE_CASE, "net", offer("net").name):
        TARGETS.check(query(target, x=X))
        assert TARGETS.architecture_of(target).name == "net"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (query(y=X), r"takes the inputs \['x'\], not \['y'\]"),
        (query(x=X, y=X), r"not \['x', 'y'\]"),
        (query(), r"not \[\]"),
        (query(x=X.astype(np.float64)), "datatype FP64, expected FP32"),
        (query(x=X[:, :3]), r"shape \[2, 3\], expected \[-1, 4\]"),
        (query(x=X[0], rows=4), r"shape \[4\], expected"),
        (query(x=X[:0], rows=0), "any length from 1"),
        (query(x=X, rows=3), "same first dimension"),
    ],
)
def test_what_does_not_fit_is_told(wrong: Query, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        TARGETS.check(wrong)


def test_an_unknown_target_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownTarget, match="known: "):
        TARGETS.check(query("nett", x=X))
    with pytest.raises(UnknownTarget):
        Targets(catalog()).architecture_of("net")
