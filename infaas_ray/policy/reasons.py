"""Why a variant lost, in words, and the closest SLO that could be met.

Computed only when a query is refused or an explanation is asked for. Uses the estimates of `candidates`, as
selection does, so words and decision cannot differ.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, inf

from infaas_ray.domain import SLO
from infaas_ray.policy.candidates import (
    IDLE,
    MAX_QUEUE_S,
    Ask,
    Candidate,
    Condition,
    ReplicaLoad,
    condition,
    loaded_s,
    quickest,
)

REASONS_SHOWN = 32  # of a refusal; `explain` gives all

_Key = tuple[float | str, ...]


def meets(candidate: Candidate, ask: Ask) -> bool:
    """Whether the variant, on an idle replica, keeps every bound of the query."""
    return (
        candidate.usd_per_1k <= ask.max_usd
        and candidate.accuracy >= ask.min_accuracy
        and candidate.latency_s(ask.rows) <= ask.bound_s
    )


def why_not(candidate: Candidate, ask: Ask, loads: Mapping[str, ReplicaLoad]) -> str | None:
    """Why the variant cannot answer the query in time now, by a ready replica or by loading one; None if it can."""
    return _never(candidate, ask) or (
        _not_ready(candidate, ask, loads) if candidate.replicas else _not_loaded(candidate, ask, loads)
    )


def _never(candidate: Candidate, ask: Ask) -> str | None:
    if candidate.accuracy < ask.min_accuracy:
        return f"accuracy {candidate.accuracy:.4g} is below {ask.min_accuracy:g}"
    if candidate.usd_per_1k > ask.max_usd:
        return f"price {usd(candidate.usd_per_1k)} per 1,000 is above {usd(ask.max_usd)}"
    alone = candidate.latency_s(ask.rows)
    if alone > ask.bound_s:
        return f"takes {duration(alone)} for {count(ask.rows)}; the bound is {duration(ask.bound_s)}"
    return None


def _not_ready(candidate: Candidate, ask: Ask, loads: Mapping[str, ReplicaLoad]) -> str | None:
    expected, replica = quickest(candidate, ask.rows, loads, ask.offline)
    if expected == inf:
        return f"busy: every replica has more than {duration(MAX_QUEUE_S)} of work ahead"
    if expected > ask.left_s:
        load = loads.get(replica, IDLE)
        slow = condition(candidate, load) is Condition.INTERFERED
        state = f"interfered, {load.slowdown:.1f} times slower than profiled" if slow else "busy"
        return f"{state}: would answer in {duration(expected)}; the bound leaves {duration(ask.left_s)}"
    return None


def _not_loaded(candidate: Candidate, ask: Ask, loads: Mapping[str, ReplicaLoad]) -> str | None:
    if candidate.blocked is not None:
        return candidate.blocked if candidate.broken else f"cannot be loaded now: {candidate.blocked}"
    expected = loaded_s(candidate, ask, loads)
    state = "still loading" if candidate.loading else "not loaded"
    if expected == inf:
        return f"{state}, and more than {duration(MAX_QUEUE_S)} of work waits for it"
    if expected > ask.left_s:
        return f"{state}: would answer in {duration(expected)}; the bound leaves {duration(ask.left_s)}"
    return None


# ---- the nearest SLO ---------------------------------------------------------------------------------------------


def nearest(every: Sequence[Candidate], ask: Ask) -> dict[str, float]:
    """The closest SLO that could be met, in the protocol's units, naming the bounds that the query named.

    Rule: give up as few bounds as possible, in the order latency, accuracy, price, and of what is given up as
    little as possible. So: the least latency at the asked accuracy and price; else the best accuracy at the asked
    latency and price; else the least price; else two bounds go (accuracy is kept longest, then price, then latency);
    else all. Figures are rounded to the safe side. Variants that cannot be loaded count only if there is no other.
    """

    def fastest(x: Candidate) -> _Key:
        return (x.latency_s(ask.rows), *x.order)

    def most_accurate(x: Candidate) -> _Key:
        return (-x.accuracy, *x.order)

    def cheapest(x: Candidate) -> _Key:
        return x.order

    usable = [x for x in every if x.replicas or x.blocked is None] or list(every)
    kept = {
        "latency": [x for x in usable if x.latency_s(ask.rows) <= ask.bound_s],
        "accuracy": [x for x in usable if x.accuracy >= ask.min_accuracy],
        "price": [x for x in usable if x.usd_per_1k <= ask.max_usd],
    }
    steps: tuple[tuple[tuple[str, ...], Callable[[Candidate], _Key]], ...] = (
        (("accuracy", "price"), fastest),
        (("latency", "price"), most_accurate),
        (("latency", "accuracy"), cheapest),
        (("accuracy",), fastest),
        (("price",), fastest),
        (("latency",), most_accurate),
    )
    for bounds, key in steps:
        names = set.intersection(*({x.name for x in kept[bound]} for bound in bounds))
        if names:
            return _slo_of(min((x for x in usable if x.name in names), key=key), ask)
    return _slo_of(min(usable, key=fastest), ask)


def _slo_of(candidate: Candidate, ask: Ask) -> dict[str, float]:
    """The query's own bounds, moved as far as the candidate needs."""
    found: dict[str, float] = {}
    if ask.bound_s < inf:
        needed_ms = ceil(candidate.latency_s(ask.rows) * 1e6 + 1e-3) / 1e3
        found["latency_ms"] = max(ask.bound_s * 1e3, needed_ms)
    if ask.min_accuracy > 0:
        found["min_accuracy"] = min(ask.min_accuracy, floor(candidate.accuracy * 1e4) / 1e4)
    if ask.max_usd < inf:
        found["max_usd_per_1k"] = max(ask.max_usd, ceil(candidate.usd_per_1k * 1e9 + 1e-3) / 1e9)
    return found


# ---- words -------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """12.3 ms or 1.5 s."""
    return f"{seconds * 1e3:.3g} ms" if abs(seconds) < 1 else f"{seconds:.3g} s"


def usd(amount: float) -> str:
    """An amount of money."""
    return f"${amount:.3g}"


def count(rows: int) -> str:
    """1 row, 2 rows."""
    return "1 row" if rows == 1 else f"{rows} rows"


def slo_words(slo: SLO) -> str:
    """The bounds of an SLO, as in "latency <= 5 ms and accuracy >= 0.9"; empty where it has none."""
    parts = []
    if slo.latency_s is not None:
        parts.append(f"latency <= {duration(slo.latency_s)}")
    if slo.min_accuracy is not None:
        parts.append(f"accuracy >= {slo.min_accuracy:g}")
    if slo.max_usd_per_1k is not None:
        parts.append(f"price <= {usd(slo.max_usd_per_1k)} per 1,000")
    return " and ".join(parts)


def nearest_words(found: Mapping[str, float]) -> str:
    """The nearest SLO as a clause."""
    units = {"latency_ms": "latency {:.4g} ms", "min_accuracy": "accuracy {:.4g}", "max_usd_per_1k": "price ${:.3g}"}
    return ", ".join(units[key].format(value) for key, value in found.items())
