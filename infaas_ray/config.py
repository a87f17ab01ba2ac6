"""Settings: defaults, a YAML file, the environment (`INFAAS_SECTION__KEY`), flags; the later wins.

Unknown keys are errors, because a misspelt setting that is silently ignored costs an afternoon.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from infaas_ray.domain import WorkerType
from infaas_ray.errors import ConfigError, InvalidInput
from infaas_ray.policy.scaling.settings import ScalingSettings

_PREFIX = "INFAAS_"
_NO_SETTINGS = ("CONFIG", "CACHE")  # which settings file; where `storage.cache` keeps this user's caches
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C where PyYAML was built with it


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


# Absolute from the moment it is read: the processes that use it run in other folders.
_Place = Annotated[Path, AfterValidator(_absolute)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpSettings(_Section):
    """The HTTP endpoint on Ray Serve."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    direct_port: int | None = Field(
        default=0, ge=0, le=65535, description="the routers' own port, shared by those of a machine; 0 picks one each"
    )
    proxy: Literal["python", "haproxy"] = Field(
        default="python", description="Ray Serve's proxy: its default, or HAProxy with throughput mode (binds 0.0.0.0)"
    )
    routers: int = Field(default=1, ge=1, le=64, description="Ray Serve ingress replicas; each is a router")
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)


class ClusterSettings(_Section):
    """Which Ray cluster carries the system: `local` starts one on this machine, else the address of one that runs."""

    address: str = "local"
    namespace: str = "infaas"
    cpus: int | None = Field(
        default=None, ge=1, description="processors of the local cluster; all of them where not given"
    )
    autoscaling_config: Path | None = Field(
        default=None,
        description="the file that Ray's autoscaler reads, for its limits; after `ray up` it is found by itself",
    )
    metadata_url: str | None = Field(
        default=None, description="where workers look for notices of spot interruption; http://169.254.169.254 on EC2"
    )
    metadata_period_s: float = Field(default=5.0, gt=0, description="how often they look")


class ShellSettings(_Section):
    """Processes that wait on each worker to become replicas of CPU variants: quicker starts for some memory."""

    per_worker: int = Field(default=2, ge=0, le=64, description="how many wait on each worker; 0 turns it off")
    runtimes: tuple[str, ...] = Field(default=("onnxruntime",), description="whose frameworks they have imported")


class StorageSettings(_Section):
    """Where metadata and artifacts are kept; by default in the home folder."""

    metadata: str | None = None
    repository: str | None = None


class WorkerPrice(_Section):
    """A worker type of the price catalogue."""

    name: str
    resources: Mapping[str, float]
    memory_gib: float = Field(gt=0)
    usd_per_hour: float = Field(ge=0)
    device_memory_gib: float = Field(default=0.0, ge=0, description="of one accelerator; 0 where unknown")
    boot_s: float = Field(default=60.0, ge=0)
    min_workers: int = Field(default=0, ge=0)
    max_workers: int = Field(default=100, ge=0)
    spot: bool = False
    instance_type: str = Field(default="", description="the provider's name of the machine, to refresh its price by")
    source: str = ""
    date: str = Field(default="", description="when the price was that")

    def worker_type(self) -> WorkerType:
        """As the domain knows it."""
        return WorkerType(
            name=self.name,
            resources=dict(self.resources),
            memory_bytes=int(self.memory_gib * 2**30),
            usd_per_hour=self.usd_per_hour,
            device_memory_bytes=int(self.device_memory_gib * 2**30),
            boot_s=self.boot_s,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            spot=self.spot,
        )


class PriceSettings(_Section):
    """What machines cost. A worker whose type is not in the catalogue is priced by its processors."""

    usd_per_cpu_hour: float = Field(
        default=0.048, ge=0, description="0.384 USD/h for the 8 vCPUs of an m5.2xlarge, us-east-1"
    )
    catalog: _Place | None = Field(default=None, description="YAML file with worker types and their prices")


