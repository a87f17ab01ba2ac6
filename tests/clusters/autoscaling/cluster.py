"""A Ray cluster on this machine whose autoscaler (v2, the real one) starts and ends workers that are nodes here.

Ray's own `AutoscalingCluster` will not do: it needs a file that the wheel lacks, and ends every Ray on the machine.
Everything here is ended by its process id, or by the random folder that its command line names.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parents[3]
HEAD = "ray.head.default"  # the name under which the provider lists the head
_COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
_HEAD_ID = "f" * 51 + "00000"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """`types` maps worker types to their resources; there may be `most` of each."""

    def __init__(self, types: Mapping[str, Mapping[str, int]], *, most: int = 2, boot_s: float = 0.3) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ifsa-"))
        self.address = f"127.0.0.1:{free_port()}"
        self.token = secrets.token_hex(32)
        self.file = self.folder / "cluster.yaml"
        self._launches = self.folder / "launches.json"
        self.launch()
        self.file.write_text(yaml.safe_dump(self._config(types, most, boot_s)))
        self._head: subprocess.Popen[bytes] | None = None

    def _config(self, types: Mapping[str, Mapping[str, int]], most: int, boot_s: float) -> dict[str, Any]:
        node_types: dict[str, Any] = {HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}}
        for name, resources in types.items():
            node_types[name] = {
                "resources": {**resources, f"tier_{name}": 1, "object_store_memory": 80 * 2**20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            }
        return {
            "cluster_name": "trial",
            "max_workers": most * len(types),
            "idle_timeout_minutes": 0.05,
            "upscaling_speed": 100,
            "provider": {
                "type": "external",
                "module": "tests.clusters.autoscaling.provider.TrialProvider",
                "gcs_address": self.address,
                "head_node_id": _HEAD_ID,
                "launch_multiple": True,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "boot_s": boot_s,
                "launches": str(self._launches),
            },
            "available_node_types": node_types,
            **{name: {} for name in ("auth", "file_mounts")},
            **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
            "file_mounts_sync_continuously": False,
            **{f"{name}_commands": [] for name in _COMMANDS},
            "head_node_type": HEAD,
        }

    def launch(self, **behaviour: str) -> None:
        """What a launch does from now on, by type: "fails", "hangs"; others come up."""
        fresh = self._launches.with_suffix(".new")
        fresh.write_text(json.dumps(behaviour))
        fresh.replace(self._launches)  # a launch must not read half of it

    def start(self) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--port={self.address.rpartition(':')[2]}", f"--temp-dir={self.folder}/ray"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
        command += [f"--ray-client-server-port={free_port()}", f"--autoscaling-config={self.file}"]
        command += ["--num-cpus=0", f"--object-store-memory={80 * 2**20}"]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
            "RAY_worker_niceness": "0",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S": "2",
            "RAY_AUTOSCALER_RECONCILE_MAX_NUM_RETRY_REQUEST_TO_ALLOCATE": "1",
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "5000",  # a dead one refuses at once; one that is slow may be so
            "RAY_health_check_failure_threshold": "4",
        }
        with (self.folder / "head.log").open("wb") as log:
            self._head = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=ROOT, start_new_session=True
            )
        host, _, port = self.address.partition(":")
        end = time.monotonic() + 60
        while time.monotonic() < end and self._head.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "head.log").read_text())

    def processes(self) -> list[psutil.Process]:
        """Every process of this cluster's Ray: it names the folder, which is random, or descends from one that does.

        (A worker of Ray is named after its actor, and its parent is the raylet.)
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in x for x in process.cmdline()) and process.pid != os.getpid():
                    found |= {x.pid: x for x in (process, *process.children(recursive=True))}
        return list(found.values())

    def kill_worker(self, raylet_socket: str) -> None:
        """End a worker as a machine ends that loses its power: its raylet and all that the raylet started."""
        argument = f"--raylet_socket_name={raylet_socket}"
        (raylet,) = [x for x in self.processes() if x.name() == "raylet" and argument in x.cmdline()]
        for process in [raylet, *raylet.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self) -> None:
        """End every process. Raises AssertionError where one outlives that."""
        left = self.processes()
        if self._head is not None:
            self._head.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._head.wait(10)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            left = list({x.pid: x for x in (*left, *self.processes()) if x.is_running()}.values())
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(sign)
            _, left = psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self.folder, ignore_errors=True)
        left += self.processes()
        assert left == []
