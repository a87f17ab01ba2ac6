"""The strategy of INFaaS: variants replicate, upgrade and downgrade; machines follow.

After Romero et al., "INFaaS: Automated Model-less Inference Serving", USENIX ATC 2021, with its greedy heuristic.
Rules, every `infaas.period_s`:
- Up: where the throughput of a variant's replicas over its load is below `slack`, the cheapest option by the cost of
  the integer program (`infaas_costs`) that finds room: replicate it, or have one that does more take over.
- Where nothing finds room, the machine-level rules bring a worker (`machine_rules`).
- Down: where the load fits without one replica, with slack to spare twice, or a cheaper variant would carry it, and
  that held for as many slots as the variant takes to load, the replica is drained, or the cheaper variant takes over.
  The last replica goes when it was unused for `idle_timeout_s`.
- Taking over: new before old; the old replicas drain when the new are ready, and the new stay until their load is seen.
- Interfered replicas move (`interference`).
A load that a query asks for is started at once, on the worker that it fits best; where it has no room and another
variant of its use case has, it is refused for a while, so that the other is asked for.
"""

from dataclasses import dataclass
from math import inf

from infaas_ray.policy.lifecycle import State
from infaas_ray.policy.scaling.capacity import Capacity
from infaas_ray.policy.scaling.infaas_costs import Costs, Option, loaded
from infaas_ray.policy.scaling.interference import Interference
from infaas_ray.policy.scaling.loads import Loads
from infaas_ray.policy.scaling.machine_rules import MachineRules
from infaas_ray.policy.scaling.packing import can_come, cores_left
from infaas_ray.policy.scaling.room import fewest_neighbours, waits_for_worker
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.policy.scaling.states import States
from infaas_ray.policy.scaling.strategy import Orders, Situation

_PATIENCE = 3.0  # times the start of a replica, after which a taking over that did not come about is given up
_SETTLING = 4.0  # times the smoothing of traffic, after which what a variant has taken over is seen in its load


@dataclass(frozen=True, slots=True)
class _Change:
    """`new` takes over once it has `count` ready replicas."""

    new: str
    count: int
    until: float


