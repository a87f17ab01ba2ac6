"""What a router counts, in the text form that Prometheus scrapes.

Counting happens for every query and scraping now and then, so the counts are plain numbers, and prometheus_client puts
them into its form when it is asked.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from infaas_ray.domain import Answer, Query
from infaas_ray.serving.router import OUTCOMES, Router

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _Histogram:
    """Counts of seconds by bucket, each with those up to its bound; and their sum."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.total_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulated counts by upper bound, as Prometheus has them."""
        found: list[tuple[str, float]] = []
        so_far = 0
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, so_far))
        return found


class Metrics(Collector):
    """The counts of one router, fed by its outcomes."""

    def __init__(self, router: Router) -> None:
        self._outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._selections: Counter[str] = Counter()
        self._applications = router.applications
        self._missed = 0
        self._usd = 0.0
        self._latency, self._queue, self._compute = _Histogram(), _Histogram(), _Histogram()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        router.on_outcome = self.observe

    def observe(self, outcome: str, query: Query, answer: Answer | None) -> None:
        """Count one query that has left the router."""
        self._outcomes[outcome] += query.bundle
        if answer is None:
            return
        self._selections[answer.variant] += query.bundle
        self._latency.observe(answer.latency_s)
        self._queue.observe(answer.queue_s)
        self._compute.observe(answer.compute_s)
        usd = answer.usd_per_1k * query.rows / 1000
        self._usd += usd
        if query.application:
            account = self._applications.of(query.application)
            account.answered_rows += query.rows
            account.answered_usd += usd
        if not answer.slo_met:
            self._missed += query.bundle

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The counts in prometheus_client's form (which asks for them)."""
        yield _labelled("infaas_queries", "Queries by what became of them", "outcome", self._outcomes)
        yield _labelled("infaas_variant_selections", "Answers by variant", "variant", self._selections)
        yield CounterMetricFamily(
            "infaas_slo_violations", "Answers that missed a bound of their SLO", value=self._missed
        )
        yield CounterMetricFamily("infaas_cost_usd", "Price of the rows answered", value=self._usd)
        accounts = self._applications.accounts
        rows = {name: x.answered_rows for name, x in accounts.items()}
        usd = {name: x.answered_usd for name, x in accounts.items()}
        yield _labelled("infaas_application_rows", "Rows answered by named application", "application", rows)
        yield _labelled("infaas_application_cost_usd", "Price of these rows", "application", usd)
        histograms = {
            "infaas_query_duration_seconds": ("Time in the router, arrival to answer", self._latency),
            "infaas_queue_duration_seconds": ("Wait in the replica before the batch ran", self._queue),
            "infaas_compute_duration_seconds": ("Time of the batch in the model", self._compute),
        }
        for name, (text, histogram) in histograms.items():
            yield HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.total_s)


def _labelled(name: str, text: str, label: str, counts: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
