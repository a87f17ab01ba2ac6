from collections.abc import Callable

import numpy as np

from infaas_ray.domain import SLO, Answer, Query
from infaas_ray.policy.applications import MOST, Applications
from infaas_ray.serving.metrics import Metrics


class FakeRouter:
    def __init__(self) -> None:
        self.applications = Applications()

    on_outcome: Callable[[str, Query, Answer | None], None]


def query(bundle: int = 1, application: str = "") -> Query:
    return Query(id="q", target="t", slo=SLO(), inputs={}, rows=2 * bundle, bundle=bundle, application=application)


def answer(latency_s: float, slo_met: bool = True) -> Answer:
    return Answer(
        query_id="q",
        outputs={"y": np.zeros(1)},
        variant="a@b",
        replica="a@b#1",
        accuracy=0.9,
        usd_per_1k=0.5,
        queue_s=0.0,
        compute_s=latency_s / 2,
        latency_s=latency_s,
        batch_rows=1,
        slo_met=slo_met,
    )


def test_everything_named_is_given_and_counted() -> None:
    router = FakeRouter()
    metrics = Metrics(router)  # type: ignore[arg-type]
    router.on_outcome("answered", query(), answer(0.002))
    router.on_outcome("answered", query(bundle=3, application="shop"), answer(0.2, slo_met=False))
    router.on_outcome("rejected", query(), None)
    lines = metrics.text().decode().splitlines()
    for line in (
        'infaas_queries_total{outcome="answered"} 4.0',
        'infaas_queries_total{outcome="rejected"} 1.0',
        'infaas_queries_total{outcome="expired"} 0.0',
        'infaas_variant_selections_total{variant="a@b"} 4.0',
        "infaas_slo_violations_total 3.0",
        "infaas_cost_usd_total 0.004",
        'infaas_application_rows_total{application="shop"} 6.0',
        'infaas_application_cost_usd_total{application="shop"} 0.003',
        'infaas_query_duration_seconds_bucket{le="0.001"} 0.0',
        'infaas_query_duration_seconds_bucket{le="0.0025"} 1.0',
        'infaas_query_duration_seconds_bucket{le="+Inf"} 2.0',
        "infaas_query_duration_seconds_count 2.0",
        'infaas_compute_duration_seconds_bucket{le="0.001"} 1.0',
        'infaas_queue_duration_seconds_bucket{le="0.0005"} 2.0',
    ):
        assert line in lines


def test_strangers_cannot_make_it_grow() -> None:
    router = FakeRouter()
    metrics = Metrics(router)  # type: ignore[arg-type]
    for number in range(10 * MOST):
        router.on_outcome("answered", query(application=f"stranger-{number}"), answer(0.002))
    lines = [x for x in metrics.text().decode().splitlines() if x.startswith("infaas_application_rows_total{")]
    assert len(lines) == MOST + 1
    assert f'infaas_application_rows_total{{application="(other)"}} {18.0 * MOST}' in lines
