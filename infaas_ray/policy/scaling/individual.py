"""The individual strategy: each variant is scaled by its own demand, reactively.

Rules, all rates in rows per second:
- A variant that a query asks to load gets a replica at once; so does one that lost its last replica while in use.
- A variant that is wanted, but not loaded, gets one when the demand reaches `min_rate_qps`.
- A variant gets more replicas when capacity / demand falls below `slack`. Demand for growing is what *wants* the
  variant, so that what another variant serves meanwhile still counts; capacity is that of the starting and the ready
  (`capacity`), and the number at most doubles per step.
- Replicas that compute on a processor never outnumber its cores: one more would only share them.
- A replica is drained when both what wants and what is served by the variant fit without it, with slack to spare
  twice, for the longer of its load time and `downscale_delay_s`; the last one only after `idle_timeout_s` without use.
- Where there is no room, a worker is asked for (`machine_rules`); idle replicas of others make room. Where neither can
  be, or another variant of its use case has room now, the variant is blocked for `block_s`, and demand for it moves to
  the next best (`selection` skips blocked variants).

With `fixed` it is the baseline SM+ of INFaaS: the variants of `keep_warm` and no others, each replicated and removed by
its own demand, at least as often as listed; no replica leaves because another variant needs its room.
"""

from math import ceil, inf

from infaas_ray.policy.lifecycle import Replica, State
from infaas_ray.policy.scaling.capacity import Capacity
from infaas_ray.policy.scaling.fixed import Fixed
from infaas_ray.policy.scaling.loads import Loads
from infaas_ray.policy.scaling.machine_rules import MachineRules
from infaas_ray.policy.scaling.packing import cores_left
from infaas_ray.policy.scaling.room import fewest_neighbours, make_room, waits_for_worker
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.states import States
from infaas_ray.policy.scaling.strategy import Orders, Situation


class Individual:
    """Scales each variant by its own demand."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._fixed = Fixed("only the variants of keep_warm are used") if settings.fixed else None
        self._loads = Loads(settings)
        self._capacity = Capacity(settings.traffic_window_s)
        self._states = States(settings.infaas)
        self._machines = MachineRules(settings.machines, self._states, settings.block_s + 1.0)
        self._surplus_since: dict[str, float] = {}

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        if self._fixed is not None:
            self._fixed.only(situation.pins, situation.fleet)
        self._states.update(situation)
        self._loads.note(situation)
        for variant, count in situation.pins.items():
            have = len(situation.fleet.staying(variant, State.STARTING, State.READY))
            self._start(variant, count - have, f"keep_warm asks for {count}, there are {have}", situation, orders)
        for variant, because in self._loads.awaited(situation):
            self._start(variant, 1, because, situation, orders)
        for variant in situation.traffic.wanted():
            if variant in situation.fleet.catalog.offers:
                self._grow(variant, situation, orders)
        for variant in list(situation.fleet.variants()):
            if variant in situation.fleet.catalog.offers:
                self._shrink(variant, situation, orders)
        self._machines.decide(situation, orders)

    def _start(self, variant: str, count: int, because: str, situation: Situation, orders: Orders) -> None:
        """Start replicas as far as there is room; else have room made or a worker come; else block the variant."""
        fleet, now = situation.fleet, situation.now
        for left in range(count, 0, -1):
            if fleet.blocks.reason(variant, now) is not None:
                return
            reason = orders.start(variant, because)
            if reason is None:
                self._machines.homeless.housed(variant)
                continue
            comes = self._machines.homeless.add(variant, left, situation)
            least_s = inf if self._fixed is not None else self._settings.preempt_idle_s
            if not (comes and waits_for_worker(variant, situation)) and not make_room(
                variant, situation, orders, least_s
            ):
                fleet.blocks.add(variant, reason, now + self._settings.block_s)
                self._loads.forget(variant)
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
        self._capacity.learn(variant, have, situation)
        rate = self._capacity.rate_qps(variant, situation)
        needed = min(ceil(demand.wanted_qps * settings.slack / rate - 1e-9), settings.max_replicas_per_variant)
        because = (
            f"wanted by {demand.wanted_qps:.1f} rows/s; {len(have)} replicas carry {rate * len(have):.1f} "
            f"at {rate:.1f} each"
        )
        self._add(variant, min(needed - len(have), len(have)), have, because, situation, orders)

    def _add(
        self, variant: str, more: int, have: list[Replica], because: str, situation: Situation, orders: Orders
    ) -> None:
        """Start `more` replicas as far as they have cores of their own; let workers come for the others."""
        if more <= 0:
            return
        here = cores_left(variant, have, situation.fleet, more)
        self._start(variant, min(more, here), because, situation, orders)
        if more > here:
            self._machines.homeless.add(variant, more - here, situation)

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
        left = self._capacity.rate_qps(variant, situation) * (len(ready) - 1)
        if load * settings.slack**2 > left:
            self._surplus_since.pop(variant, None)
            return
        held_s = now - self._surplus_since.setdefault(variant, now)
        if held_s >= max(settings.downscale_delay_s, fleet.start_s(variant)):
            del self._surplus_since[variant]
            because = f"{load:.1f} rows/s fit {len(ready) - 1} replicas, which carry {left:.1f}, for {held_s:.0f} s"
            orders.drain(fewest_neighbours(ready, fleet).id, because)
