"""`ray up cluster/aws.yaml` against a mock EC2 and S3, from beginning to end; in a network of its own.

The machines that the mock server claims to have started are Ray nodes here: `ssh`, beside this file, runs each command
in a home folder of the machine's own, and all addresses of the network are this machine's. Ray's AWS provider, its
updater and its autoscaler are the real ones, and so are rsync, the start commands and `configs/aws.yaml`. What differs
from the file is in `adapted`.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np
import yaml

from infaas_ray.client import Client
from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import HardwareKind, UseCase
from infaas_ray.errors import InfaasError
from infaas_ray.policy.messages import SolvePlan
from infaas_ray.policy.replay import LoggedTurn, decode, in_words, replay
from tests.integration.conftest import add_fake

ROOT = Path(__file__).parents[3]
SHIM = Path(__file__).parent
MOCK = "http://127.0.0.1:5555"
BUCKET = "infaas-models"
DOOR = "http://127.0.0.1:8000"
PERIOD_S, SLO_MS = 0.1, 500.0
PLANNER = {  # whose demand brings the machines; what is not needed goes within seconds
    "INFAAS_SCALING__STRATEGY": "planner",
    "INFAAS_SCALING__PLANNER__INTERVAL_S": "1",
    "INFAAS_SCALING__PLANNER__RELEASE_S": "2",
    "INFAAS_SCALING__PLANNER__WAITING_USD_PER_S": "0",
}
LIMIT_S = 150.0  # far more than anything takes
TYPES = {"cpu": HardwareKind.CPU, "gpu": HardwareKind.GPU, "neuron": HardwareKind.NEURON}


def adapted(image: str, lock: Path) -> dict[str, Any]:
    """The file with what cannot be had here replaced: images, installation, and machines that are one machine."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())
    content["provider"]["use_internal_ips"] = True
    content["setup_commands"] = _installed(content["setup_commands"])
    for node_type in content["available_node_types"].values():
        node_type["node_config"]["ImageId"] = image
        if "worker_setup_commands" in node_type:
            node_type["worker_setup_commands"] = _installed(node_type["worker_setup_commands"])
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        # `ray stop` ends every Ray node of the machine, so here of all machines.
        commands = [x for x in content[name] if not x.endswith("ray stop")]
        # One after the other: the machines share Ray's folder, in which two that start at once take the same names.
        more = f"flock -o {lock} ray start --node-ip-address=$NODE_IP --object-store-memory=83886080"
        content[name] = [x.replace("ray start", more) for x in commands]
    return content


def _installed(commands: list[str]) -> list[str]:
    """Instead of what fetches packages: the environment that runs this."""
    kept = [x for x in commands if "/uv" not in x]
    assert len(kept) == 1, "only the line for the shell needs no network"
    return [f"ln -sfn {sys.prefix} ~/env", *kept]


def run(*command: str, env: dict[str, str], limit_s: float = LIMIT_S) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
    return done.stdout


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not within {LIMIT_S:.0f} s: {what}")
        time.sleep(0.5)


def environment(folder: Path) -> dict[str, str]:
    """What `ray up` runs in, and by way of `ssh` each machine."""
    (folder / "home" / ".ray").mkdir(parents=True)
    token = folder / "home" / ".ray" / "auth_token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    return {
        "PATH": f"{SHIM}:{sys.prefix}/bin:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),
        "NODES": str(folder / "nodes"),
        "SHIM": str(SHIM),
        "USER": "root",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "AWS_ENDPOINT_URL": MOCK,
        "AWS_ACCESS_KEY_ID": "mock",
        "AWS_SECRET_ACCESS_KEY": "mock",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        **PLANNER,
    }


@contextlib.contextmanager
def mock_aws(folder: Path) -> Iterator[str]:
    """EC2, IAM and S3, with the account prepared as the README of the cluster files says; gives an image."""
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [f"{sys.prefix}/bin/moto_server", "-p", MOCK.rpartition(":")[2]], stdout=log, stderr=log
        )
    try:
        wait_for("the mock server listens", _answers)
        iam = boto3.client("iam")
        for name in ("infaas-head", "infaas-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
            iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield boto3.client("ec2").describe_images()["Images"][0]["ImageId"]
    finally:
        server.terminate()
        server.wait()


def _answers() -> bool:
    try:
        return httpx.get(MOCK).status_code > 0
    except httpx.HTTPError:
        return False


def machines() -> dict[str, list[str]]:
    """The instance ids of the machines that run, by worker type, as the mock server has them."""
    found: dict[str, list[str]] = {}
    for reservation in boto3.client("ec2").describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] not in ("terminated", "shutting-down"):
                tags = {x["Key"]: x["Value"] for x in instance["Tags"]}
                found.setdefault(tags["ray-user-node-type"], []).append(instance["InstanceId"])
    return found


class Head:
    """The head, by `ssh`."""

    def __init__(self, ip: str, env: dict[str, str], folder: Path) -> None:
        self.settings = load_settings(ROOT / "configs" / "aws.yaml", {"home": folder / "nodes" / ip / ".infaas"}, {})
        self.ip, self._env = ip, env

    def __call__(self, command: str) -> str:
        wrapped = f"bash --login -i -c {shlex.quote('cd infaas_ray && ' + command)}"
        return run("ssh", f"ubuntu@{self.ip}", wrapped, env=self._env)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("infaas status --json --config configs/aws.yaml"))
        return found


