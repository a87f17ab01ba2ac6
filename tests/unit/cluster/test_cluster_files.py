"""The cluster files, by Ray's own schema and code, and against the price catalogue and the settings."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from infaas_ray.config import Settings, WorkerPrice, from_yaml, load_settings
from infaas_ray.serving.head import _environment

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
TYPES = {
    x["name"]: WorkerPrice.model_validate(x)
    for x in from_yaml((ROOT / "configs" / "catalogs" / "aws.yaml").read_text())["worker_types"]
}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = from_yaml((CLUSTER / name).read_text())
    return content


def prepared(name: str) -> dict[str, Any]:
    """The file as Ray's launcher completes it; raises where its schema is not met."""
    content: dict[str, Any] = prepare_config(read(name))
    validate_config(content)
    return content


@pytest.mark.parametrize("name", ["aws.yaml", "local.yaml"])
def test_rays_schema_accepts_it(name: str) -> None:
    prepared(name)


def test_a_wrong_file_would_not_pass() -> None:
    content = read("aws.yaml")
    content["available_node_types"]["cpu"]["resurces"] = {}
    with pytest.raises(Exception, match="resurces"):
        validate_config(prepare_config(content))


class TestAws:
    def test_worker_types_are_those_of_the_catalogue(self) -> None:
        assert set(prepared("aws.yaml")["available_node_types"]) == {"head", *TYPES}

    @pytest.mark.parametrize("name", TYPES)
    def test_a_type_is_what_the_catalogue_prices(self, name: str) -> None:
        node_type, price = prepared("aws.yaml")["available_node_types"][name], TYPES[name]
        resources = dict(node_type["resources"])
        assert resources.pop(f"tier_{name}") == 1
        assert resources == price.resources
        assert node_type["max_workers"] == price.max_workers
        assert node_type["node_config"]["InstanceType"] == price.instance_type
        market = node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType", "on-demand")
        assert (market == "spot") is price.spot is (node_type["labels"]["market"] == "spot")

    def test_workers_may_read_the_repository_and_only_the_head_starts_machines(self) -> None:
        types = prepared("aws.yaml")["available_node_types"]
        profiles = {name: x["node_config"]["IamInstanceProfile"]["Name"] for name, x in types.items()}
        assert profiles.pop("head") == "infaas-head"
        assert set(profiles.values()) == {"infaas-worker"}

    def test_every_node_installs_this_ray_and_this_package_with_its_extras(self) -> None:
        content = prepared("aws.yaml")
        types = content["available_node_types"]
        common = content["setup_commands"]
        extras = {"head": "generate", "cpu": "generate", "gpu": "generate", "neuron": "neuron"}
        for name, node_type in types.items():
            commands = "\n".join(node_type.get("worker_setup_commands", common))
            assert "'ray[serve]==2.60.*'" in commands
            (found,) = re.findall(r"infaas_ray\[([a-z0-9,]+)\]", commands)
            assert {extras[name.removesuffix("-spot")], "s3"} <= set(found.split(","))

    def test_rays_defaults_add_no_command(self) -> None:
        content = prepared("aws.yaml")
        written = read("aws.yaml")
        for name in ("setup", "head_start_ray", "worker_start_ray"):
            ours = written[f"{name}_commands"]
            assert content[f"{name}_commands"] == ours
        assert content["head_setup_commands"] == written["setup_commands"]

    def test_settings_beside_it_load_and_name_a_catalogue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)  # the path in it is relative to the root
        settings = load_settings(ROOT / "configs" / "aws.yaml", environment={})
        assert not settings.local
        assert settings.repository.startswith("s3://")
        assert set(settings.worker_types()) == set(TYPES)
        assert any("configs/aws.yaml" in x for x in read("aws.yaml")["head_start_ray_commands"])


@pytest.mark.parametrize("name", ["aws.yaml", "local.yaml"])
def test_every_node_has_the_token_and_the_environment(name: str) -> None:
    content = read(name)
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for command in content["head_start_ray_commands"] + content["worker_start_ray_commands"]:
        assert command.startswith(". ~/infaas_ray/cluster/environment.sh;")
        assert "ray start" not in command or "--disable-usage-stats" in command


