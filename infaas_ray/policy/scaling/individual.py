"""The individual strategy: each variant is scaled by its own demand, reactively.

Rules, all rates in rows per second:
- A variant that a query asks to load gets a replica at once; so does one that lost its last replica while in use.
- A variant that is wanted, but not loaded, gets one when the demand reaches `min_rate_qps`.
- A variant gets more replicas when capacity / demand falls below `slack`. Demand for growing is what *wants* the
  variant, so that what another variant serves meanwhile still counts; capacity is the saturation rate of the starting
  and the ready. Where replicas refuse although they should have capacity (tight bounds, a shared machine), the rate
  that they managed counts as theirs for some minutes, and the number at most doubles per step.
- Replicas that compute on a processor never outnumber its cores: one more would only share them.
- A replica is drained when both what wants and what is served by the variant fit without it, for the longer of
  its load time and `downscale_delay_s`; the last one only after `idle_timeout_s` without use.
- Where there is no room, idle replicas of others make it; else the variant is blocked for `block_s`, and demand for
  it moves to the next best (`selection` skips blocked variants).
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.scaling.room import make_room
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.strategy import Orders, Situation
from infaas_ray.policy.traffic import Demand

_REFUSED_SHARE = 0.02  # of the demand, from which refusals tell that capacity is less than profiled
_LEARNED_S = 300.0  # for how long a learned capacity holds
_LEARNED_LEAST = 0.25  # of the saturation rate: less is a fault, not a capacity


@dataclass(frozen=True, slots=True)
class _Pending:
    because: str
    until: float


@dataclass(frozen=True, slots=True)
class _Learned:
    rate_qps: float
    until: float


class Individual:
    """Scales each variant by its own demand."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._pending: dict[str, _Pending] = {}
        self._surplus_since: dict[str, float] = {}
        self._learned: dict[str, _Learned] = {}

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        self._note(situation)
        for variant, count in situation.pins.items():
            have = len(situation.fleet.staying(variant, State.STARTING, State.READY))
            self._start(variant, count - have, f"keep_warm asks for {count}, there are {have}", situation, orders)
        self._answer(situation, orders)
        for variant in situation.traffic.wanted():
            if variant in situation.fleet.catalog.offers:
                self._grow(variant, situation, orders)
        for variant in list(situation.fleet.variants()):
            if variant in situation.fleet.catalog.offers:
                self._shrink(variant, situation, orders)

    # ---- loads that were asked for

    def _note(self, situation: Situation) -> None:
        fleet, now = situation.fleet, situation.now
        until = now + self._settings.request_ttl_s
        for variant, because in situation.requests.items():
            if fleet.blocks.reason(variant, now) is None:
                self._pending.setdefault(variant, _Pending(because, until))
        for variant in situation.lost:
            seen = situation.traffic.last_seen(variant)
            if seen is not None and now - seen < self._settings.idle_timeout_s:
                because = f"its last replica was lost, and it was used {now - seen:.1f} s ago"
                self._pending.setdefault(variant, _Pending(because, until))

    def _answer(self, situation: Situation, orders: Orders) -> None:
        fleet = situation.fleet
        for variant, pending in list(self._pending.items()):
            over = situation.now >= pending.until or variant not in fleet.catalog.offers
            if over or fleet.staying(variant, State.STARTING, State.READY):
                del self._pending[variant]
            else:
                self._start(variant, 1, pending.because, situation, orders)

    def _start(self, variant: str, count: int, because: str, situation: Situation, orders: Orders) -> None:
        """Start replicas as far as there is room; make room; block the variant where none can be made."""
        fleet, now = situation.fleet, situation.now
        for _ in range(count):
            if fleet.blocks.reason(variant, now) is not None:
                return
            reason = orders.start(variant, because)
            if reason is None:
                continue
            if not make_room(variant, situation, orders, self._settings.preempt_idle_s):
                fleet.blocks.add(variant, reason, now + self._settings.block_s)
                self._pending.pop(variant, None)
            return

    # ---- more

    def _grow(self, variant: str, situation: Situation, orders: Orders) -> None:
        settings = self._settings
        demand = situation.traffic.demand(variant)
        have = situation.fleet.staying(variant, State.STARTING, State.READY)
        if not have:
            if demand.wanted_qps >= settings.min_rate_qps:
                because = f"wanted by {demand.wanted_qps:.1f} rows/s, and not loaded"
                self._start(variant, 1, because, situation, orders)
            return
        self._learn(variant, demand, have, situation)
        rate = self._rate_qps(variant, situation)
        needed = min(ceil(demand.wanted_qps * settings.slack / rate - 1e-9), settings.max_replicas_per_variant)
        because = (
            f"wanted by {demand.wanted_qps:.1f} rows/s; {len(have)} replicas carry {rate * len(have):.1f} "
            f"at {rate:.1f} each"
        )
        more = min(needed - len(have), len(have))
        if more <= 0:
            return
        more = min(more, self._cores_left(variant, have, situation))
        self._start(variant, more, because, situation, orders)

    def _cores_left(self, variant: str, have: list[Replica], situation: Situation) -> int:
        """How many more replicas would have cores of their own beside their siblings; others would add no capacity."""
        fleet = situation.fleet
        needs = fleet.needs(variant)
        if needs.resource != "CPU":
            return self._settings.max_replicas_per_variant
        all_in_all = sum(cores // needs.threads * workers for cores, workers in fleet.cores().items())
        here = Counter(x.worker for x in have)
        return all_in_all - sum(min(n, fleet.workers[x].cores // needs.threads) for x, n in here.items())

    def _learn(self, variant: str, demand: Demand, have: list[Replica], situation: Situation) -> None:
        """Lower the rate that a replica is trusted with, where settled replicas refuse below it."""
        window_s, now = self._settings.traffic_window_s, situation.now
        settled = all(x.state is State.READY and now - x.since >= window_s for x in have)
        if not settled or demand.refused_qps <= _REFUSED_SHARE * demand.wanted_qps:
            return
        managed = max(0.0, demand.wanted_qps - demand.refused_qps) / len(have)
        least = _LEARNED_LEAST * situation.fleet.catalog.offers[variant].profile.saturation_qps
        rate = max(least, min(managed, self._rate_qps(variant, situation)))
        self._learned[variant] = _Learned(rate, now + _LEARNED_S)

    def _rate_qps(self, variant: str, situation: Situation) -> float:
        """The rate that one replica is trusted with."""
        learned = self._learned.get(variant)
        if learned is not None and situation.now < learned.until:
            return learned.rate_qps
        return situation.fleet.catalog.offers[variant].profile.saturation_qps

    # ---- fewer

    def _shrink(self, variant: str, situation: Situation, orders: Orders) -> None:
        fleet, now, settings = situation.fleet, situation.now, self._settings
        ready = fleet.staying(variant, State.READY)
        if len(ready) <= situation.pins.get(variant, 0) or fleet.of(variant, State.STARTING):
            self._surplus_since.pop(variant, None)
            return
        idle_s = situation.idle_s(variant)
        if len(ready) == 1:
            self._surplus_since.pop(variant, None)
            if idle_s >= settings.idle_timeout_s:
                orders.drain(ready[0].id, f"unused for {idle_s:.0f} s")
            return
        demand = situation.traffic.demand(variant)
        load = max(demand.wanted_qps, demand.served_qps)
        left = self._rate_qps(variant, situation) * (len(ready) - 1)
        if load * settings.slack > left:
            self._surplus_since.pop(variant, None)
            return
        held_s = now - self._surplus_since.setdefault(variant, now)
        if held_s >= max(settings.downscale_delay_s, fleet.start_s(variant)):
            del self._surplus_since[variant]
            because = f"{load:.1f} rows/s fit {len(ready) - 1} replicas, which carry {left:.1f}, for {held_s:.0f} s"
            orders.drain(ready[-1].id, because)
