"""Metrics and fidelity on arrays small enough to check by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from infaas_ray.domain import Array
from infaas_ray.errors import InvalidModel
from infaas_ray.variants.metrics import METRICS, Scored, mean_cosine, score


def scored(outputs: object, labels: object, seen: object = ((0.0,),), seen_labels: object = (0,)) -> Scored:
    return Scored(
        outputs=np.asarray(outputs, np.float32),
        labels=np.asarray(labels),
        calibration_outputs=np.asarray(seen, np.float32),
        calibration_labels=np.asarray(seen_labels),
    )


def test_top1_counts_rows_whose_largest_score_is_at_the_label() -> None:
    found = score("top1_accuracy", scored([[1, 2], [3, 1], [0, 9], [5, 1]], [1, 0, 1, 1]))
    assert (found.value, found.rows, found.metric) == (0.75, 4, "top1_accuracy")
    assert found.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


@pytest.mark.parametrize("scores", [[0.9, 0.2, 0.6, 0.4], [3.0, -2.0, 0.4, -0.1]])
def test_binary_takes_probabilities_and_logits(scores: list[float]) -> None:
    assert score("binary_accuracy", scored(scores, [1, 0, 1, 1])).value == 0.75
    assert score("binary_accuracy", scored([[x] for x in scores], [1, 0, 1, 1])).value == 0.75


def test_centroid_gives_the_class_of_the_nearest_direction() -> None:
    found = score(
        "centroid_accuracy",
        scored(
            [[9, 1], [0.1, 0.9], [5, 4]], [3, 7, 7], seen=[[1, 0], [2, 0.1], [0, 1], [0.1, 3]], seen_labels=[3, 3, 7, 7]
        ),
    )
    assert found.value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("metric", "data", "says"),
    [
        ("top1_accuracy", scored([0.1, 0.2], [0, 1]), "shape"),
        ("top1_accuracy", scored([[1, 2]], [2]), "label 2 is not among the 2 classes"),
        ("binary_accuracy", scored([[1, 2]], [1]), "one number per row"),
        ("binary_accuracy", scored([1.0, 2.0], [1, 2]), "0 or 1"),
        ("centroid_accuracy", scored([[1, 2]], [5]), "class 5 has none"),
        ("accuracy", scored([[1, 2]], [1]), "top1_accuracy"),
    ],
)
def test_what_does_not_suit_a_metric_is_said(metric: str, data: Scored, says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        score(metric, data)


def test_unknown_metric_lists_all_known() -> None:
    with pytest.raises(InvalidModel) as caught:
        score("f1", scored([[1, 2]], [1]))
    assert all(name in caught.value.message for name in METRICS)


FINITE = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-100, 100, width=16))


@given(FINITE)
def test_an_output_agrees_with_itself_whatever_its_scale(outputs: Array) -> None:
    assert mean_cosine(outputs, outputs) == pytest.approx(1.0)
    assert mean_cosine(outputs, outputs * 4) == pytest.approx(1.0)


def test_cosine_of_unlike_outputs() -> None:
    a = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert mean_cosine(a, a[::-1]) == pytest.approx(0.0)
    assert mean_cosine(a, -a) == pytest.approx(-1.0)
    assert mean_cosine(a, np.zeros_like(a)) == 0.0
    assert mean_cosine(a, a[:1]) == 0.0
    assert math.isnan(mean_cosine(a, np.full_like(a, np.nan)))


def test_single_numbers_are_compared_as_one_vector() -> None:
    a = np.array([1.0, 2.0, 3.0])
    assert mean_cosine(a, a[::-1]) == pytest.approx(10 / 14)
    assert mean_cosine(a[:, None], a[::-1, None]) == pytest.approx(10 / 14)
