"""The questions that the demonstration asks: all three levels of target, every kind of bound, one that nobody can meet.

Bounds follow from what was measured (the accuracies, latencies and prices of the catalogue), so the questions make
sense on any machine.
"""

from dataclasses import dataclass
from typing import Any

from infaas_ray.policy.routing import Catalog, Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to ask. `slo` holds the keywords of `Client.infer`."""

    use_case: str
    target: str
    slo: dict[str, Any]

    def words(self) -> str:
        """The SLO as people write it."""
        forms = {
            "latency_ms": "within {:.3g} ms",
            "min_accuracy": "accuracy ≥ {:.3f}",
            "max_usd_per_1k": "≤ {:.2g} USD per 1k",
        }
        return ", ".join(forms[name].format(value) for name, value in self.slo.items()) or "anything"


def questions(catalog: Catalog) -> list[Question]:
    """The questions for every use case of `catalog`, easy ones first."""
    targets = catalog.targets()
    use_cases = sorted({x.use_case.name for x in catalog.architectures.values()})
    return [q for name in use_cases for q in _of_use_case(name, [catalog.offers[x] for x in targets[name]])]


def _of_use_case(use_case: str, offers: list[Offer]) -> list[Question]:
    by_accuracy = sorted(offers, key=lambda x: (x.accuracy, -x.usd_per_1k))
    best, middle = by_accuracy[-1], by_accuracy[len(by_accuracy) // 2]
    fastest = min(offers, key=lambda x: x.profile.latency_s(1))
    # Tenfold, because the bound includes the way through the router, which takes longer than the smallest models.
    quick_ms = max(10.0, 10e3 * fastest.profile.latency_s(1))
    best_ms = max(20.0, 10e3 * best.profile.latency_s(1))

    def ask(target: str, **slo: Any) -> Question:
        return Question(use_case=use_case, target=target, slo=slo)

    return [
        ask(use_case),
        ask(use_case, latency_ms=quick_ms),
        ask(use_case, min_accuracy=middle.accuracy),
        ask(use_case, min_accuracy=best.accuracy, latency_ms=best_ms),
        ask(use_case, max_usd_per_1k=fastest.usd_per_1k * 2, latency_ms=quick_ms),
        ask(use_case, min_accuracy=middle.accuracy, latency_ms=best_ms, max_usd_per_1k=best.usd_per_1k),
        ask(best.variant.architecture),
        ask(best.variant.architecture, latency_ms=best_ms),
        ask(best.name, latency_ms=best_ms),
        ask(use_case, min_accuracy=min(1.0, best.accuracy + 0.001), latency_ms=quick_ms / 1e3),
    ]
