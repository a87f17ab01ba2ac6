"""The settings of scaling, with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf, isfinite
from typing import Any, ClassVar, Literal, get_args

from infaas_ray.errors import ConfigError

StrategyName = Literal["planner", "static", "individual", "infaas", "queue_length", "proteus", "model_switching"]
_FORBID = {"extra": "forbid"}  # an unknown key in a file is an error


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """How the planner plans.

    - `interval_s`: a new plan is made at least so often; sooner when demand outgrows the plan or machines change.
    - `quantile`: of expected demand, up to which a plan serves it.
    - `head_room`: standard deviations of demand, at the time scale of the latency bound, for which replicas are idle.
    - `utilization`: the share of a machine's cores or devices that may be busy.
    - `hold_s`: for how long a plan is expected to hold; the price of boots and loads is spread over it.
    - `refusal_factor`: what refusing costs, as a multiple of serving.
    - `degrade_factor`, `late_factor`: the same of an answer that is a little less accurate than asked, or a little
      late, to queries that accept it (`on_miss`); the worse it is, the nearer its price comes to that of refusing.
    - `spot_factor`: by how much a spot machine counts as dearer than its price, for the trouble of losing it.
    - `overhead_s`: of a latency bound, what the way to the replica and back takes.
    - `release_s`: for how long a machine must be too many before it is given back; at least its boot time.
    - `waiting_usd_per_s`: what it is worth that a query need not wait a second for a cold start; 0 keeps nothing for
      classes that are silent.
    - `time_limit_s`, `gap`: when the solver may stop.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    interval_s: float = 10.0
    quantile: float = 0.7
    head_room: float = 1.3
    utilization: float = 0.9
    hold_s: float = 300.0
    refusal_factor: float = 20.0
    degrade_factor: float = 5.0
    late_factor: float = 5.0
    spot_factor: float = 1.2
    overhead_s: float = 0.003
    release_s: float = 30.0
    waiting_usd_per_s: float = 0.001
    time_limit_s: float = 1.0
    gap: float = 0.005

    def __post_init__(self) -> None:
        _check("planner", self, {x.name: 0.0 for x in fields(self)} | _PLANNER_LEAST, _PLANNER_MOST)


