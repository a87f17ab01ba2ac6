"""The simulated control loop: facts in, turns of the live autoscaler, orders and routing tables out.

Mirrors `serving/controller`: a turn every `TURN_S`, and at once (after `delay_s`) when something happened that is not
only a measurement. Each turn can be a line of a decision log.
"""

from collections.abc import Callable

from infaas_ray.policy.autoscaler import Autoscaler
from infaas_ray.policy.messages import Action, Event, TrafficReported, WorkerReported
from infaas_ray.policy.replay import encode_header, encode_turn
from infaas_ray.policy.rhythm import TURN_S
from infaas_ray.policy.routing import RoutingTable
from infaas_ray.simulator.engine import Engine

Log = Callable[[bytes], None]


class Control:
    """Gives events to the autoscaler, its orders to `perform`, and new tables to `publish`."""

    def __init__(
        self,
        engine: Engine,
        autoscaler: Autoscaler,
        perform: Callable[[Action], None],
        publish: Callable[[RoutingTable], None],
        delay_s: float,
        log: Log | None = None,
    ) -> None:
        self.turns = 0
        self._engine = engine
        self._autoscaler = autoscaler
        self._perform = perform
        self._publish = publish
        self._delay_s = delay_s
        self._log = log
        self._events: list[Event] = []
        self._woken = False
        self._arranged = 0
        self._version = -1
        if log is not None:
            log(encode_header(autoscaler.settings) + b"\n")

    def begin(self) -> None:
        """Take the first turn now."""
        self._turn(self._arranged)

    def tell(self, event: Event) -> None:
        """Note a fact for the next turn, which is soon unless the fact is only a measurement."""
        self._events.append(event)
        if not self._woken and not isinstance(event, TrafficReported | WorkerReported):
            self._woken = True
            self._arrange(self._delay_s)

    def _arrange(self, seconds: float) -> None:
        self._arranged += 1
        self._engine.after(seconds, self._turn, self._arranged)

    def _turn(self, number: int) -> None:
        if number != self._arranged:
            return
        self._woken = False
        self.turns += 1
        now = self._engine.now
        events, self._events = self._events, []
        actions = self._autoscaler.step(events, now)
        if self._log is not None:
            self._log(encode_turn(now, events, actions) + b"\n")
        table = self._autoscaler.routing_table(now)
        if table.version != self._version:
            self._version = table.version
            self._publish(table)
        for action in actions:
            self._perform(action)
        if not self._woken:
            self._arrange(TURN_S)
