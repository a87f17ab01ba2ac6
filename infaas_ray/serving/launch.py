"""Brings a system up and down: the Ray cluster, the controller, the routers on Ray Serve. `ray.remote` is used here.

A local system is a Ray head of its own in a folder of its own, described in `run.json` in the home folder, so that
any later command finds it. Processes are ended by their id.
"""

import contextlib
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import ray
from ray import serve
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions

from infaas_ray.config import Settings
from infaas_ray.errors import NotRunning, Unavailable
from infaas_ray.policy.routing import Catalog
from infaas_ray.serving.controller import Controller
from infaas_ray.serving.driver import System
from infaas_ray.serving.router_actor import RouterActor
from infaas_ray.serving.workers import CONTROLLER, actor_options

OnStep = Callable[[str], None]
_APPLICATION = "infaas"
_UP_S = 90.0


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
    if run.head_pid and not _lives(run):
        settings.run_file.unlink(missing_ok=True)
        return None
    return run


def _lives(run: Run) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(run.head_pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - run.head_started) < 2.0
    return False


def up(settings: Settings, on_step: OnStep = lambda step: None) -> Run:
    """Start a system, or find the one that runs; returns when it takes queries."""
    run = read_run(settings)
    if run is not None:
        on_step(f"already running at {run.url}")
        return run
    if not _free(settings.http.host, settings.http.port):
        raise Unavailable(
            f"port {settings.http.port} of {settings.http.host} is taken; choose another with --port", 0.0
        )
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.cluster.address == "local":
        on_step("starting Ray on this machine")
        run = _start_head(settings)
    else:
        run = Run(address=settings.cluster.address, url=_url(settings), namespace=settings.cluster.namespace)
    _write(settings.run_file, msgspec.json.encode(run))
    try:
        with _joined(run):
            on_step("starting the controller")
            secret = _start_controller(settings)
            on_step("starting the routers")
            _start_routers(settings, secret)
            run = msgspec.structs.replace(run, direct_url=_direct_url(settings.cluster.namespace))
            _write(settings.run_file, msgspec.json.encode(run))
    except BaseException:
        _end_head(settings, run)
        raise
    return run


def _url(settings: Settings) -> str:
    return f"http://{settings.http.host}:{settings.http.port}"


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((host, port))
            return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def _start_head(settings: Settings) -> Run:
    """Start a Ray head on loopback, in a session of its own; its output goes to `ray.log` in the home folder."""
    folder = tempfile.mkdtemp(prefix="ifs-")  # short: socket files in it must stay under 107 bytes
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
        url=_url(settings),
        namespace=settings.cluster.namespace,
        head_pid=head.pid,
        head_started=psutil.Process(head.pid).create_time(),
        folder=folder,
        token=token,
    )
    _wait_for_head(settings, run, head)
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
    _end_processes(run)
    raise Unavailable(f"Ray did not start; see {settings.home / 'ray.log'}", 0.0)


@contextlib.contextmanager
def _joined(run: Run) -> Iterator[None]:
    """Be a driver of the cluster for a while; nothing happens where this process is one already."""
    if ray.is_initialized():
        yield
        return
    if run.token:
        _take_token(run.token)
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for attempt in range(40):  # the port opens before the node has registered
        try:
            ray.init(run.address, namespace=run.namespace, log_to_driver=False, logging_level="error")
            break
        except (ConnectionError, RuntimeError, ValueError) as error:
            if attempt == 39:
                raise NotRunning(f"no Ray cluster answers at {run.address}: {error}") from None
            time.sleep(0.25)
    try:
        yield
    finally:
        ray.shutdown()


def _start_controller(settings: Settings) -> bytes:
    """Start the controller, or find the one that lives; returns the secret of the cluster."""
    namespace = settings.cluster.namespace
    head = ray.get_runtime_context().get_node_id()
    options = actor_options(CONTROLLER, namespace, head)
    options |= {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 10_000, "get_if_exists": True}
    controller = ray.remote(Controller).options(**options).remote(settings, secrets.token_bytes(32))
    ray.get(controller.ready.remote(), timeout=_UP_S)
    _, secret = ray.get(controller.routers.remote(), timeout=_UP_S)
    return bytes(secret)


