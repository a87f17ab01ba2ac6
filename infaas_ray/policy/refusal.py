"""Refuses a query, honestly: for good or for now, why, and what would help.

Permanent: no variant keeps the bounds that the query insists on, even on an idle replica; then the closest SLO that
could be met is named. Otherwise the refusal says after which time the same query could be taken: when the first
backlog is short enough, or the first load is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.candidates import (
    IDLE,
    MAX_QUEUE_S,
    Ask,
    Candidate,
    ReplicaLoad,
    ahead_s,
    eta_s,
    finish_s,
)
from infaas_ray.policy.reasons import REASONS_SHOWN, count, duration, nearest, nearest_words, slo_words, why_not

RECOVERY_S = 2.0  # where all that could help is blocked or slow, a guess at how long that lasts


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Refuse the query.

    `permanent`: no variant can ever meet the SLO, and `nearest` holds the closest one that could be met. Otherwise
    it may succeed after `retry_after_s`, sooner if the variant `load` is loaded meanwhile. `reasons` maps the
    cheapest candidates to why each lost.
    """

    permanent: bool
    message: str
    reasons: Mapping[str, str] = field(default_factory=dict)
    nearest: Mapping[str, float] = field(default_factory=dict)
    retry_after_s: float = 0.0
    load: str | None = None
    wanted: str | None = None


def allowed(candidate: Candidate, ask: Ask) -> bool:
    """Whether the variant, on an idle replica, keeps the bounds that `on_miss` does not give up."""
    return (
        candidate.usd_per_1k <= ask.max_usd
        and (candidate.accuracy >= ask.min_accuracy or ask.on_miss is OnMiss.DEGRADE)
        and (candidate.latency_s(ask.rows) <= ask.bound_s or ask.on_miss is OnMiss.LATE)
    )


def refuse(
    every: Sequence[Candidate], ask: Ask, slo: SLO, loads: Mapping[str, ReplicaLoad], wanted: Candidate | None
) -> Reject:
    """The refusal of a query that no candidate can take; `every` by price, `wanted` as selection found it."""
    shown = every[:REASONS_SHOWN]
    reasons = {x.name: reason for x in shown if (reason := why_not(x, ask, loads))}
    whole = [x for x in every if not x.broken]
    hopeful = [x for x in whole if allowed(x, ask)]
    asked = slo_words(slo) + (f" for {count(ask.rows)}" if ask.rows > 1 else "")
    if not whole:
        words = f"no variant of {ask.target!r} can run: {every[0].name}: {every[0].blocked}"
        return Reject(permanent=True, message=words, reasons=reasons)
    if not hopeful:
        closest = nearest(whole, ask)
        words = f"no variant of {ask.target!r} meets {asked}; the nearest that can be met: {nearest_words(closest)}"
        return Reject(permanent=True, message=words, reasons=reasons, nearest=closest)
    first = wanted or hopeful[0]
    retry = _retry_after_s(hopeful, ask, loads, wanted)
    able = f"can meet {asked}" if asked else "can take it"
    because = f"{first.name}: {why_not(first, ask, loads)}"
    return Reject(
        permanent=False,
        message=f"no replica of {ask.target!r} {able} now: {because}; try again in {duration(retry)}",
        reasons=reasons,
        retry_after_s=retry,
        load=wanted.name if wanted and not wanted.replicas else None,
        wanted=wanted.name if wanted else None,
    )


def _retry_after_s(
    hopeful: list[Candidate], ask: Ask, loads: Mapping[str, ReplicaLoad], wanted: Candidate | None
) -> float:
    """Seconds until the first of the hopeful could take the query: a backlog worked off, or a load finished."""
    times: list[float] = []
    for candidate in hopeful:
        if candidate.replicas:
            times += [_excess_s(candidate, ask, loads.get(replica, IDLE)) for replica in candidate.replicas]
        elif candidate.blocked is None and (candidate.loading or candidate is wanted):
            times.append(eta_s(candidate, ask))
    return max(0.01, min(times, default=RECOVERY_S))


def _excess_s(candidate: Candidate, ask: Ask, load: ReplicaLoad) -> float:
    """By how much a replica's backlog is too long for this query, were it to arrive now."""
    ahead = ahead_s(candidate, load, ask.offline)
    too_full = ahead - MAX_QUEUE_S
    if ask.bound_s == inf or ask.on_miss is OnMiss.LATE:
        return too_full
    alone = finish_s(candidate, ask.rows, ReplicaLoad(0, load.slowdown))
    if alone > ask.bound_s:  # slower than its profile: no backlog to wait for, only for it to recover
        return RECOVERY_S
    expected = finish_s(candidate, ask.rows, load, ask.offline) if too_full <= 0 else ahead + alone
    return max(too_full, expected - ask.bound_s)
