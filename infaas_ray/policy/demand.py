"""What is asked for: the queries of a window by target, SLO and size, coarse enough to be few.

Rule: a latency bound is rounded down to the next power of `LATENCY_STEP` (a plan for a tighter bound serves a looser
one), other bounds are taken as they are; queries are as large as others where `size_of` says so. Offline queries run on
spare capacity and count for nothing here.
"""

from collections import Counter
from collections.abc import Mapping
from math import ceil, floor, log

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.messages import ClassCount

LATENCY_STEP = 1.1
_EPSILON = 1e-9

Asked = tuple[str, SLO, int]  # target, SLO, rows of one query
_Key = tuple[str, float | None, float | None, float | None, OnMiss, int]


def class_counts(asked: Mapping[Asked, int], missed: Mapping[Asked, int]) -> tuple[ClassCount, ...]:
    """Rows by class, from queries by target, SLO and rows: those asked for, and those whose SLO was missed."""
    queries: Counter[_Key] = Counter()
    rows: Counter[_Key] = Counter()
    misses: Counter[_Key] = Counter()
    for (target, slo, each), count in asked.items():
        if not slo.offline:
            key = _key(target, slo, each)
            queries[key] += count
            rows[key] += count * each
    for (target, slo, each), count in missed.items():
        if not slo.offline:
            misses[_key(target, slo, each)] += count * each
    return tuple(
        ClassCount(
            target=key[0],
            latency_s=key[1],
            min_accuracy=key[2],
            max_usd_per_1k=key[3],
            on_miss=key[4],
            rows_each=rows[key] / queries[key] if key in queries else float(key[5]),
            rows=rows[key],
            missed=misses[key],
        )
        for key in dict.fromkeys((*rows, *misses))  # in an order that does not depend on hashes
    )


def size_of(rows: float) -> int:
    """The least power of two that is not below a number of rows: queries of one size are one class."""
    return 1 << (ceil(rows) - 1).bit_length()


def _key(target: str, slo: SLO, rows: int) -> _Key:
    return target, _coarse(slo.latency_s), slo.min_accuracy, slo.max_usd_per_1k, _on_miss(slo), size_of(rows)


def _on_miss(slo: SLO) -> OnMiss:
    """What a miss allows that can happen: who asks for no accuracy gets none less, who names no bound is never late."""
    idle = (OnMiss.DEGRADE, slo.min_accuracy), (OnMiss.LATE, slo.latency_s)
    return OnMiss.REJECT if any(slo.on_miss is kind and bound is None for kind, bound in idle) else slo.on_miss


def _coarse(latency_s: float | None) -> float | None:
    if latency_s is None:
        return None
    return float(f"{LATENCY_STEP ** floor(log(latency_s, LATENCY_STEP) + _EPSILON):.6g}")
