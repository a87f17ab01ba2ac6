"""The servers to compare with: how each is started, asked and ended.

A peer is a child process with a log of its own; it is ended by its id, and so is what it started. Before it is
measured it must give the answer that the model gives. One that cannot be installed or started is left out, with the
reason: nothing stands in for it.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.serving.generator import MeasurementFailed, http_request
from benchmarks.serving.ours import free_port
from benchmarks.serving.workloads import Workload
from infaas_ray.domain import DATATYPE_OF, Array

_PEERS = Path(__file__).parent / "peers"
PEERS_PYTHON = Path(".venv-peers/bin/python")
_UP_S = 90.0

Row = Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a server is asked, and how: `encode` makes the body for a row (batch dimension 1), `decode` reads one.

    `pid` is the process that started all others of the server, 0 where nobody said.
    """

    name: str
    host: str
    port: int
    path: str
    encode: Callable[[Row], bytes]
    decode: Callable[[bytes], Any]
    pid: int = 0

    def requests(self, workload: Workload) -> list[bytes]:
        """Whole requests, one for each row of the workload."""
        return [http_request(self.host, self.path, self.encode(row)) for row in rows_of(workload)]

    def check(self, workload: Workload) -> None:
        """Raise MeasurementFailed unless the first row's answer is the model's."""
        url = f"http://{self.host}:{self.port}{self.path}"
        body = self.encode(rows_of(workload)[0])
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30.0) as response:
            found = np.asarray(self.decode(response.read()), dtype=np.float64).reshape(-1)
        expected = np.asarray(workload.expected[0], dtype=np.float64).reshape(-1)
        if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-4):
            raise MeasurementFailed(f"{self.name} does not give the model's answer")


def rows_of(workload: Workload) -> list[Row]:
    """The workload's rows, each with a batch dimension of 1."""
    count = len(next(iter(workload.inputs.values())))
    return [{name: x[at : at + 1] for name, x in workload.inputs.items()} for at in range(count)]


# -- bodies


def encode_protocol(row: Row, parameters: Mapping[str, Any] | None = None) -> bytes:
    """JSON of the Open Inference Protocol."""
    inputs = [
        {"name": name, "shape": x.shape, "datatype": DATATYPE_OF[x.dtype.name], "data": _numbers(x.reshape(-1))}
        for name, x in row.items()
    ]
    content: dict[str, Any] = {"inputs": inputs}
    if parameters:
        content["parameters"] = dict(parameters)
    return _compact(content)


def decode_protocol(body: bytes) -> Any:
    """The first output's data."""
    return json.loads(body)["outputs"][0]["data"]


def _encode_plain(row: Row) -> bytes:
    return _compact({name: _numbers(x[0]) for name, x in row.items()})


def _encode_bento_noop(row: Row) -> bytes:
    return _compact({"x": _numbers(row["x"][0])})


def _encode_bento(row: Row) -> bytes:
    return _compact({"x": _numbers(np.stack([x[0] for x in row.values()])[None])})


def _decode_plain(body: bytes) -> Any:
    return json.loads(body)["output"]


def _numbers(array: Array) -> Any:
    """Nested lists with floats as short as they can be written, so that no server reads more digits than needed."""
    if array.dtype.kind != "f":
        return array.tolist()
    return np.vectorize(lambda x: float(np.format_float_positional(x)), otypes=[object])(array).tolist()


def _compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


# -- the peers


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server to compare with. `command` gets a folder to write settings into, its port and the workload."""

    name: str
    python: Path
    command: Callable[[Path, int, Workload], list[str]]
    path: Callable[[Workload], str]
    encode: Callable[[Workload], Callable[[Row], bytes]]
    decode: Callable[[bytes], Any]
    environment: Callable[[Path], Mapping[str, str]] = field(default=lambda folder: {})


def _script(name: str) -> Callable[[Path, int, Workload], list[str]]:
    return lambda folder, port, workload: [str(_PEERS / name)]


def _bento_command(folder: Path, port: int, workload: Workload) -> list[str]:
    return ["-m", "bentoml", "serve", "bento:Server", "--host", "127.0.0.1", "--port", str(port)]


def _mlserver_command(folder: Path, port: int, workload: Workload) -> list[str]:
    """Write MLServer's two settings files; inference in the server's own process, where one model is fastest."""
    settings = {
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "debug": False,
        "gzip_enabled": False,
        "use_structured_logging": False,
    }
    model: dict[str, Any] = {"name": "bench", "implementation": "ml_server.Bench"}
    if workload.file is not None:
        model |= {"max_batch_size": workload.batch, "max_batch_time": 0.002}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["-m", "mlserver.cli.main", "start", str(folder)]


def haproxy(folder: Path) -> dict[str, str]:
    """Ray Serve's HAProxy and throughput modes, with every file and port of their own."""
    prefix = "RAY_SERVE_HAPROXY_"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_PROXY_USE_GRPC": "1",
        f"{prefix}CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        f"{prefix}SOCKET_PATH": str(folder / "admin.sock"),
        f"{prefix}SERVER_STATE_BASE": str(folder),
        f"{prefix}SERVER_STATE_FILE": str(folder / "state"),
        f"{prefix}METRICS_PORT": str(free_port()),
        f"{prefix}STATS_PORT": str(free_port()),
        "BENCH_COMPOSITION": "single",
    }


