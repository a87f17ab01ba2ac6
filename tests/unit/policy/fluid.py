"""Serves queries as a fluid: by the rule of selection, without single queries, so that long runs take no time.

Rule, class by class: rows go to the cheapest ready variant that meets the class, as far as its replicas have capacity
within the bound; the rest to the next, at last to less accurate ones where the class accepts them. What finds none is
refused and counts, like all rows, as wanting the cheapest variant that meets the class and is not blocked. Where that
has no replica at all, its load is asked for. By Little's law, what is ongoing is what is served times how long it
takes: the median of one row, and of a full batch where the replicas are saturated.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from infaas_ray.domain import OnMiss
from infaas_ray.policy.messages import ClassCount, LoadRequested, TrafficReported
from infaas_ray.policy.routing import Offer, RoutingTable
from infaas_ray.policy.scaling.capacity import rate_within
from tests.unit.policy.builders import USE_CASE


@dataclass(frozen=True, kw_only=True)
class Asked:
    """So many rows a second that ask for the same."""

    rows: int
    target: str = USE_CASE
    latency_s: float | None = None
    min_accuracy: float | None = None
    on_miss: OnMiss = OnMiss.REJECT


def serve(table: RoutingTable, asked: Sequence[Asked]) -> tuple[TrafficReported, list[LoadRequested]]:
    """What a router would report of one second, and the loads that it would ask for."""
    ready = Counter(x.variant for x in table.replicas)
    used: Counter[str] = Counter()  # shares of replicas, in thousandths
    wanted: Counter[str] = Counter()
    served: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    classes, loads = [], []
    for one in asked:
        able = _able(table, one)
        want = next((x.name for x in able if x.name not in table.blocked), None)
        left = one.rows
        good = 0
        for offer in (*able, *(_poorer(table, one) if one.on_miss is OnMiss.DEGRADE else ())):
            rate = rate_within(offer, _bound_s(one))
            taken = min(left, int(rate * (ready[offer.name] - used[offer.name] / 1000)))
            used[offer.name] += int(taken / rate * 1000)
            served[offer.name] += taken
            left -= taken
            good += taken if offer in able else 0
        served_best = next((x.name for x in able if served[x.name]), None)
        want = want or served_best
        if want is not None:
            wanted[want] += one.rows
            refused[want] += left
            if left and not ready[want]:
                loads.append(LoadRequested(variant=want, within_s=one.latency_s))
        classes.append(
            ClassCount(
                target=one.target,
                latency_s=one.latency_s,
                min_accuracy=one.min_accuracy,
                on_miss=one.on_miss,
                rows=one.rows,
                missed=one.rows - good,
            )
        )
    ongoing = {
        x: _ongoing(table.catalog.offers[x], rows, used[x] / 1000 / ready[x]) for x, rows in served.items() if rows
    }
    report = TrafficReported(
        router="fluid",
        window_s=1.0,
        wanted=wanted,
        served={x: rows for x, rows in served.items() if rows},
        refused={x: rows for x, rows in refused.items() if rows},
        classes=tuple(classes),
        ongoing={x: rows for x, rows in ongoing.items() if rows},
    )
    return report, loads


def _able(table: RoutingTable, one: Asked) -> list[Offer]:
    """The variants that meet a class, cheapest first."""
    offers = [table.catalog.offers[x] for x in table.catalog.targets().get(one.target, ())]
    meeting = [x for x in offers if rate_within(x, _bound_s(one)) > 0 and x.accuracy >= (one.min_accuracy or 0.0)]
    return sorted(meeting, key=lambda x: (x.usd_per_1k, x.profile.latency_s(1), x.name))


def _poorer(table: RoutingTable, one: Asked) -> list[Offer]:
    """The variants that are less accurate than a class asks, the most accurate first."""
    offers = [table.catalog.offers[x] for x in table.catalog.targets().get(one.target, ())]
    poorer = [x for x in offers if rate_within(x, _bound_s(one)) > 0 and x.accuracy < (one.min_accuracy or 0.0)]
    return sorted(poorer, key=lambda x: (-x.accuracy, x.name))


def _ongoing(offer: Offer, rows: int, share: float) -> int:
    batch = offer.variant.batch_limit if share > 0.95 else 1
    return round(rows * offer.profile.median_s(batch))


def _bound_s(one: Asked) -> float:
    return inf if one.latency_s is None else one.latency_s
