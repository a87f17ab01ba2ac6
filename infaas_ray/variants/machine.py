"""What this machine is, and what this process and its neighbours use of it. Linux only: it reads `/proc`."""

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infaas_ray.domain import Hardware, HardwareKind
from infaas_ray.errors import ConfigError


def hardware(kind: HardwareKind) -> Hardware:
    """This machine; cores are those that this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = {HardwareKind.CPU: cpu_model, HardwareKind.GPU: _gpu_model, HardwareKind.NEURON: _neuron_model}[kind]()
    return Hardware(kind=kind, model=model, cores=len(os.sched_getaffinity(0)), memory_bytes=memory)


def cpu_model() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


@cache
def cpu_flags() -> frozenset[str]:
    """What the processor can do, in Linux's words (x86 `flags`, Arm `Features`)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, []))


def memory_bytes(field: str, process: int | str = "self") -> int:
    """A line of a process's `/proc/*/status` in bytes: VmRSS is what it has resident, VmHWM the most it ever had.

    Not getrusage: its peak includes that of the parent at the fork.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


@dataclass(frozen=True, slots=True)
class Moment:
    """Time and processor seconds so far, of the whole machine and of this process."""

    at_s: float
    machine_s: float
    process_s: float

    @classmethod
    def now(cls) -> "Moment":
        """This moment."""
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = sum(fields) - fields[3] - fields[4]  # without idle and waiting for a disk
        return cls(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time())

    def outside_load(self, later: "Moment") -> float:
        """Cores that other processes kept busy between this moment and a later one."""
        others = (later.machine_s - self.machine_s) - (later.process_s - self.process_s)
        return max(0.0, others / max(later.at_s - self.at_s, 1e-9))


def forget_cached(path: Path) -> None:
    """Ask the kernel to drop a file's pages, so that the next read comes from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def gpu_used_bytes() -> int:
    """What all processes together hold on the GPU that this one uses; 0 where the driver does not say."""
    try:
        return int(float(_ask_driver("memory.used")) * 2**20)
    except (ConfigError, ValueError):
        return 0


def _gpu_model() -> str:
    return _ask_driver("name")


def _ask_driver(field: str) -> str:
    """A field of `nvidia-smi`, of the first GPU that this process sees. Raises ConfigError where there is none."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "-i", first]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError(f"nvidia-smi names no GPU here: {error}") from error


def _neuron_model() -> str:
    board = Path("/sys/devices/virtual/dmi/id/product_name")
    return board.read_text().strip() if board.exists() else "neuron"