class Infaas:
    """Scales variants and machines as INFaaS does."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        self._loads = Loads(settings)
        self._capacity = Capacity(settings.traffic_window_s)
        self._states = States(settings.infaas)
        self._interference = Interference(self._states)
        self._machines = MachineRules(settings.machines, self._states, settings.block_s + 1.0)
        self._changes: dict[str, _Change] = {}
        self._surplus_since: dict[str, float] = {}
        self._settles: dict[str, float] = {}
        self._next = -inf

    def decide(self, situation: Situation, orders: Orders) -> None:
        """Give orders by the rules of this module."""
        self._loads.note(situation)
        self._keep_pins(situation, orders)
        for variant, because in self._loads.awaited(situation):
            if not self._start(variant, 1, because, situation, orders) and not (
                can_come(variant, situation.fleet, situation.now) and waits_for_worker(variant, situation)
            ):
                self._no_room(variant, situation)
        self._finish_changes(situation, orders)
        if situation.now >= self._next:
            self._next = situation.now + self._settings.infaas.period_s
            self._states.update(situation)
            self._interference.decide(situation, orders)
            self._scale(situation, orders)
        self._machines.decide(situation, orders)

    def _keep_pins(self, situation: Situation, orders: Orders) -> None:
        for variant, count in situation.pins.items():
            have = len(situation.fleet.staying(variant, State.STARTING, State.READY))
            if have < count:
                self._start(variant, count - have, f"keep_warm asks for {count}, there are {have}", situation, orders)

    def _scale(self, situation: Situation, orders: Orders) -> None:
        costs = Costs(situation, self._capacity, self._settings)
        for variant, load in loaded(situation, costs).items():
            have = situation.fleet.staying(variant, State.STARTING, State.READY)
            self._capacity.learn(variant, have, situation)
            busy = self._interference.variants(situation) | self._changing()
            if variant in busy or situation.fleet.blocks.reason(variant, situation.now) is not None:
                continue
            if load * self._settings.slack > costs.rate_qps(variant) * len(have):
                self._surplus_since.pop(variant, None)
                self._up(variant, costs, situation, orders)
            elif have:
                self._down(variant, costs, situation, orders)

    def _changing(self) -> set[str]:
        return {*self._changes, *(x.new for x in self._changes.values())}

    # ---- up

    def _up(self, variant: str, costs: Costs, situation: Situation, orders: Orders) -> None:
        options = [x for x in costs.more(variant) if x.variant == variant or x.variant not in self._changing()]
        load = costs.load_qps(variant)
        because = f"{load:.1f} rows/s load {variant}, whose replicas carry {self._carried(variant, costs):.1f}"
        for option in options:
            if self._choose(variant, option, because, situation, orders):
                return
        for option in options:
            if self._machines.homeless.add(option.variant, option.more, situation):
                return

    def _carried(self, variant: str, costs: Costs) -> float:
        return costs.rate_qps(variant) * costs.have(variant)

    def _choose(self, variant: str, option: Option, because: str, situation: Situation, orders: Orders) -> bool:
        """Take an option if at least one of its replicas finds room; the others wait for a worker."""
        if option.more:
            started = self._start(option.variant, option.more, because, situation, orders)
            if not started:
                self._machines.homeless.housed(option.variant)  # another option may do
                return False
        if option.takes_over:
            until = situation.now + _PATIENCE * situation.fleet.start_s(option.variant) + self._settings.block_s
            self._changes[variant] = _Change(option.variant, option.count, until)
        return True

    def _start(self, variant: str, count: int, because: str, situation: Situation, orders: Orders) -> int:
        """Start replicas as far as they have room and cores of their own; how many. Workers are to come for others."""
        fleet = situation.fleet
        if fleet.blocks.reason(variant, situation.now) is not None:
            return 0
        have = fleet.staying(variant, State.STARTING, State.READY)
        here = min(count, max(cores_left(variant, have, fleet, count), 0 if have else 1))
        started = 0
        while started < here and orders.start(variant, because) is None:
            started += 1
        if started:
            self._machines.homeless.housed(variant)
        if started < count:
            self._machines.homeless.add(variant, count - started, situation)
        return started

    def _no_room(self, variant: str, situation: Situation) -> None:
        """A load that was asked for found no room: it is refused for a while, so that another may be asked for."""
        until = situation.now + self._settings.block_s
        situation.fleet.blocks.add(variant, "no worker has room for it", until)
        self._loads.forget(variant)

    # ---- taking over

    def _finish_changes(self, situation: Situation, orders: Orders) -> None:
        fleet, now = situation.fleet, situation.now
        for old, change in list(self._changes.items()):
            ready = len(fleet.staying(change.new, State.READY))
            if ready >= change.count:
                del self._changes[old]
                self._settles[change.new] = now + _SETTLING * self._settings.traffic_window_s
                going = fleet.staying(old, State.READY)[situation.pins.get(old, 0) :]
                for replica in going:
                    orders.drain(replica.id, f"{change.new} has taken over with {ready} replicas")
            elif now >= change.until or change.new not in fleet.catalog.offers:
                del self._changes[old]

    # ---- down

    def _down(self, variant: str, costs: Costs, situation: Situation, orders: Orders) -> None:
        fleet, now = situation.fleet, situation.now
        ready = fleet.staying(variant, State.READY)
        settled = now >= self._settles.get(variant, -inf) and not fleet.staying(variant, State.STARTING)
        if len(ready) <= situation.pins.get(variant, 0) or not settled:
            self._surplus_since.pop(variant, None)
            return
        idle_s = situation.idle_s(variant)
        if len(ready) == 1 and idle_s >= self._settings.idle_timeout_s:
            orders.drain(ready[0].id, f"unused for {idle_s:.0f} s")
            return
        fewer = self._fits_without_one(variant, len(ready), costs)
        option = None if fewer else costs.cheaper(variant)
        if not fewer and (option is None or option.variant in self._changing()):
            self._surplus_since.pop(variant, None)
            return
        held_s = now - self._surplus_since.setdefault(variant, now)
        if held_s < max(fleet.start_s(variant), self._settings.infaas.period_s):
            return
        del self._surplus_since[variant]
        load = costs.load_qps(variant)
        if option is None:
            because = f"{load:.1f} rows/s fit {len(ready) - 1} replicas, for {held_s:.0f} s"
            orders.drain(fewest_neighbours(ready, fleet).id, because)
        else:
            because = f"it carries the {load:.1f} rows/s of {variant} for less, for {held_s:.0f} s"
            self._choose(variant, option, because, situation, orders)

    def _fits_without_one(self, variant: str, ready: int, costs: Costs) -> bool:
        load = costs.load_qps(variant) * self._settings.slack**2
        return ready > 1 and load <= costs.rate_qps(variant) * (ready - 1)
