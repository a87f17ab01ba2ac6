"""The settings of scaling, with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, ClassVar, Literal

from infaas_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """How replicas are started and retired.

    - `strategy`: "individual" scales each variant by its own demand; "static" keeps exactly `keep_warm`.
    - `keep_warm`: replicas that are always there, by target (a use case or architecture means its cheapest variant).
    - `slack`: capacity over demand below which a variant gets another replica.
    - `min_rate_qps`: demand in rows per second from which a variant that is not loaded is loaded for good.
    - `downscale_delay_s`: how long a replica must be too many before it is drained (at least its load time).
    - `idle_timeout_s`: how long a variant must be unused before its last replica is drained.
    - `preempt_idle_s`: how long one must be unused before it makes room for another.
    - `traffic_window_s`: over how long demand is smoothed.
    - `oversubscription`: threads of replicas per processor.
    - `max_replicas_per_variant`: no more than these.
    - `start_overhead_s`: what a start takes beyond the profiled load, until it is learned here.
    - `block_s`: for how long a variant without room is not tried again.
    - `request_ttl_s`: for how long a load that waits for room is remembered.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # an unknown key in a file is an error

    strategy: Literal["static", "individual"] = "individual"
    keep_warm: Mapping[str, int] = field(default_factory=dict)
    slack: float = 1.05
    min_rate_qps: float = 1.0
    downscale_delay_s: float = 10.0
    idle_timeout_s: float = 60.0
    preempt_idle_s: float = 3.0
    traffic_window_s: float = 3.0
    oversubscription: float = 4.0
    max_replicas_per_variant: int = 64
    start_overhead_s: float = 0.8
    block_s: float = 5.0
    request_ttl_s: float = 30.0

    def __post_init__(self) -> None:
        if self.strategy not in ("static", "individual"):
            raise ConfigError(f"scaling.strategy must be 'static' or 'individual', not {self.strategy!r}")
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
    if x.name not in ("strategy", "keep_warm")
}
