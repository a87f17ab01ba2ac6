"""What a router counts, in the text form that Prometheus scrapes.

Counting happens for every query, so it is prometheus_client's own counters with their labels resolved once.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from infaas_ray.domain import Answer, Query
from infaas_ray.serving.router import OUTCOMES, Router

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and histograms of one router, fed by its outcomes."""

    def __init__(self, router: Router) -> None:
        self._registry = CollectorRegistry()
        queries = Counter("infaas_queries", "Queries by what became of them", ["outcome"], registry=self._registry)
        self._outcomes = {x: queries.labels(x) for x in OUTCOMES}
        self._selections = Counter(
            "infaas_variant_selections", "Answers by variant", ["variant"], registry=self._registry
        )
        self._missed = Counter(
            "infaas_slo_violations", "Answers that missed a bound of their SLO", registry=self._registry
        )
        self._latency = self._histogram("infaas_query_duration_seconds", "Time in the router, arrival to answer")
        self._queue = self._histogram("infaas_queue_duration_seconds", "Wait in the replica before the batch ran")
        self._compute = self._histogram("infaas_compute_duration_seconds", "Time of the batch in the model")
        self._cost = Counter("infaas_cost_usd", "Price of the rows answered", registry=self._registry)
        router.on_outcome = self.observe

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_BUCKETS, registry=self._registry)

    def observe(self, outcome: str, query: Query, answer: Answer | None) -> None:
        """Count one query that has left the router."""
        self._outcomes[outcome].inc(query.bundle)
        if answer is None:
            return
        self._selections.labels(answer.variant).inc(query.bundle)
        self._latency.observe(answer.latency_s)
        self._queue.observe(answer.queue_s)
        self._compute.observe(answer.compute_s)
        self._cost.inc(answer.usd_per_1k * query.rows / 1000)
        if not answer.slo_met:
            self._missed.inc(query.bundle)

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self._registry)
