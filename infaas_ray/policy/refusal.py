"""Refuses a query, honestly: for good or for now, why, and what would help.

Permanent: no variant keeps the bounds that the query insists on, even on an idle replica; then the closest SLO that
could be met is named. Otherwise the refusal says after which time the same query could be taken: when the first
backlog is short enough, or the first load is done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf

from infaas_ray.domain import SLO, OnMiss
from infaas_ray.policy.candidates import (
    IDLE,
    MAX_QUEUE_S,
    Ask,
    Candidate,
    ReplicaLoad,
    Shortlist,
    ahead_s,
    eta_s,
    finish_s,
)
from infaas_ray.policy.reasons import REASONS_SHOWN, count, duration, nearest, nearest_words, slo_words, why_not

RECOVERY_S = 2.0  # where all that could help is blocked or slow, a guess at how long that lasts


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal in words: `reasons` says of the cheapest candidates why each lost, `nearest` is an SLO to ask for."""

    message: str
    reasons: Mapping[str, str] = field(default_factory=dict)
    nearest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Refuse the query.

    `permanent`: no variant can ever meet the SLO, and `nearest` holds the closest one that could be met. Otherwise
    it may succeed after `retry_after_s`, sooner if the variant `load` is loaded meanwhile. `tell` puts the refusal
    into words. Both cost more than the decision: ask when somebody listens, and before loads change.
    """

    permanent: bool
    tell: Callable[[], Refusal]
    retry: Callable[[], float] = float
    load: str | None = None
    wanted: str | None = None

    @property
    def retry_after_s(self) -> float:
        """Seconds after which the query may succeed; 0 where it never will."""
        return self.retry()


def allowed(candidate: Candidate, ask: Ask) -> bool:
    """Whether the variant, on an idle replica, keeps the bounds that `on_miss` does not give up."""
    return (
        candidate.usd_per_1k <= ask.max_usd
        and (candidate.accuracy >= ask.min_accuracy or ask.on_miss is OnMiss.DEGRADE)
        and (candidate.latency_s(ask.rows) <= ask.bound_s or ask.on_miss is OnMiss.LATE)
    )


def refuse(short: Shortlist, ask: Ask, slo: SLO, loads: Mapping[str, ReplicaLoad], wanted: Candidate | None) -> Reject:
    """The refusal of a query that no candidate can take; `wanted` as selection found it."""
    if not _hopeful(short, ask):
        return Reject(permanent=True, tell=partial(_never, short, ask, slo, loads))
    retry = partial(_retry_after_s, short, ask, loads, wanted)
    return Reject(
        permanent=False,
        tell=partial(_not_now, short, ask, slo, loads, wanted, retry),
        retry=retry,
        load=wanted.name if wanted and not wanted.replicas else None,
        wanted=wanted.name if wanted else None,
    )


def _hopeful(short: Shortlist, ask: Ask) -> bool:
    """Whether any variant could take the query on an idle replica."""
    able = [x for x in short.worth_asking(ask.rows) if allowed(x, ask)]
    if all(x.broken for x in able) and able:  # what they beat may be whole
        able = [x for x in short.every if allowed(x, ask)]
    return not all(x.broken for x in able)


def _asked(ask: Ask, slo: SLO) -> str:
    return slo_words(slo) + (f" for {count(ask.rows)}" if ask.rows > 1 else "")


def _reasons(short: Shortlist, ask: Ask, loads: Mapping[str, ReplicaLoad]) -> dict[str, str]:
    return {x.name: reason for x in short.every[:REASONS_SHOWN] if (reason := why_not(x, ask, loads))}


def _never(short: Shortlist, ask: Ask, slo: SLO, loads: Mapping[str, ReplicaLoad]) -> Refusal:
    reasons = _reasons(short, ask, loads)
    whole = [x for x in short.every if not x.broken]
    if not whole:
        first = short.every[0]
        return Refusal(message=f"no variant of {ask.target!r} can run: {first.name}: {first.blocked}", reasons=reasons)
    closest = nearest(whole, ask)
    words = (
        f"no variant of {ask.target!r} meets {_asked(ask, slo)}; the nearest that can be met: {nearest_words(closest)}"
    )
    return Refusal(message=words, reasons=reasons, nearest=closest)


def _not_now(
    short: Shortlist,
    ask: Ask,
    slo: SLO,
    loads: Mapping[str, ReplicaLoad],
    wanted: Candidate | None,
    retry: Callable[[], float],
) -> Refusal:
    first = wanted or next(x for x in short.every if not x.broken and allowed(x, ask))
    asked = _asked(ask, slo)
    able = f"can meet {asked}" if asked else "can take it"
    because = f"{first.name}: {why_not(first, ask, loads)}"
    return Refusal(
        message=f"no replica of {ask.target!r} {able} now: {because}; try again in {duration(retry())}",
        reasons=_reasons(short, ask, loads),
    )


def _retry_after_s(short: Shortlist, ask: Ask, loads: Mapping[str, ReplicaLoad], wanted: Candidate | None) -> float:
    """Seconds until the first candidate could take the query: a backlog worked off, or a load finished."""
    times: list[float] = []
    for candidate in short.ready:
        if allowed(candidate, ask):
            times += [_excess_s(candidate, ask, loads.get(replica, IDLE)) for replica in candidate.replicas]
    for candidate in short.loading:
        if allowed(candidate, ask):
            times.append(eta_s(candidate, ask))
    if wanted is not None and not wanted.replicas:
        times.append(eta_s(wanted, ask))
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