def offer_one_of_each(settings: Settings, folder: Path) -> None:
    """Fake variants for each kind of hardware; their artifacts go to the bucket."""
    for name, hardware in TYPES.items():
        add_fake(
            settings,
            f"on-{name}",
            accuracy=0.9,
            row_s=0.001,
            use_case=UseCase(task=f"{name}-task", dataset="numbers"),
            hardware=hardware,
            folder=folder,
        )


class Asking:
    """A steady stream of queries to each target that was added, until the end; keeps which variant last answered."""

    def __init__(self) -> None:
        self.answered: dict[str, str] = {}
        self._over = threading.Event()
        self._wrong: list[Exception] = []
        self._threads: list[threading.Thread] = []

    def add(self, targets: Iterable[str]) -> None:
        for target in targets:
            self._threads.append(threading.Thread(target=self._ask, args=(target,)))
            self._threads[-1].start()

    def _ask(self, target: str) -> None:
        x = np.arange(4, dtype=np.float32).reshape(1, 4)
        try:
            with Client(DOOR) as client:
                while not self._over.is_set():
                    with contextlib.suppress(InfaasError):  # until there is a machine
                        result = client.infer(target, {"x": x}, latency_ms=SLO_MS)
                        np.testing.assert_array_equal(result.outputs["y"], x)
                        self.answered[target] = result.variant
                    self._over.wait(PERIOD_S)
        except Exception as error:
            self._wrong.append(error)

    def end(self) -> None:
        """Stop asking. Raises what went wrong with any query."""
        self._over.set()
        for one in self._threads:
            one.join()
        for error in self._wrong:
            raise error


def story(config: Path, folder: Path, env: dict[str, str]) -> dict[str, Any]:
    """Up, queries that bring first one, then two kinds of machine, quiet that sends all away, down."""
    seen: dict[str, Any] = {}
    with timed(seen, "up_s"):
        run("ray", "up", "-y", "--no-config-cache", str(config), env=env)
    assert machines().keys() == {"head"}
    head = Head(run("ray", "get-head-ip", str(config), env=env).split()[-1], env, folder)
    assert head.status()["workers"] == []
    offer_one_of_each(head.settings, folder)
    asking, seen["placed"] = Asking(), {}
    try:
        for kinds in (("cpu",), ("gpu", "neuron")):  # at once, the other machines would have room for the CPU variant
            targets = {f"on-{name}" for name in kinds}
            asking.add(targets)
            with timed(seen, f"{' and '.join(kinds)}_s"):
                wait_for(f"{targets} answer", lambda: targets <= asking.answered.keys())  # noqa: B023
            seen["placed"] = placed(head.status()) | seen["placed"]
        seen["machines"] = {name: len(ids) for name, ids in machines().items()}
    finally:
        asking.end()
    with timed(seen, "quiet_s"):
        wait_for("all machines but the head go", lambda: machines().keys() == {"head"})
    seen["queries"] = head.status()["queries"]
    assert replay(log_of(folder)) is None
    with timed(seen, "down_s"):
        head("infaas down --config configs/aws.yaml")
        run("ray", "down", "-y", str(config), env=env)
    assert machines() == {}
    return seen


@contextlib.contextmanager
def timed(seen: dict[str, Any], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seen[name] = round(time.monotonic() - began, 1)


def placed(status: dict[str, Any]) -> dict[str, str]:
    """On which type of worker a replica of each architecture is ready."""
    types = {x["worker"]: x["type"] for x in status["workers"]}
    return {x["variant"].split("@")[0]: types[x["worker"]] for x in status["replicas"] if x["state"] == "ready"}


def log_of(folder: Path) -> list[bytes]:
    """The whole lines of the decision log."""
    (path,) = folder.glob("nodes/*/.infaas/decisions.jsonl")
    return path.read_bytes().split(b"\n")[:-1]


def tell(folder: Path) -> None:
    """Print what the planner decided and what Ray's autoscaler saw."""
    with contextlib.suppress(ValueError):  # no head came so far
        turns = [x for x in decode(log_of(folder)) if isinstance(x, LoggedTurn)]
        told = [f"{turn.now:.1f} {in_words(x)}" for turn in turns for x in turn.actions if not isinstance(x, SolvePlan)]
        print("\n".join(told[-60:]), file=sys.stderr)
    for log in folder.glob("ray/session_2*/logs/monitor.*"):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)


def main() -> None:
    folder = Path(sys.argv[1])
    subprocess.run("ip link set lo up && ip addr add 172.31.0.0/16 dev lo", shell=True, check=True)
    env = environment(folder)
    os.environ.update({name: value for name, value in env.items() if name.startswith("AWS")})
    with mock_aws(folder) as image:
        config = folder / "aws.yaml"
        config.write_text(yaml.safe_dump(adapted(image, folder / "start.lock")))
        try:
            seen = story(config, folder, env)
        except BaseException:
            tell(folder)
            raise
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
