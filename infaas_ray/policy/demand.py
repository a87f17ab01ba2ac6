"""What is asked for: the queries of a window by target and SLO, coarse enough to be few.

Rule: a latency bound is rounded down to the next power of `LATENCY_STEP` (a plan for a tighter bound serves a looser
one), other bounds are taken as they are. Offline queries run on spare capacity and count for nothing here.
"""

from collections import Counter
from collections.abc import Mapping
from math import floor, log

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.messages import ClassCount

LATENCY_STEP = 1.1
_EPSILON = 1e-9

Asked = tuple[str, SLO]
_Key = tuple[str, float | None, float | None, float | None, OnMiss]


def class_counts(asked: Mapping[Asked, int], missed: Mapping[Asked, int]) -> tuple[ClassCount, ...]:
    """Rows by class, from rows by target and SLO: those asked for, and those whose SLO was missed."""
    rows: Counter[_Key] = Counter()
    misses: Counter[_Key] = Counter()
    for counts, total in ((asked, rows), (missed, misses)):
        for (target, slo), count in counts.items():
            if not slo.offline:
                total[target, _coarse(slo.latency_s), slo.min_accuracy, slo.max_usd_per_1k, _on_miss(slo)] += count
    return tuple(
        ClassCount(
            target=key[0],
            latency_s=key[1],
            min_accuracy=key[2],
            max_usd_per_1k=key[3],
            on_miss=key[4],
            rows=rows[key],
            missed=misses[key],
        )
        for key in dict.fromkeys((*rows, *misses))  # in an order that does not depend on hashes
    )


def _on_miss(slo: SLO) -> OnMiss:
    """What a miss allows that can happen: who asks for no accuracy gets none less, who names no bound is never late."""
    idle = (OnMiss.DEGRADE, slo.min_accuracy), (OnMiss.LATE, slo.latency_s)
    return OnMiss.REJECT if any(slo.on_miss is kind and bound is None for kind, bound in idle) else slo.on_miss


def _coarse(latency_s: float | None) -> float | None:
    if latency_s is None:
        return None
    return float(f"{LATENCY_STEP ** floor(log(latency_s, LATENCY_STEP) + _EPSILON):.6g}")
