"""Chooses who answers a query: a ready replica, a variant worth loading, or nobody, with reasons.

Rule, in this order:
1. the cheapest variant that keeps every bound on one of its ready replicas, and there the least expected finish;
2. else the cheapest variant that keeps them if the query waits for it to load (without a latency bound, one that is
   loading already goes first);
3. else what the query allows on a miss: DEGRADE, the most accurate variant in time and within the price; LATE, the
   earliest answer at the asked accuracy and price; both on ready replicas first, then by loading;
4. else a refusal: permanent where no variant could ever do it, otherwise with an honest time to come again.

Next to the choice stands `wanted`: the cheapest variant that meets the SLO on an idle replica, for the accounting of
demand. It skips variants that cannot be started now, unless the query is dispatched there, so that demand moves on
to what can grow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from operator import attrgetter

import msgspec

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.candidates import (
    MAX_QUEUE_S,
    Ask,
    Candidate,
    ReplicaLoad,
    SelectionIndex,
    Shortlist,
    ask_of,
    loaded_s,
    quickest,
)
from infaas_ray.policy.reasons import duration, meets, why_not
from infaas_ray.policy.refusal import Reject, allowed, refuse

__all__ = [
    "MAX_QUEUE_S",
    "Dispatch",
    "Load",
    "Reject",
    "ReplicaLoad",
    "SelectionIndex",
    "Verdict",
    "explain",
    "select",
]


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """Send the query to `replica`, expected to answer in `expected_s`. `degraded`: below the asked accuracy."""

    replica: str
    variant: str
    expected_s: float
    degraded: bool = False
    wanted: str | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Let the query wait until `variant` is loaded; answer expected in `expected_s`, loading included."""

    variant: str
    expected_s: float
    wanted: str | None = None


def select(
    target: str,
    rows: int,
    slo: SLO,
    index: SelectionIndex,
    loads: Mapping[str, ReplicaLoad],
    waited_s: float = 0.0,
    *,
    table_age_s: float = 0.0,
    overhead_s: float = 0.0,
) -> Dispatch | Load | Reject:
    """Decide about a query of `rows` rows (at least 1) for `target`; the rule stands at the top of this module.

    `loads` by replica id (absent means idle), and by variant name for the rows that wait for its loading. `waited_s`
    has passed since the query arrived, `table_age_s` since the routing table was made; `overhead_s` goes by outside
    queue and compute. Raises UnknownTarget.
    """
    short = index.shortlist(target)
    ask = ask_of(target, rows, slo, waited_s, table_age_s, overhead_s)
    least, most, bound, left = ask.min_accuracy, ask.max_usd, ask.bound_s, ask.left_s
    level = short.level(least) if least > 0 else 0
    wanted: Candidate | None = None
    for candidate in short.front_from[level] if rows <= short.front_rows else short.every:
        if candidate.usd_per_1k > most:
            break
        if candidate.latency_s(rows) <= bound and candidate.accuracy >= least:
            wanted = candidate if candidate.blocked is None else _unblocked(short, ask)
            break
    for candidate in short.ready_from[level]:
        if candidate.usd_per_1k > most:
            break
        if candidate.latency_s(rows) > left:
            continue
        expected, replica = quickest(candidate, rows, loads, slo.offline)
        if replica and expected <= left:
            if wanted is not candidate and (wanted is None or candidate.order < wanted.order):
                wanted = candidate
            return Dispatch(replica=replica, variant=candidate.name, expected_s=expected, wanted=wanted.name)
    return _without_ready(short, ask, slo, loads, wanted)


def _unblocked(short: Shortlist, ask: Ask) -> Candidate | None:
    """The cheapest that meets the SLO and can be started, where the cheapest of all cannot."""
    return next((x for x in short.every if x.blocked is None and meets(x, ask)), None)


def _without_ready(
    short: Shortlist, ask: Ask, slo: SLO, loads: Mapping[str, ReplicaLoad], wanted: Candidate | None
) -> Dispatch | Load | Reject:
    """Steps 2 to 4 of the rule."""
    wanted = wanted or _relaxed_wanted(short, ask)
    name = wanted.name if wanted else None
    return (
        _worth_loading(short, ask, loads, name)
        or _on_miss(short, ask, loads, name)
        or refuse(short, ask, slo, loads, wanted)
    )


def _worth_loading(short: Shortlist, ask: Ask, loads: Mapping[str, ReplicaLoad], wanted: str | None) -> Load | None:
    waiting: Load | None = None
    soon = ask.left_s + ask.table_age_s
    if short.least_start_s > soon:
        return None
    for candidate in short.startable_from[short.level(ask.min_accuracy)]:
        if candidate.usd_per_1k > ask.max_usd:
            break
        if candidate.start_s > soon or candidate.latency_s(ask.rows) > ask.bound_s:
            continue
        expected = loaded_s(candidate, ask, loads)
        if expected == inf or expected > ask.left_s:
            continue
        load = Load(variant=candidate.name, expected_s=expected, wanted=wanted)
        if candidate.loading or ask.bound_s < inf:
            return load
        waiting = waiting or load
    return waiting


# ---- on a miss -------------------------------------------------------------------------------------------------


def _on_miss(
    short: Shortlist, ask: Ask, loads: Mapping[str, ReplicaLoad], wanted: str | None
) -> Dispatch | Load | None:
    match ask.on_miss:
        case OnMiss.REJECT:
            return None
        case OnMiss.DEGRADE:
            return _degraded(short, ask, loads, wanted)
        case OnMiss.LATE:
            return _late(short, ask, loads, wanted)


