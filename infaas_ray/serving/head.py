"""The Ray cluster of a local system: a head of its own in a folder of its own, and how a process joins it.

`run.json` in the home folder describes the system that runs from there, so that any later command finds it. Processes
are ended by their id, or by the random folder that their command line names.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

from infaas_ray.config import Settings
from infaas_ray.errors import ConfigError, NotRunning, Unavailable
from infaas_ray.serving import shared
from infaas_ray.serving.addresses import sweep_sockets

_UP_S = 90.0
_JOIN_S = 30.0
_PORTS = range(20_000, 30_000)  # Ray's workers take those below, Linux gives those above to whoever asks
_FOLDER_PREFIX = "ifs-"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A running system, as `run.json` describes it. `head_pid` is 0 where the cluster was there before."""

    address: str
    url: str
    direct_url: str = ""
    namespace: str
    head_pid: int = 0
    head_started: float = 0.0
    folder: str = ""
    token: str = ""


def read_run(settings: Settings) -> Run | None:
    """The system that runs from this home folder, or None."""
    try:
        run = msgspec.json.decode(settings.run_file.read_bytes(), type=Run)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{settings.run_file} cannot be read ({error}); delete it if no system runs there") from None
    if run.head_pid and not _lives(run):
        end_head(settings, run)  # what its end left behind
        return None
    return run


def _lives(run: Run) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(run.head_pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - run.head_started) < 2.0
    return False


def url_of(settings: Settings) -> str:
    """Where the HTTP endpoint is to be."""
    return f"http://{settings.http.host}:{settings.http.port}"


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Let one process at a time bring this home's system up or down; others wait."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (settings.home / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_run(settings: Settings, run: Run) -> None:
    """Describe a running system; only its owner reads that (it holds the token), whole or not at all."""
    path, content = settings.run_file, msgspec.json.encode(run)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def _free_port() -> int:
    """A port that nobody listens at, of a range from which neither the kernel nor Ray hands out ports meanwhile."""
    while True:
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start_head(settings: Settings) -> Run:
    """Start a Ray head on loopback, in a session of its own; its output goes to `ray.log` in the home folder."""
    folder = tempfile.mkdtemp(prefix=_FOLDER_PREFIX)  # short: socket files in it must stay under 107 bytes
    port = _free_port()
    token = secrets.token_hex(32)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--include-dashboard=false"]
    command += ["--disable-usage-stats", f"--ray-client-server-port={_free_port()}"]
    command += [f"--num-cpus={settings.cluster.cpus or os.cpu_count()}"]
    environment = os.environ | _environment(token) | _proxy_environment(settings, folder)
    with (settings.home / "ray.log").open("wb") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    run = Run(
        address=f"127.0.0.1:{port}",
        url=url_of(settings),
        namespace=settings.cluster.namespace,
        head_pid=head.pid,
        head_started=psutil.Process(head.pid).create_time(),
        folder=folder,
        token=token,
    )
    try:
        write_run(settings, run)
        _wait_for_head(settings, run, head)
    except BaseException:
        end_head(settings, run)
        raise
    finally:
        head.returncode = 0  # it outlives this process on purpose, of which Popen would warn
    return run


def _environment(token: str) -> dict[str, str]:
    """What Ray's processes need in their environment, head and driver alike."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": "0",  # Ray's 15 would let any other program starve the queries
    }


def _proxy_environment(settings: Settings, folder: str) -> dict[str, str]:
    """Ray Serve's switches for HAProxy with throughput mode; its files and ports are this cluster's own."""
    if settings.http.proxy != "haproxy":
        return {}
    prefix = "RAY_SERVE_HAPROXY_"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_PROXY_USE_GRPC": "1",
        f"{prefix}CONFIG_FILE_LOC": f"{folder}/haproxy/haproxy.cfg",
        f"{prefix}SOCKET_PATH": f"{folder}/haproxy/admin.sock",
        f"{prefix}SERVER_STATE_BASE": f"{folder}/haproxy",
        f"{prefix}SERVER_STATE_FILE": f"{folder}/haproxy/server-state",
        f"{prefix}METRICS_PORT": str(_free_port()),
        f"{prefix}STATS_PORT": str(_free_port()),
    }


def _take_token(token: str) -> None:
    """Make this process one of the cluster's, although Ray may have read its environment already."""
    os.environ.update(_environment(token))
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _wait_for_head(settings: Settings, run: Run, head: "subprocess.Popen[bytes]") -> None:
    host, _, port = run.address.partition(":")
    end = time.monotonic() + _UP_S
    while time.monotonic() < end and head.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
            return
        time.sleep(0.1)
    raise Unavailable(f"Ray did not start; see {settings.home / 'ray.log'}", 0.0)


def _require_answer(run: Run) -> None:
    """Raise NotRunning at once where nobody listens at the address; Ray would try for minutes."""
    host, _, port = run.address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), 3.0).close()
        except OSError as error:
            raise NotRunning(f"no Ray cluster answers at {run.address}: {error}") from None


@contextlib.contextmanager
def joined(run: Run) -> Iterator[None]:
    """Be a driver of the cluster for a while; nothing happens where this process is one already."""
    if ray.is_initialized():
        yield
        return
    if run.token:
        _take_token(run.token)
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _require_answer(run)
    end = time.monotonic() + _JOIN_S
    while True:  # the port opens before the node has registered
        try:
            ray.init(run.address, namespace=run.namespace, log_to_driver=False, logging_level="error")
            break
        except (ConnectionError, RuntimeError, ValueError) as error:
            if time.monotonic() > end:
                raise NotRunning(f"no Ray cluster answers at {run.address}: {error}") from None
            time.sleep(0.25)
    try:
        yield
    finally:
        ray.shutdown()


def end_head(settings: Settings, run: Run) -> None:
    """End what was started for a system, and forget it; a cluster that was there before stays."""
    if run.head_pid:
        _end_processes(run)
    settings.run_file.unlink(missing_ok=True)
    shared.sweep()
    sweep_sockets()


def _end_processes(run: Run) -> None:
    """End the head by its id, then whatever of its cluster outlives it, known by the cluster's own folder."""
    if _lives(run):
        with contextlib.suppress(psutil.Error):
            head = psutil.Process(run.head_pid)
            head.terminate()
            head.wait(10.0)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        left = _of_cluster(run.folder)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sign)
        psutil.wait_procs(left, timeout=5.0)
    if Path(run.folder).name.startswith(_FOLDER_PREFIX):
        shutil.rmtree(run.folder, ignore_errors=True)


def _of_cluster(folder: str) -> list[psutil.Process]:
    """The processes whose command line names the cluster's folder, which is random and this cluster's alone."""
    if not Path(folder).name.startswith(_FOLDER_PREFIX):
        return []
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(folder in x for x in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found