def _direct_url(namespace: str) -> str:
    """The own port of the first router that has reported; empty where routers have none."""
    end = time.monotonic() + _UP_S
    while time.monotonic() < end:
        routers = ray.get(_controller(namespace).ready.remote(), timeout=_UP_S)["routers"]
        if routers:
            return str(next(iter(routers.values()))["direct_url"])
        time.sleep(0.1)
    raise Unavailable("no router has reported to the controller", 0.0)


def _start_routers(settings: Settings, secret: bytes) -> None:
    http = settings.http
    serve.start(http_options=HTTPOptions(host=http.host, port=http.port), logging_config={"log_level": "WARNING"})
    deployment = serve.deployment(
        name="router",
        num_replicas=http.routers,
        max_ongoing_requests=10_000,
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
    )(serve.ingress()(RouterActor))
    serve.run(deployment.bind(settings, secret), name=_APPLICATION, route_prefix="/")


def down(settings: Settings, on_step: OnStep = lambda step: None) -> bool:
    """Drain and end the system of this home folder; False where none runs."""
    run = read_run(settings)
    if run is None:
        return False
    try:
        with _joined(run):
            on_step("letting replicas finish")
            _end_actors(settings, on_step)
    except (NotRunning, RayError) as error:
        on_step(f"the cluster does not answer ({error}); ending its processes")
    on_step("ending Ray")
    _end_head(settings, run)
    return True


def _end_actors(settings: Settings, on_step: OnStep) -> None:
    namespace = settings.cluster.namespace
    controller = _controller(namespace)
    ray.get(controller.shutdown.remote(), timeout=_UP_S)
    on_step("ending the routers")
    serve.delete(_APPLICATION)
    serve.shutdown()
    for found in ray.util.list_named_actors(all_namespaces=True):
        if found["namespace"] == namespace:
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(found["name"], namespace))


def _controller(namespace: str) -> Any:
    try:
        return ray.get_actor(CONTROLLER, namespace)
    except ValueError:
        raise NotRunning("the cluster runs, but no INFaaS controller is on it; start one with 'infaas up'") from None


def _end_head(settings: Settings, run: Run) -> None:
    if run.head_pid:
        _end_processes(run)
    settings.run_file.unlink(missing_ok=True)


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
    shutil.rmtree(run.folder, ignore_errors=True)


def _of_cluster(folder: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(folder in x for x in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found


def _running(settings: Settings) -> Run:
    run = read_run(settings)
    if run is None:
        raise NotRunning(f"no system runs from {settings.home}; start one with 'infaas up'")
    return run


def _ask_controller(settings: Settings, method: str) -> Any:
    run = _running(settings)
    with _joined(run):
        return ray.get(getattr(_controller(run.namespace), method).remote(), timeout=30.0)


def status(settings: Settings) -> dict[str, Any]:
    """What runs, as the controller sees it."""
    found: dict[str, Any] = _ask_controller(settings, "ready")
    return {"url": _running(settings).url, **found}


def catalog(settings: Settings) -> Catalog:
    """What the running system offers, with its prices."""
    found: Catalog = _ask_controller(settings, "catalog")
    return found


def history(settings: Settings) -> list[tuple[float, dict[str, int]]]:
    """Ready replicas by variant at each change of the routing table, with Unix times."""
    found: list[tuple[float, dict[str, int]]] = _ask_controller(settings, "history")
    return found


def open_system(settings: Settings) -> System:
    """Connect a driver to the routers of the running system. Raises NotRunning where there is none."""
    run = _running(settings)
    with _joined(run):
        controller = _controller(run.namespace)
        end = time.monotonic() + 10.0
        while True:
            addresses, secret = ray.get(controller.routers.remote(), timeout=30.0)
            if addresses or time.monotonic() > end:
                return System(addresses, bytes(secret))
            time.sleep(0.2)
