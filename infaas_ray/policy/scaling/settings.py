"""The settings of scaling, with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf, isfinite
from typing import Any, ClassVar, Literal, get_args

from infaas_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """How the planner plans.

    - `interval_s`: a new plan is made at least so often; sooner when demand outgrows the plan or machines change.
    - `quantile`: of expected demand, up to which a plan serves it.
    - `head_room`: standard deviations of demand, at the time scale of the latency bound, for which replicas are idle.
    - `utilization`: the share of a machine's cores or devices that may be busy.
    - `hold_s`: for how long a plan is expected to hold; the price of boots and loads is spread over it.
    - `refusal_factor`: what refusing costs, as a multiple of serving.
    - `spot_factor`: by how much a spot machine counts as dearer than its price, for the trouble of losing it.
    - `overhead_s`: of a latency bound, what the way to the replica and back takes.
    - `release_s`: for how long a machine must be too many before it is given back; at least its boot time.
    - `waiting_usd_per_s`: what it is worth that a query need not wait a second for a cold start.
    - `time_limit_s`, `gap`: when the solver may stop.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    interval_s: float = 5.0
    quantile: float = 0.95
    head_room: float = 2.3
    utilization: float = 0.9
    hold_s: float = 300.0
    refusal_factor: float = 20.0
    spot_factor: float = 1.2
    overhead_s: float = 0.003
    release_s: float = 30.0
    waiting_usd_per_s: float = 0.001
    time_limit_s: float = 1.0
    gap: float = 0.005

    def __post_init__(self) -> None:
        for x in fields(self):
            value = getattr(self, x.name)
            least, most = _PLANNER_RANGES.get(x.name, (0.0, inf))
            if not isfinite(value) or not least <= value <= most:
                raise ConfigError(
                    f"scaling.planner.{x.name} must be a number from {least:g} to {most:g}, not {value!r}"
                )


_PLANNER_RANGES: Mapping[str, tuple[float, float]] = {
    "interval_s": (0.5, 3600.0),
    "quantile": (0.5, 0.999),
    "utilization": (0.05, 1.0),
    "hold_s": (1.0, inf),
    "refusal_factor": (1.0, inf),
    "spot_factor": (1.0, inf),
    "time_limit_s": (0.01, 60.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """How replicas are started and retired.

    - `strategy`: "planner" has the cheapest fleet for all demand computed; "individual" scales each variant by its own
      demand; "static" keeps exactly `keep_warm`.
    - `planner`: see `PlannerSettings`.
    - `keep_warm`: replicas that are always there, by target (a use case or architecture means its cheapest variant).
    - `slack`: capacity over demand below which a variant gets another replica.
    - `min_rate_qps`: demand in rows per second from which a variant that is not loaded is loaded for good.
    - `downscale_delay_s`: how long a replica must be too many before it is drained (at least its load time).
    - `idle_timeout_s`: how long a variant must be unused before its last replica is drained.
    - `preempt_idle_s`: how long one must be unused before it makes room for another.
    - `traffic_window_s`: over how long demand is smoothed.
    - `oversubscription`: threads of replicas per processor.
    - `max_replicas_per_variant`: no more than these.
    - `start_overhead_s`: what a start takes beyond the profiled load, until it is learned here; 0.8 is nearer the
      truth where no shells wait.
    - `block_s`: for how long a variant without room is not tried again.
    - `request_ttl_s`: for how long a load that waits for room is remembered.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # an unknown key in a file is an error

    strategy: Literal["planner", "static", "individual"] = "individual"
    planner: PlannerSettings = PlannerSettings()
    keep_warm: Mapping[str, int] = field(default_factory=dict)
    slack: float = 1.05
    min_rate_qps: float = 1.0
    downscale_delay_s: float = 10.0
    idle_timeout_s: float = 60.0
    preempt_idle_s: float = 3.0
    traffic_window_s: float = 3.0
    oversubscription: float = 4.0
    max_replicas_per_variant: int = 64
    start_overhead_s: float = 0.3
    block_s: float = 5.0
    request_ttl_s: float = 30.0

    def __post_init__(self) -> None:
        names = get_args(type(self).__dataclass_fields__["strategy"].type)
        if self.strategy not in names:
            raise ConfigError(f"scaling.strategy must be one of {', '.join(names)}, not {self.strategy!r}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isfinite(value) or value < least:
                raise ConfigError(f"scaling.{name} must be a number of at least {least:g}, not {value!r}")
        if any(count < 0 for count in self.keep_warm.values()):
            raise ConfigError("scaling.keep_warm must map targets to counts of replicas, 0 or more")


_LEAST: Mapping[str, float] = {
    x.name: {"slack": 1.0, "traffic_window_s": 0.1, "oversubscription": 0.1, "max_replicas_per_variant": 1}.get(
        x.name, 0
    )
    for x in fields(ScalingSettings)
    if x.name not in ("strategy", "keep_warm", "planner")
}
