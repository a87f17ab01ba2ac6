"""Work on models in a process of its own, so that a crash or a hang there is an error here and nothing worse.

The parent calls `run_job`, the child `serve_job`. The job travels as JSON on standard input, results as lines of JSON
in a file (frameworks write to standard output as they please); nothing is pickled. Results given before a crash are
kept. Rule: a child gets a stated number of threads, a time limit, and of the environment only what it needs; it ends
with its parent.
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from infaas_ray import errors
from infaas_ray.errors import InfaasError, InvalidModel

Emit = Callable[[object], None]
T = TypeVar("T")

# No credentials among them: a model file must not be able to read any.
_ENVIRONMENT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "INFAAS_CACHE", "XDG_CACHE_HOME"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "NEURON_RT_VISIBLE_CORES"),
    *("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_LIBCUDA_PATH", "TRITON_PTXAS_PATH"),
    *("CC", "CXX", "CPATH", "LIBRARY_PATH"),  # Inductor and Triton compile C
)
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_LAST_WORDS = 400
_LOOK_EVERY_S = 0.25
_MEMORY_SHARE = 0.8
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True, slots=True)
class _Limits:
    seconds: float
    memory_bytes: int


class _Envelope(msgspec.Struct):
    results: str
    parent: int
    limit_s: float
    job: msgspec.Raw


class _Line(msgspec.Struct, omit_defaults=True):
    """One line of the results file: a result, or the error that ended the job."""

    result: msgspec.Raw = msgspec.Raw()
    error: str = ""
    args: list[Any] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a job gave, in order, and why it ended early if it did."""

    results: tuple[bytes, ...]
    failure: InfaasError | None

    def last(self, kind: type[T]) -> T:
        """The last result as `kind`; raises the job's failure instead where it has one."""
        if self.failure is not None:
            raise self.failure
        return msgspec.json.decode(self.results[-1], type=kind)


def run_job(
    module: str,
    job: object,
    *,
    what: str,
    folder: Path,
    threads: int,
    limit_s: float,
    memory_limit_bytes: int | None = None,
) -> JobReport:
    """Run `python -m module` on `job`, with temporary files in `folder`, for at most `limit_s` seconds.

    A child that takes more than `memory_limit_bytes` (by default 80 % of the machine's memory) is ended.
    `what` begins the sentence about a crash or a hang: "WHAT failed: it was ended by SIGSEGV".
    """
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".results") as results:
        envelope = _Envelope(
            results=results.name, parent=os.getpid(), limit_s=limit_s, job=msgspec.Raw(msgspec.json.encode(job))
        )
        limits = _Limits(limit_s, memory_limit_bytes or _most_memory_bytes())
        ended = _run(module, msgspec.json.encode(envelope), _environment(folder, threads), limits)
        lines = [msgspec.json.decode(x, type=_Line) for x in results.read().splitlines() if _is_json(x)]
    errored = [x for x in lines if x.error]
    given = tuple(bytes(x.result) for x in lines if not x.error)
    if errored:
        return JobReport(results=given, failure=_rebuild(errored[-1]))
    if ended is None and not given:
        ended = "it ended without a result"
    return JobReport(results=given, failure=InvalidModel(f"{what} failed: {ended}") if ended else None)


def serve_job(kind: type[T], work: Callable[[T, Emit], None]) -> None:
    """In the child: read the job, do `work`, which calls `emit` once per result; an error becomes the last line."""
    envelope = msgspec.json.decode(sys.stdin.buffer.read(), type=_Envelope)
    _end_with(envelope.parent)
    signal.alarm(math.ceil(envelope.limit_s) + 5)
    with Path(envelope.results).open("ab", buffering=0) as file:

        def emit(result: object) -> None:
            file.write(msgspec.json.encode(_Line(result=msgspec.Raw(msgspec.json.encode(result)))) + b"\n")

        try:
            work(msgspec.json.decode(envelope.job, type=kind), emit)
        except InfaasError as error:
            file.write(msgspec.json.encode(_Line(error=type(error).__name__, args=list(error.args))) + b"\n")
        except Exception as error:  # frameworks raise anything; the parent needs the sentence
            text = f"{type(error).__name__}: {_shortened(str(error))}"
            file.write(msgspec.json.encode(_Line(error=InvalidModel.__name__, args=[text])) + b"\n")


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent is killed, or end it now where that is past."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _run(module: str, stdin: bytes, environment: dict[str, str], limits: "_Limits") -> str | None:
    """Run the child to its end; the way it failed, or None."""
    # -P keeps the current folder off the module path: a stray torch.py there would be imported otherwise.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stderr, exceeded = _watch(process, stdin, limits)
    finally:
        _end(process)
    if exceeded:
        return exceeded
    if process.returncode == 0:
        return None
    said = _shortened(stderr.decode(errors="replace"))
    if process.returncode < 0:
        return f"it was ended by {signal.Signals(-process.returncode).name}" + (f": {said}" if said else "")
    return f"it exited with status {process.returncode}: {said}"


def _watch(process: subprocess.Popen[bytes], stdin: bytes, limits: "_Limits") -> tuple[bytes, str | None]:
    """Wait for the child's end: what it wrote to standard error, and which limit it exceeded before."""
    end = time.monotonic() + limits.seconds
    written: bytes | None = stdin
    while (left := end - time.monotonic()) > 0:
        try:
            _, stderr = process.communicate(written, timeout=min(_LOOK_EVERY_S, left))
        except subprocess.TimeoutExpired:
            written = None  # it is under way; `communicate` takes it only once
        else:
            return stderr, None
        if _resident_bytes(process.pid) > limits.memory_bytes:
            return b"", f"it exceeded its memory limit of {limits.memory_bytes / 1e6:.0f} MB"
    return b"", f"it exceeded its time limit of {limits.seconds:g} s"


def _resident_bytes(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it has just ended


def _most_memory_bytes() -> int:
    return int(_MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that the child and what it started are gone, and its pipes closed."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stderr):
        if pipe is not None:
            pipe.close()


def _environment(folder: Path, threads: int) -> dict[str, str]:
    count = str(threads)
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(_PACKAGE_PARENT), *_module_folders()])),
        "PYTHONWARNINGS": "ignore",
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
    }


def _module_folders() -> list[str]:
    """Where modules are found here by PYTHONPATH, but for what depends on the current folder."""
    return [x for x in os.environ.get("PYTHONPATH", "").split(os.pathsep) if x and Path(x).is_absolute()]


def _rebuild(line: _Line) -> InfaasError:
    error: InfaasError = getattr(errors, line.error)(*line.args)
    return error


def _is_json(line: bytes) -> bool:
    """Whether the line was written whole: a crash can cut the last one."""
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True


def _shortened(text: str) -> str:
    """The end of a long text, where frameworks put the cause."""
    text = " ".join(text.split())
    return text if len(text) <= _LAST_WORDS else "... " + text[-_LAST_WORDS:]
