"""What machines cost, and for what: every second of every machine is on somebody's account.

Rules: a worker costs its type's price from the request (a booting machine is paid, too) to its end. While it runs, each
replica on it pays for the share that it occupies, the larger of its share of the main resource and of memory; what
nobody occupies is on the account `IDLE`, what boots on `BOOTING`. Shares of more than the whole are scaled down to it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from infaas_ray.domain import WorkerType
from infaas_ray.policy.applications import Applications
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.lifecycle import Worker
from infaas_ray.policy.messages import TrafficReported
from infaas_ray.policy.traffic import Traffic

IDLE, BOOTING = "(idle)", "(booting)"
_EVERY_S = 1.0  # shares are looked at no more often than that


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Money and rows since the last account: US dollars by (worker type, variant), rows by variant.

    `usd` also has the accounts `IDLE` and `BOOTING` in the place of a variant. `applications` are the rows of named
    applications, by (application, variant). `peak_qps` is the greatest rate by use case, in rows a second; `seconds`
    is the time accounted for.
    """

    usd: dict[tuple[str, str], float]
    rows: dict[str, int]
    peak_qps: dict[str, float]
    seconds: float
    applications: dict[tuple[str, str], int]


class Ledger:
    """Accounts for a fleet."""

    def __init__(self) -> None:
        self._usd: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._rows: Counter[str] = Counter()
        self._applications = Applications()
        self._peaks: dict[str, float] = {}
        self._seconds = 0.0
        self._last: float | None = None

    def count(self, report: TrafficReported) -> None:
        """Take in what a router served."""
        for variant, rows in report.served.items():
            self._rows[variant] += rows
        for application, by_variant in report.applications.items():
            self._applications.of(application).window.update(by_variant)

    def advance(self, fleet: Fleet, traffic: Traffic, types: Mapping[str, WorkerType], now: float) -> None:
        """Account for the time since the last call, by what runs now; too short a time waits for the next call.

        `types` has the prices; workers of a type that it lacks cost nothing.
        """
        if self._last is None:
            self._last = now
        passed_s = now - self._last
        if passed_s < _EVERY_S:
            return
        self._last = now
        self._seconds += passed_s
        for worker in fleet.workers.values():
            known = types.get(worker.worker_type)
            if known is not None:
                self._charge(worker, known, passed_s)
        for name, known in types.items():
            booting = fleet.machines.booting(name)
            if booting:
                self._usd[name, BOOTING] += booting * known.usd_per_hour * passed_s / 3600
        self._note_peaks(fleet, traffic)

    def take(self) -> Spent:
        """The account since the last call, and start a new one."""
        applications = self._applications.take(self._last or 0.0)
        found = Spent(
            usd=dict(self._usd),
            rows=dict(self._rows),
            peak_qps=self._peaks,
            seconds=self._seconds,
            applications={(name, variant): rows for name, of in applications.items() for variant, rows in of.items()},
        )
        self._usd, self._rows, self._peaks, self._seconds = defaultdict(float), Counter(), {}, 0.0
        return found

    def _charge(self, worker: Worker, known: WorkerType, passed_s: float) -> None:
        usd = known.usd_per_hour * passed_s / 3600
        shares: defaultdict[str, float] = defaultdict(float)
        for replica in worker.replicas.values():
            if replica.needs is not None:
                total = worker.resources.get(replica.needs.resource, 0.0)
                of_resource = replica.needs.amount / total if total > 0 else 1.0
                shares[replica.variant] += max(of_resource, replica.needs.memory_bytes / max(1, worker.memory_bytes))
        taken = sum(shares.values())
        whole = max(1.0, taken)
        for variant, share in shares.items():
            self._usd[known.name, variant] += usd * share / whole
        if (left := 1.0 - taken / whole) > 0:
            self._usd[known.name, IDLE] += usd * left

    def _note_peaks(self, fleet: Fleet, traffic: Traffic) -> None:
        rates: defaultdict[str, float] = defaultdict(float)
        catalog = fleet.catalog
        for variant in traffic.wanted():
            if variant in catalog.offers:
                architecture = catalog.architectures[catalog.offers[variant].variant.architecture]
                rates[architecture.use_case.name] += traffic.demand(variant).wanted_qps
        for name, rate in rates.items():
            self._peaks[name] = max(self._peaks.get(name, 0.0), rate)
