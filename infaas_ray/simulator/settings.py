"""What the simulated world is like beside catalogue and workload: delays, jitter, and what goes wrong how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from infaas_ray.errors import ConfigError

_LEAST = {"routers": 1}


def _most(name: str) -> float:
    """What a number of that name may be at most: seconds up to a month, deviations of a logarithm up to 3."""
    if name.endswith("_jitter"):
        return 3.0
    return 30 * 86_400.0 if name.endswith(("_s", "_s_per_variable")) else 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    """The world, in seconds, shares and events an hour.

    - `workers`: machines that are there at the beginning, by worker type; where a type is not named, its least number.
    - `routers`: arrivals take turns among them.
    - `way_s`: mean time of a query to its replica and back, outside queue and compute, on a quiet machine. With
      `way_p95_s` and `way_p99_s` it is the median, and ways are drawn through these quantiles.
    - `way_loop_s`, `way_work_s`: the parts of it in which a processor of the replica's machine computes. Neighbours
      slow them down, and they slow neighbours. The first is work of one event loop, which does it for one query after
      another (the busiest of the router's and, where they are on the same machine, of those who ask); the second is all
      other work, done side by side.
    - `control_delay_s`: from a fact to the controller's turn, and from an order to who performs it.
    - `table_delay_s`: from a new routing table to the routers.
    - `start_overhead_s`: what the start of a replica takes beyond the profiled load: the making of its process.
    - `stop_s`: how long a replica takes to end.
    - `start_jitter`, `boot_jitter`: standard deviation of the logarithm of starts and of boots.
    - `start_failures`, `launch_failures`: shares of starts and of launches that fail, the latter after
      `launch_failure_s`.
    - `most_workers`: what the provider has, by worker type; more launches fail.
    - `replica_crashes_per_hour`, `worker_crashes_per_hour`: of each one that runs, without notice.
    - `interruptions_per_hour`: of each spot machine, with `notice_s` of notice.
    - `loss_noticed_s`: until a router knows that a replica is gone.
    - `least_billed_s`: a machine is paid from its launch (not from when it can be used) to its end, at least so long.
    - `solve_s`, `solve_s_per_variable`: what making a plan takes: a constant, and per variable of the problem.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # an unknown key in a file is an error

    workers: Mapping[str, int] = field(default_factory=dict)
    routers: int = 1
    way_s: float = 0.0005
    way_p95_s: float | None = None
    way_p99_s: float | None = None
    way_loop_s: float = 0.0
    way_work_s: float = 0.0
    control_delay_s: float = 0.002
    table_delay_s: float = 0.005
    start_overhead_s: float = 0.8
    stop_s: float = 0.1
    start_jitter: float = 0.1
    boot_jitter: float = 0.15
    start_failures: float = 0.0
    launch_failures: float = 0.0
    launch_failure_s: float = 5.0
    most_workers: Mapping[str, int] = field(default_factory=dict)
    replica_crashes_per_hour: float = 0.0
    worker_crashes_per_hour: float = 0.0
    interruptions_per_hour: float = 0.0
    notice_s: float = 120.0
    loss_noticed_s: float = 0.01
    least_billed_s: float = 60.0
    solve_s: float = 0.02
    solve_s_per_variable: float = 0.0005

    def __post_init__(self) -> None:
        for name in (x.name for x in fields(self)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, Mapping):
                if any(count < 0 for count in value.values()):
                    raise ConfigError(f"world.{name} must map worker types to counts, 0 or more")
            elif not _LEAST.get(name, 0) <= value <= _most(name):
                span = f"from {_LEAST.get(name, 0)} to {_most(name):g}"
                raise ConfigError(f"world.{name} must be a number {span}, not {value!r}")
        self._check_way()
        for name in ("start_failures", "launch_failures"):
            if getattr(self, name) > 1:
                raise ConfigError(f"world.{name} is a share, at most 1, not {getattr(self, name)!r}")

    def _check_way(self) -> None:
        p95_s, p99_s = self.way_p95_s, self.way_p99_s
        drawn = p95_s is not None and p99_s is not None and 0 < self.way_s <= p95_s <= p99_s
        if (p95_s, p99_s) != (None, None) and not drawn:
            raise ConfigError("world: way_p95_s and way_p99_s belong together and must not fall from way_s on")
        computed_s = self.way_loop_s + self.way_work_s
        if computed_s > self.way_s * (1 + 1e-9):  # what is written with few digits adds up to a little more
            parts = f"at most {self.way_s:g} together, not {computed_s:g}"
            raise ConfigError(f"world.way_loop_s and world.way_work_s are parts of way_s, {parts}")