def test_the_environment_is_that_of_a_local_system() -> None:
    text = (CLUSTER / "environment.sh").read_text()
    found = dict(x.split("=", 1) for line in text.splitlines() if "export RAY" in line for x in line.split()[1:])
    wanted = {name: value for name, value in _environment("").items() if name != "RAY_AUTH_TOKEN"}
    assert found == wanted | {
        "RAY_enable_autoscaler_v2": "1",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "4",
        "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S": "60",
    }


# -- KubeRay: its types as far as ours go; what they do not name is an error


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Quantities(Part):
    limits: dict[str, str]
    requests: dict[str, str]


class Container(Part):
    name: str
    image: str
    env: list[dict[Literal["name", "value"], str]] = []
    ports: list[dict[Literal["containerPort", "name"], int | str]] = []
    resources: Quantities


class PodSpec(Part):
    service_account_name: str
    restart_policy: Literal["Never"]  # else version 2 of the autoscaler and the kubelet would both restart it
    node_selector: dict[str, str] = {}
    containers: list[Container] = Field(min_length=1, max_length=1)


class Template(Part):
    spec: PodSpec


class Group(Part):
    ray_start_params: dict[str, str]
    template: Template


class HeadGroup(Group):
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"]


class WorkerGroup(Group):
    group_name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    replicas: int = Field(ge=0)
    min_replicas: int = Field(ge=0)
    max_replicas: int = Field(ge=1)


class AutoscalerOptions(Part):
    version: Literal["v1", "v2"]
    idle_timeout_seconds: int
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"]
    env: list[dict[Literal["name", "value"], str]]


class Spec(Part):
    ray_version: str
    auth_options: dict[Literal["mode"], Literal["disabled", "token"]]
    enable_in_tree_autoscaling: bool
    autoscaler_options: AutoscalerOptions
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class RayCluster(Part):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: dict[Literal["name", "namespace"], str]
    spec: Spec


class TestKubeRay:
    @pytest.fixture
    def cluster(self) -> RayCluster:
        return TypeAdapter(RayCluster).validate_python(read("kuberay.yaml"))

    def test_it_has_the_form_of_a_ray_cluster(self, cluster: RayCluster) -> None:
        assert cluster.spec.auth_options == {"mode": "token"}
        assert cluster.spec.autoscaler_options.version == "v2"
        groups = [cluster.spec.head_group_spec, *cluster.spec.worker_group_specs]
        for group in groups:
            (container,) = group.template.spec.containers
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container.env
            assert container.resources.limits == container.resources.requests

    def test_rays_autoscaler_reads_the_groups_as_the_types_of_the_catalogue(self, cluster: RayCluster) -> None:
        types = _derive_autoscaling_config_from_ray_cr(read("kuberay.yaml"))["available_node_types"]
        del types["headgroup"]
        assert set(types) == set(TYPES)
        for name, found in types.items():
            resources = found["resources"]
            assert resources[f"tier_{name}"] == 1
            assert 0 < resources["CPU"] <= TYPES[name].resources["CPU"]
            assert 0 < resources["memory"] <= TYPES[name].memory_gib * 2**30
            assert resources.get("GPU", 0) == TYPES[name].resources.get("GPU", 0)
            assert resources.get("neuron_cores", 0) == TYPES[name].resources.get("neuron_cores", 0)
            assert found["max_workers"] == TYPES[name].max_workers

    def test_spot_groups_are_bound_to_spot_machines(self, cluster: RayCluster) -> None:
        for group in cluster.spec.worker_group_specs:
            assert bool(group.template.spec.node_selector) is TYPES[group.group_name].spot


def test_the_costs_in_the_readme_are_those_of_the_catalogue() -> None:
    text = (CLUSTER / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z0-9.]+) \| ([0-9.]+) \|$", text, re.MULTILINE)
    written = {name: (machine, float(usd)) for name, machine, usd in rows}
    assert written == {name: (x.source.split(",")[0], x.usd_per_hour) for name, x in TYPES.items()}


def test_a_catalogue_row_becomes_a_worker_type() -> None:
    made = TYPES["gpu-spot"].worker_type()
    assert (made.spot, made.device_memory_bytes, made.boot_s) == (True, 24 * 2**30, 300)
    assert Settings().worker_types() == {}
