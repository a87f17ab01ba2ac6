"""The simulated provider: machines that boot, run, crash, are taken away and given back, and what they cost.

Rule: `have` performs `RequestWorkers`: what is missing is launched, and joins after its type's boot time; of what is
too much, the latest launches are taken back. A machine is paid from its launch to its end, at least `least_billed_s`;
those that are there at the beginning are paid from then. A launch that fails costs nothing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import exp

import numpy as np

from infaas_ray.domain import HardwareKind, Variant, WorkerType
from infaas_ray.policy.messages import Event, LaunchFailed, WorkerInterrupted, WorkerJoined, WorkerLost
from infaas_ray.simulator.engine import Engine
from infaas_ray.simulator.flights import Flight
from infaas_ray.simulator.meter import Meter
from infaas_ray.simulator.pool import Pool
from infaas_ray.simulator.replicas import Replica
from infaas_ray.simulator.settings import WorldSettings

_CPU, _GPU = "CPU", "GPU"


class Machine:
    """One worker: its processors, its devices, and the replicas on it."""

    __slots__ = (
        "_cpu_busy_s",
        "_memory",
        "_shares",
        "cpu",
        "devices",
        "kind",
        "launched_s",
        "name",
        "replicas",
        "ways",
    )

    def __init__(self, name: str, kind: WorkerType, engine: Engine, launched_s: float) -> None:
        self.name = name
        self.kind = kind
        self.launched_s = launched_s
        self.cpu = Pool(engine, kind.resources.get(_CPU, 0.0) or 1.0)
        self.devices = [Pool(engine, 1.0) for _ in range(int(kind.resources.get(_GPU, 0.0)))]
        self.replicas: dict[str, Replica] = {}
        self.ways: deque[Flight] = deque()  # of queries, that compute here one after another
        self._cpu_busy_s = 0.0
        self._memory: dict[str, int] = {}
        self._shares: dict[str, tuple[int, float]] = {}

    def pool_for(self, replica: str, variant: Variant, amount: float, engine: Engine) -> tuple[Pool, float]:
        """Where a new replica computes that occupies `amount` of its main resource, and on how many units of it.

        Processors and devices are shared; a device is the first one that has the replica's share left. Neuron cores
        belong to one replica alone.
        """
        match variant.hardware:
            case HardwareKind.CPU:
                return self.cpu, float(variant.threads)
            case HardwareKind.GPU:
                device = self._device(amount)
                self._shares[replica] = (device, amount)
                return self.devices[device], 1.0
            case HardwareKind.NEURON:
                return Pool(engine, 1.0), 1.0

    def _device(self, amount: float) -> int:
        used = [sum(share for at, share in self._shares.values() if at == x) for x in range(len(self.devices))]
        free = (at for at, share in enumerate(used) if share + amount <= 1.0 + 1e-9)
        return next(free, used.index(min(used)))

    def hold(self, replica: Replica, memory_bytes: int) -> None:
        """A replica is here."""
        self.replicas[replica.id] = replica
        self._memory[replica.id] = memory_bytes

    def forget(self, replica: Replica) -> None:
        """A replica has left."""
        for books in (self.replicas, self._memory, self._shares):
            books.pop(replica.id, None)

    @property
    def memory_bytes(self) -> int:
        """In use by replicas."""
        return sum(self._memory.values())

    def cpu_share(self, over_s: float) -> float:
        """The share of the processors that was busy since the last call, `over_s` ago."""
        busy_s = self.cpu.busy_s()
        share = (busy_s - self._cpu_busy_s) / over_s / (self.kind.resources.get(_CPU, 0.0) or 1.0)
        self._cpu_busy_s = busy_s
        return min(1.0, share)


class Provider:
    """All machines. `tell` takes facts to the controller; `lose` ends what runs on a machine that is gone."""

    def __init__(
        self,
        engine: Engine,
        settings: WorldSettings,
        types: Iterable[WorkerType],
        rng: np.random.Generator,
        meter: Meter,
        tell: Callable[[Event], None],
        lose: Callable[[Machine], None],
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self._engine = engine
        self._settings = settings
        self._types = {x.name: x for x in types}
        self._rng = rng
        self._meter = meter
        self._tell = tell
        self._lose = lose
        self._booting: dict[str, list[Machine]] = {name: [] for name in self._types}
        self._made = 0

    def begin(self) -> None:
        """The machines that are there at the beginning join."""
        for kind in self._types.values():
            for _ in range(self._settings.workers.get(kind.name, kind.min_workers)):
                self._join(self._launch(kind))

    # ---- orders

    def have(self, counts: Mapping[str, int], leaving: Callable[[str], bool]) -> None:
        """Let so many of each type be there (those for which `leaving` holds left out) or on their way."""
        for name, count in counts.items():
            kind, booting = self._types[name], self._booting[name]
            here = sum(1 for x in self.machines.values() if x.kind is kind and not leaving(x.name))
            wanted = max(0, count - here)
            while len(booting) > wanted:
                self._bill_end(booting.pop())
            while len(booting) < wanted and self._order(kind):
                pass

    def release(self, worker: str) -> None:
        """Give a machine back."""
        machine = self.machines.get(worker)
        if machine is not None:
            self._end(machine)

    # ---- boots

    def _order(self, kind: WorkerType) -> bool:
        """Launch one; False where that fails."""
        settings = self._settings
        there = len(self._booting[kind.name]) + sum(1 for x in self.machines.values() if x.kind is kind)
        full = there >= settings.most_workers.get(kind.name, there + 1)
        if full or self._rng.random() < settings.launch_failures:
            reason = "the provider has no more of this type" if full else "the launch failed"
            self._engine.after(settings.launch_failure_s, self._failed, (kind.name, reason))
            return False
        machine = self._launch(kind)
        self._booting[kind.name].append(machine)
        self._engine.after(kind.boot_s * exp(settings.boot_jitter * self._rng.standard_normal()), self._booted, machine)
        return True

    def _failed(self, launch: tuple[str, str]) -> None:
        name, reason = launch
        self._tell(LaunchFailed(worker_type=name, reason=reason, coming=len(self._booting[name])))

    def _launch(self, kind: WorkerType) -> Machine:
        self._made += 1
        now = self._engine.now
        self._meter.machines.change(kind.name, 1, now)
        return Machine(f"{kind.name}-{self._made}", kind, self._engine, now)

    def _booted(self, machine: Machine) -> None:
        booting = self._booting[machine.kind.name]
        if machine in booting:  # and was not taken back
            booting.remove(machine)
            self._join(machine)

    def _join(self, machine: Machine) -> None:
        settings, kind = self._settings, machine.kind
        self.machines[machine.name] = machine
        self._meter.counts["machines_joined"] += 1
        self._tell(
            WorkerJoined(
                worker=machine.name,
                worker_type=kind.name,
                resources=dict(kind.resources),
                memory_bytes=kind.memory_bytes,
            )
        )
        if settings.worker_crashes_per_hour:
            self._engine.after(self._drawn_s(settings.worker_crashes_per_hour), self._crash, machine)
        if kind.spot and settings.interruptions_per_hour:
            self._engine.after(self._drawn_s(settings.interruptions_per_hour), self._interrupt, machine)

    def _drawn_s(self, per_hour: float) -> float:
        return float(self._rng.exponential(3600.0 / per_hour))

    # ---- ends

    def _crash(self, machine: Machine) -> None:
        if machine.name in self.machines:
            self._meter.counts["machines_crashed"] += 1
            self._end(machine)

    def _interrupt(self, machine: Machine) -> None:
        if machine.name in self.machines:
            self._meter.counts["interruptions"] += 1
            self._tell(WorkerInterrupted(worker=machine.name, within_s=self._settings.notice_s))
            self._engine.after(self._settings.notice_s, self._take_away, machine)

    def _take_away(self, machine: Machine) -> None:
        if machine.name in self.machines:
            self._end(machine)

    def _end(self, machine: Machine) -> None:
        del self.machines[machine.name]
        self._lose(machine)
        self._bill_end(machine)
        self._tell(WorkerLost(worker=machine.name))

    def _bill_end(self, machine: Machine) -> None:
        now = self._engine.now
        self._meter.machines.change(machine.kind.name, -1, now)
        short_s = self._settings.least_billed_s - (now - machine.launched_s)
        if short_s > 0 and self._meter.from_s <= now < self._meter.until_s:
            self._meter.machines.lump(machine.kind.name, short_s)
