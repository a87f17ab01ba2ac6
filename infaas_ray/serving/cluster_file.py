"""The limits of a cluster, from the file that its autoscaler reads, and the catalogue cut to them.

After `ray up` the file lies on the head as `~/ray_bootstrap_config.yaml`; elsewhere the setting
`cluster.autoscaling_config` names it. Ray keeps it in no other place that can be asked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from infaas_ray.config import Settings, from_yaml
from infaas_ray.domain import WorkerType
from infaas_ray.errors import ConfigError

_OF_RAY_UP = "ray_bootstrap_config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Least and most workers of each type, and the most of all together. A type that is not named cannot be had."""

    least: Mapping[str, int]
    most: Mapping[str, int]
    total: int

    def cut(
        self, counts: Mapping[str, int], leaving: Mapping[str, int], here: Mapping[str, int]
    ) -> tuple[dict[str, int], dict[str, str]]:
        """What to ask Ray for, so that `counts` workers of each type stay beside those that leave.

        Also which types can never get their count, and why. A count that must only wait until others have left is cut
        without such a reason. Where all types together are too many, those that are `here` go first.
        """
        capped = {name: min(count, self.most.get(name, 0)) for name, count in counts.items()}
        reasons = {
            name: f"the cluster's file allows {self.most.get(name, 0)}"
            for name, count in counts.items()
            if count > self.most.get(name, 0)
        }
        wanted = {name: min(count + leaving.get(name, 0), self.most.get(name, 0)) for name, count in capped.items()}
        granted = {name: min(count, here.get(name, 0)) for name, count in wanted.items()}
        left = self.total - sum(granted.values())
        too_many = sum(capped.values()) > self.total
        for name, count in sorted(wanted.items()):
            more = max(0, min(count - granted[name], left))
            if too_many and granted[name] + more < count:
                reasons.setdefault(name, f"the cluster's file allows {self.total} workers in all")
            granted[name] += more
            left -= more
        return granted, reasons

    def apply(self, types: Iterable[WorkerType]) -> list[WorkerType]:
        """The types of a catalogue that the cluster can start, with its limits where they are narrower."""
        found = []
        for worker_type in types:
            if worker_type.name in self.most:
                most = min(worker_type.max_workers, self.most[worker_type.name])
                least = min(most, max(worker_type.min_workers, self.least.get(worker_type.name, 0)))
                found.append(replace(worker_type, min_workers=least, max_workers=most))
        return found


def limits_of(settings: Settings) -> Limits | None:
    """The limits of the cluster of these settings; None where no file tells. Raises ConfigError where it is wrong."""
    path = settings.cluster.autoscaling_config
    if path is None:
        path = Path.home() / _OF_RAY_UP
        if settings.local or not path.exists():
            return None
    try:
        content = from_yaml(path.read_text())
        return _limits(content)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not a cluster file for Ray's autoscaler: {error}") from None


def machines_of(path: Path) -> tuple[dict[str, str], str | None]:
    """The instance types of a file for EC2 by worker type, and its region. Raises ConfigError where it is wrong."""
    try:
        content = yaml.safe_load(path.read_text())
        types = content["available_node_types"].items()
        machines = {name: str(x["node_config"]["InstanceType"]) for name, x in types if "node_config" in x}
        return machines, content.get("provider", {}).get("region")
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a cluster file for machines of EC2: {error}") from None


def to_be_had(settings: Settings, known: Mapping[str, WorkerType], limits: Limits | None) -> list[WorkerType]:
    """The types of the catalogue that the autoscaler can start: none on a system with a Ray of its own."""
    if settings.local:
        return []
    return list(known.values()) if limits is None else limits.apply(known.values())


def _limits(content: Mapping[str, Any]) -> Limits:
    total = int(content.get("max_workers", 2))  # Ray's own default
    types = {k: v for k, v in content["available_node_types"].items() if k != content.get("head_node_type")}
    return Limits(
        least={name: int(x.get("min_workers", 0)) for name, x in types.items()},
        most={name: int(x.get("max_workers", total)) for name, x in types.items()},
        total=total,
    )