class Settings(_Section):
    """All settings of one system."""

    home: _Place = Field(default_factory=lambda: Path.home() / ".infaas")
    http: HttpSettings = HttpSettings()
    cluster: ClusterSettings = ClusterSettings()
    shells: ShellSettings = ShellSettings()
    storage: StorageSettings = StorageSettings()
    prices: PriceSettings = PriceSettings()
    scaling: ScalingSettings = ScalingSettings()

    @property
    def metadata_url(self) -> str:
        """SQLAlchemy URL of the metadata."""
        return self.storage.metadata or f"sqlite:///{self.home / 'metadata.db'}"

    @property
    def repository(self) -> str:
        """Location of the model repository."""
        return self.storage.repository or str(self.home / "repository")

    @property
    def local(self) -> bool:
        """Whether the system has a Ray cluster of its own on this machine, so that nothing need listen beyond it."""
        return self.cluster.address == "local"

    @property
    def run_file(self) -> Path:
        """Where a running local system is described."""
        return self.home / "run.json"

    def this_machine(self) -> WorkerType:
        """A machine like this one, priced by its processors."""
        cores = self.cluster.cpus or os.cpu_count() or 1
        return WorkerType(
            name="this-machine",
            resources={"CPU": cores},
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            usd_per_hour=cores * self.prices.usd_per_cpu_hour,
        )

    def worker_types(self) -> dict[str, WorkerType]:
        """The price catalogue by worker type. Raises ConfigError where the file is wrong."""
        if self.prices.catalog is None:
            return {}
        found = read_prices(self.prices.catalog)
        try:
            return {name: x.worker_type() for name, x in found.items()}
        except InvalidInput as error:
            raise ConfigError(f"{self.prices.catalog}: {error}") from None


def read_prices(catalog: Path) -> dict[str, WorkerPrice]:
    """A price catalogue by worker type. Raises ConfigError where the file is wrong."""
    rows = _read_yaml(catalog).get("worker_types", [])
    try:
        return {x["name"]: WorkerPrice.model_validate(x) for x in rows}
    except (ValidationError, KeyError, TypeError) as error:
        raise ConfigError(f"{catalog}: {_in_words(error)}") from None


def from_yaml(text: str) -> Any:
    """What a YAML text says. Raises yaml.YAMLError."""
    return yaml.load(text, _YamlLoader)  # noqa: S506  # both loaders are safe ones


def read_yaml(path: Path) -> Any:
    """What a YAML file says. Raises OSError, and ConfigError where it is no YAML."""
    try:
        return from_yaml(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a number that is none
        raise ConfigError(f"{path} is not valid YAML: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    if not isinstance(content or {}, dict):
        raise ConfigError(f"{path} must hold keys and values, such as 'http: {{port: 8000}}'")
    return content or {}


def _in_words(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, x['loc'])) or 'settings'}: {_what_is_wrong(x)}" for x in error.errors())


def _what_is_wrong(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "extra_forbidden":
        return "there is no such setting; configs/default.yaml lists all"
    return str(detail["msg"])


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """`INFAAS_HTTP__PORT=8010` becomes {"http": {"port": 8010}}; values are read as YAML."""
    found: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(_PREFIX) or name.removeprefix(_PREFIX) in _NO_SETTINGS:
            continue
        *sections, key = name.removeprefix(_PREFIX).lower().split("__")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        try:
            place[key] = from_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the environment variable {name} is not valid YAML: {error}") from None
    return found


def _merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def load_settings(
    path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from a YAML file (or the one named by INFAAS_CONFIG), the environment and flags.

    Raises ConfigError, naming the key, where a value or key is wrong.
    """
    path = path or (Path(environment[f"{_PREFIX}CONFIG"]) if f"{_PREFIX}CONFIG" in environment else None)
    layers = [_read_yaml(path) if path else {}, _from_environment(environment), flags or {}]
    try:
        return Settings.model_validate(_merge(*layers))
    except ValidationError as error:
        raise ConfigError(f"{path or 'settings'}: {_in_words(error)}") from None