_PLANNER_LEAST = {
    "interval_s": 0.5,
    "quantile": 0.5,
    "utilization": 0.05,
    "hold_s": 1.0,
    "refusal_factor": 1.0,
    "degrade_factor": 1.0,
    "late_factor": 1.0,
    "spot_factor": 1.0,
    "time_limit_s": 0.01,
}
_PLANNER_MOST = {"interval_s": 3600.0, "quantile": 0.999, "utilization": 1.0, "time_limit_s": 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """When workers are added and given back, by the rules of INFaaS (`machine_rules`).

    - `period_s`: how often to look.
    - `busy_share`: use of some hardware on all workers that have it, above which one with it is added.
    - `overloaded_share`: share of workers with overloaded variants above which one is added.
    - `idle_s`: how long a worker must be empty before it is given back.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    period_s: float = 2.0
    busy_share: float = 0.8
    overloaded_share: float = 0.8
    idle_s: float = 30.0

    def __post_init__(self) -> None:
        _check("machines", self, {"period_s": 0.0, "busy_share": 0.01, "overloaded_share": 0.0, "idle_s": 0.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilizationSettings:
    """When workers are added and given back by their use, as Kubernetes' horizontal autoscaler does (`utilization`).

    - `target_share`: use of the workers that is aimed at.
    - `tolerance`: how far off it may be, as a share of it, without anything being done.
    - `up_delay_s`, `down_delay_s`: how long more or fewer must be right before it is done.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    target_share: float = 0.8
    tolerance: float = 0.1
    up_delay_s: float = 0.0
    down_delay_s: float = 300.0

    def __post_init__(self) -> None:
        least = {"target_share": 0.01, "tolerance": 0.0, "up_delay_s": 0.0, "down_delay_s": 0.0}
        _check("utilization", self, least)


@dataclass(frozen=True, slots=True, kw_only=True)
class InfaasSettings:
    """The strategy of INFaaS.

    - `period_s`: how often each variant is looked at.
    - `load_weight_per_s`: what a second of loading costs, as a share of what a second of the replica costs (lambda).
    - `slow_cpu`, `slow_gpu`: times the profiled latency from which a replica is interfered; cleared below `clear_*`.
    - `backlog_s`: work ahead of a variant's replicas from which it is overloaded.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    period_s: float = 1.0
    load_weight_per_s: float = 0.1
    slow_cpu: float = 2.5
    clear_cpu: float = 1.5
    slow_gpu: float = 1.5
    clear_gpu: float = 1.25
    backlog_s: float = 0.8

    def __post_init__(self) -> None:
        least = {"period_s": 0.0, "load_weight_per_s": 0.0, "backlog_s": 0.01, "clear_cpu": 1.2, "clear_gpu": 1.2}
        _check("infaas", self, least | {"slow_cpu": self.clear_cpu, "slow_gpu": self.clear_gpu})


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLengthSettings:
    """Replicas by what is ongoing; the defaults are those of Ray Serve.

    - `target_ongoing`: rows under way per replica.
    - `up_delay_s`, `down_delay_s`: how long more or fewer replicas must be right before it is done.
    - `node_idle_s`: how long a worker must be empty before it is given back.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    target_ongoing: float = 2.0
    up_delay_s: float = 30.0
    down_delay_s: float = 600.0
    node_idle_s: float = 300.0

    def __post_init__(self) -> None:
        least = {"target_ongoing": 0.01, "up_delay_s": 0.0, "down_delay_s": 0.0, "node_idle_s": 0.0}
        _check("queue_length", self, least)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProteusSettings:
    """The strategy of Proteus.

    - `period_s`: how often it plans.
    - `head_room`: demand is planned for times this; lowered by `head_room_step` until it can be served, to
      `head_room_least` at last.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    period_s: float = 10.0
    head_room: float = 1.05
    head_room_step: float = 0.05
    head_room_least: float = 0.2

    def __post_init__(self) -> None:
        least = {"period_s": 0.0, "head_room_step": 0.01, "head_room_least": 0.01, "head_room": self.head_room_least}
        _check("proteus", self, least)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSwitchingSettings:
    """The strategy of Model-Switching.

    - `period_s`: how often each family is looked at.
    - `back_delay_s`: how long a more accurate variant must be right before the family goes back to it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    period_s: float = 1.0
    back_delay_s: float = 30.0

    def __post_init__(self) -> None:
        _check("model_switching", self, {"period_s": 0.0, "back_delay_s": 0.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """How replicas are started and retired.

    - `strategy`: "planner" has the cheapest fleet for all demand computed; "individual" scales each variant by its own
      demand; "static" keeps exactly `keep_warm` (Clipper+); "infaas" replicates, upgrades and downgrades as INFaaS
      does; "queue_length" scales the variants of `keep_warm` by what is ongoing, as Ray Serve and Kubernetes do;
      "proteus" plans accuracy for a given cluster; "model_switching" has one variant per target at a time.
    - `fixed`: "individual" uses the variants of `keep_warm` only, each at least that often (SM+).
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
    - `machines`: workers of "individual" and "infaas"; `utilization`: those of "proteus" and "model_switching".
    - `planner`, `infaas`, `queue_length`, `proteus`, `model_switching`: of the strategy of that name.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    strategy: StrategyName = "planner"
    fixed: bool = False
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
    machines: MachineSettings = field(default_factory=MachineSettings)
    utilization: UtilizationSettings = field(default_factory=UtilizationSettings)
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    infaas: InfaasSettings = field(default_factory=InfaasSettings)
    queue_length: QueueLengthSettings = field(default_factory=QueueLengthSettings)
    proteus: ProteusSettings = field(default_factory=ProteusSettings)
    model_switching: ModelSwitchingSettings = field(default_factory=ModelSwitchingSettings)

    def __post_init__(self) -> None:
        if self.strategy not in get_args(StrategyName):
            names = ", ".join(map(repr, get_args(StrategyName)))
            raise ConfigError(f"scaling.strategy must be one of {names}, not {self.strategy!r}")
        _check("", self, _LEAST)
        if any(count < 0 for count in self.keep_warm.values()):
            raise ConfigError("scaling.keep_warm must map targets to counts of replicas, 0 or more")


_LEAST: Mapping[str, float] = {
    "slack": 1.0,
    "traffic_window_s": 0.1,
    "oversubscription": 0.1,
    "max_replicas_per_variant": 1,
    "min_rate_qps": 0.0,
    "downscale_delay_s": 0.0,
    "idle_timeout_s": 0.0,
    "preempt_idle_s": 0.0,
    "start_overhead_s": 0.0,
    "block_s": 0.0,
    "request_ttl_s": 0.0,
}


def _check(section: str, settings: object, least: Mapping[str, float], most: Mapping[str, float] | None = None) -> None:
    """Raise ConfigError where a setting is not a number from its least to its most, where there is one."""
    for name, smallest in least.items():
        value, largest = getattr(settings, name), (most or {}).get(name, inf)
        if not isfinite(value) or not smallest <= value <= largest:
            where = f"scaling.{section}.{name}" if section else f"scaling.{name}"
            limits = f"of at least {smallest:g}" if largest == inf else f"from {smallest:g} to {largest:g}"
            raise ConfigError(f"{where} must be a number {limits}, not {value!r}")