def _degraded(
    short: Shortlist, ask: Ask, loads: Mapping[str, ReplicaLoad], wanted: str | None
) -> Dispatch | Load | None:
    """The most accurate variant that is in time and within the price, ready before loadable."""
    for candidate in short.most_accurate:
        if candidate.usd_per_1k > ask.max_usd or candidate.accuracy >= ask.min_accuracy:
            continue
        expected, replica = quickest(candidate, ask.rows, loads, ask.offline)
        if replica and expected <= ask.left_s:
            return Dispatch(replica=replica, variant=candidate.name, expected_s=expected, degraded=True, wanted=wanted)
    if short.least_start_s - ask.table_age_s > ask.left_s:
        return None
    soon = ask.left_s + ask.table_age_s
    for candidate in short.startable:
        if candidate.usd_per_1k > ask.max_usd or candidate.start_s > soon:
            continue
        expected = loaded_s(candidate, ask, loads)
        if expected < inf and expected <= ask.left_s:
            return Load(variant=candidate.name, expected_s=expected, wanted=wanted)
    return None


def _late(short: Shortlist, ask: Ask, loads: Mapping[str, ReplicaLoad], wanted: str | None) -> Dispatch | Load | None:
    """The earliest answer at the asked accuracy and price, ready before loadable; full queues stay closed."""
    affordable = [x for x in short.ready if x.usd_per_1k <= ask.max_usd and x.accuracy >= ask.min_accuracy]
    expected, replica, variant = min(
        ((*quickest(x, ask.rows, loads, ask.offline), x.name) for x in affordable), default=(inf, "", "")
    )
    if replica:
        return Dispatch(replica=replica, variant=variant, expected_s=expected, wanted=wanted)
    expected, variant = min(
        (
            (loaded_s(x, ask, loads), x.name)
            for x in short.unready
            if x.usd_per_1k <= ask.max_usd and x.accuracy >= ask.min_accuracy and x.blocked is None
        ),
        default=(inf, ""),
    )
    return Load(variant=variant, expected_s=expected, wanted=wanted) if expected < inf else None


def _relaxed_wanted(short: Shortlist, ask: Ask) -> Candidate | None:
    """The variant to have where none meets the whole SLO: the most accurate in time, or the fastest."""
    if ask.on_miss is OnMiss.REJECT:
        return None
    # What a cheaper one beats in every respect is not wanted, unless that cheaper one cannot be started.
    worth = short.every if short.blocked else short.worth_asking(ask.rows)
    able = [x for x in worth if x.blocked is None and allowed(x, ask)]
    if ask.on_miss is OnMiss.DEGRADE:
        return max(able, key=attrgetter("accuracy"), default=None)
    return min(able, key=lambda x: x.latency_s(ask.rows), default=None)


# ---- the same choice, explained ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One candidate as it stands for one query.

    `expected_ms` counts queue and compute, and loading where no replica is ready; None where that cannot be had
    (queues full, loading blocked). `replicas` counts the ready ones.
    """

    variant: str
    accuracy: float
    usd_per_1k: float
    expected_ms: float | None
    replicas: int
    chosen: bool
    why: str


def explain(
    target: str,
    rows: int,
    slo: SLO,
    index: SelectionIndex,
    loads: Mapping[str, ReplicaLoad],
    *,
    waited_s: float = 0.0,
    table_age_s: float = 0.0,
    overhead_s: float = 0.0,
) -> tuple[Verdict, ...]:
    """Explain what `select` decides for the same arguments, cheapest candidate first. Raises UnknownTarget."""
    decision = select(target, rows, slo, index, loads, waited_s, table_age_s=table_age_s, overhead_s=overhead_s)
    ask = ask_of(target, rows, slo, waited_s, table_age_s, overhead_s)
    every = index.shortlist(target).every
    chosen = None if isinstance(decision, Reject) else next(x for x in every if x.name == decision.variant)
    return tuple(_verdict(x, chosen, decision, ask, loads) for x in every)


def _verdict(
    candidate: Candidate,
    chosen: Candidate | None,
    decision: Dispatch | Load | Reject,
    ask: Ask,
    loads: Mapping[str, ReplicaLoad],
) -> Verdict:
    if candidate.replicas:
        expected, _ = quickest(candidate, ask.rows, loads, ask.offline)
    else:
        expected = inf if candidate.blocked is not None else loaded_s(candidate, ask, loads)
    lost = why_not(candidate, ask, loads)
    why = _won(lost, decision, expected) if candidate is chosen else lost or _beaten(candidate, chosen)
    return Verdict(
        variant=candidate.name,
        accuracy=candidate.accuracy,
        usd_per_1k=candidate.usd_per_1k,
        expected_ms=None if expected == inf else expected * 1e3,
        replicas=len(candidate.replicas),
        chosen=candidate is chosen,
        why=why,
    )


def _won(missed: str | None, decision: Dispatch | Load | Reject, expected_s: float) -> str:
    """Why the chosen one was chosen; `missed` names the bound it does not keep, if any."""
    match decision:
        case Dispatch(degraded=True):
            return f"chosen: the most accurate in time; {missed}"
        case Dispatch() if missed:
            return f"chosen: the earliest answer, though late; {missed}"
        case Dispatch():
            return f"chosen: the cheapest that meets the SLO with a ready replica; answers in {duration(expected_s)}"
        case _:
            late = f", though {missed}" if missed else ""
            return f"chosen: worth loading; answers in {duration(expected_s)}{late}"


def _beaten(candidate: Candidate, chosen: Candidate | None) -> str:
    """Why a candidate that could have answered was not chosen."""
    if chosen is None:
        return "could answer"
    if not candidate.replicas and chosen.replicas:
        return f"could be loaded in time, but {chosen.name} is ready"
    if candidate.order < chosen.order and chosen.loading:
        return f"not loaded; {chosen.name} is loading already"
    return f"meets the SLO, but {chosen.name} is cheaper"
