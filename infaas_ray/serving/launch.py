"""Brings a system up and down (the Ray cluster, controller, routers on Ray Serve), and asks the one that runs.

Ray Serve takes a second to import, so only what starts or ends a system imports it.
"""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec
import ray
from ray.exceptions import ActorUnavailableError, RayError

from infaas_ray.config import Settings
from infaas_ray.errors import NotRunning, Unavailable
from infaas_ray.policy.plan_book import RunningPlan
from infaas_ray.policy.routing import Catalog
from infaas_ray.serving.driver import System
from infaas_ray.serving.head import Run, end_head, joined, only_one, read_run, start_head, url_of, write_run
from infaas_ray.serving.shares import Shares
from infaas_ray.serving.workers import CONTROLLER, actor_options

OnStep = Callable[[str], None]
_APPLICATION = "infaas"
_UP_S = 90.0
_ANSWER_S = 30.0


def up(settings: Settings, on_step: OnStep = lambda step: None) -> Run:
    """Start a system, or find the one that runs; returns when it takes queries."""
    with only_one(settings):
        run = read_run(settings)
        if run is not None and _lives(run):
            on_step(f"already running at {run.url}")
            return run
        if not _free(settings.http.host, settings.http.port):
            raise Unavailable(
                f"port {settings.http.port} of {settings.http.host} is taken; choose another with --port", 0.0
            )
        return _up(settings, on_step)


def _lives(run: Run) -> bool:
    """Whether the described system is still there: a cluster that somebody else runs may have been started anew."""
    if run.head_pid:
        return True
    try:
        with joined(run):
            _controller(run.namespace)
    except NotRunning:
        return False
    return True


def _up(settings: Settings, on_step: OnStep) -> Run:
    if settings.local:
        on_step("starting Ray on this machine")
        run = start_head(settings)
    else:
        run = Run(address=settings.cluster.address, url=url_of(settings), namespace=settings.cluster.namespace)
    try:
        with joined(run):
            on_step("starting the controller")
            secret = _start_controller(settings)
            on_step("starting the routers")
            _start_routers(settings, secret)
            run = msgspec.structs.replace(run, direct_url=_direct_url(settings.cluster.namespace))
        write_run(settings, run)
    except BaseException:
        end_head(settings, run)
        raise
    return run


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((host, port))
            return True
    return False


def _start_controller(settings: Settings) -> bytes:
    """Start the controller, or find the one that lives; returns the secret of the cluster."""
    from infaas_ray.serving.controller import Controller

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
    from ray import serve
    from ray.serve.config import HTTPOptions

    from infaas_ray.serving.router_actor import RouterActor

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
    if not settings.run_file.exists():
        return False
    with only_one(settings):
        run = read_run(settings)
        if run is None:
            return False
        try:
            with joined(run):
                on_step("letting replicas finish")
                _end_actors(settings, on_step)
        except (NotRunning, RayError) as error:
            on_step(f"the cluster does not answer ({error}); ending its processes")
        on_step("ending Ray")
        end_head(settings, run)
        return True


def _end_actors(settings: Settings, on_step: OnStep) -> None:
    from ray import serve

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
    Shares(namespace).adopt(())  # those of a controller that did not get so far


def _controller(namespace: str) -> Any:
    try:
        return ray.get_actor(CONTROLLER, namespace)
    except ValueError:
        raise NotRunning("the cluster runs, but no INFaaS controller is on it; start one with 'infaas up'") from None


def _running(settings: Settings) -> Run:
    run = read_run(settings)
    if run is None:
        raise NotRunning(f"no system runs from {settings.home}; start one with 'infaas up'")
    return run


def _ask_controller(settings: Settings, method: str, *arguments: object) -> Any:
    """The answer of the controller, or of its successor where it has just died."""
    run = _running(settings)
    end = time.monotonic() + _ANSWER_S
    with joined(run):
        while True:
            try:
                return ray.get(getattr(_controller(run.namespace), method).remote(*arguments), timeout=_ANSWER_S)
            except ActorUnavailableError:
                if time.monotonic() > end:
                    raise Unavailable("the controller does not come back", 1.0) from None
                time.sleep(0.2)


def status(settings: Settings) -> dict[str, Any]:
    """What runs, as the controller sees it."""
    found: dict[str, Any] = _ask_controller(settings, "ready")
    return {"url": _running(settings).url, **found}


def catalog(settings: Settings) -> Catalog:
    """What the running system offers, with its prices."""
    found: Catalog = _ask_controller(settings, "catalog")
    return found


def plan(settings: Settings, others: int = 0) -> RunningPlan:
    """The plan that the running system follows, with what up to so many alternatives would ask for."""
    found: RunningPlan = _ask_controller(settings, "plan", others)
    return found


def history(settings: Settings) -> list[tuple[float, dict[str, int]]]:
    """Ready replicas by variant at each change of the routing table, with Unix times."""
    found: list[tuple[float, dict[str, int]]] = _ask_controller(settings, "history")
    return found


def open_system(settings: Settings, application: str = "") -> System:
    """Connect a driver to the routers of the running system. Raises NotRunning where there is none."""
    run = _running(settings)
    with joined(run):
        controller = _controller(run.namespace)
        end = time.monotonic() + 10.0
        while True:
            addresses, secret = ray.get(controller.routers.remote(), timeout=30.0)
            if addresses or time.monotonic() > end:
                return System(addresses, bytes(secret), application)
            time.sleep(0.2)