RAY_SERVE = "Ray Serve"
PEERS = {
    "ray": Peer(
        name=RAY_SERVE,
        python=Path(sys.executable),
        command=_script("ray_serve.py"),
        path=lambda workload: "/",
        encode=lambda workload: _encode_plain,
        decode=_decode_plain,
        environment=lambda folder: {"BENCH_COMPOSITION": "default"},
    ),
    "ray-haproxy": Peer(
        name="Ray Serve (HAProxy, throughput)",
        python=Path(sys.executable),
        command=_script("ray_serve.py"),
        path=lambda workload: "/",
        encode=lambda workload: _encode_plain,
        decode=_decode_plain,
        environment=haproxy,
    ),
    "litserve": Peer(
        name="LitServe",
        python=PEERS_PYTHON,
        command=_script("lit_serve.py"),
        path=lambda workload: "/predict",
        encode=lambda workload: _encode_plain,
        decode=_decode_plain,
    ),
    "bentoml": Peer(
        name="BentoML",
        python=PEERS_PYTHON,
        command=_bento_command,
        path=lambda workload: "/predict",
        encode=lambda workload: _encode_bento_noop if workload.file is None else _encode_bento,
        decode=json.loads,
        environment=lambda folder: {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"},
    ),
    "mlserver": Peer(
        name="MLServer",
        python=PEERS_PYTHON,
        command=_mlserver_command,
        path=lambda workload: "/v2/models/bench/infer",
        encode=lambda workload: encode_protocol,
        decode=decode_protocol,
    ),
}


@contextlib.contextmanager
def serving(peer: Peer, workload: Workload, logs: Path) -> Iterator[Door]:
    """The peer for a while, answering correctly. Raises MeasurementFailed where it cannot be had."""
    if not peer.python.exists():
        raise MeasurementFailed(f"{peer.python} is missing; `make peers` installs the peers")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bp-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = [str(peer.python.absolute()), *peer.command(folder, port, workload)]
        environment = os.environ | _environment(workload, port) | dict(peer.environment(folder))
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{workload.name}-{peer.name.split(' (')[-1].split(',')[0].replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, cwd=_PEERS, start_new_session=True
            )
        door = Door(
            name=peer.name,
            host="127.0.0.1",
            port=port,
            path=peer.path(workload),
            encode=peer.encode(workload),
            decode=peer.decode,
            pid=process.pid,
        )
        try:
            wait_until_right(door, workload, lambda: process.poll() is None, log)
            yield door
        finally:
            end(process)


def _environment(workload: Workload, port: int) -> dict[str, str]:
    return {
        "BENCH_MODEL": str(workload.file.resolve()) if workload.file else "noop",
        "BENCH_BATCH": str(workload.batch),
        "BENCH_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(_PEERS),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "NO_COLOR": "1",
    }


def wait_until_right(door: Door, workload: Workload, alive: Callable[[], bool], log: Path) -> None:
    """Wait until the server gives the model's answer. Raises MeasurementFailed, naming its log."""
    end_at = time.monotonic() + _UP_S
    reason = "it did not come up"
    while time.monotonic() < end_at and alive():
        try:
            door.check(workload)
            return
        except (
            OSError,
            http.client.HTTPException,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
        ) as error:  # not up yet, or not yet with its model
            reason = f"{type(error).__name__}: {error}"
        time.sleep(0.3)
    raise MeasurementFailed(f"{door.name} does not answer ({reason}); its log: {log}")


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a child by its id, then what it started and left behind."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(25.0)
    if process.poll() is None:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(started, timeout=3.0)
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(left, timeout=3.0)


def floor_rate(workload: Workload, folder: Path, seconds: float) -> float:
    """Rows per second of the model in a loop, with nothing around it."""
    rows = folder / f"{workload.name}-rows.npz"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(rows, allow_pickle=False, **dict(workload.inputs))
    environment = os.environ | _environment(workload, 0) | {"BENCH_SECONDS": str(seconds)}
    command = [sys.executable, str(_PEERS / "floor.py"), str(rows)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if done.returncode:
        raise MeasurementFailed(f"the floor failed: {done.stderr[-500:]}")
    return float(done.stdout)
