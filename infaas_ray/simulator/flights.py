"""Queries on their way through the simulated system, as small mutable things, because there are millions."""

from math import inf
from typing import Protocol

from infaas_ray.policy.candidates import ReplicaLoad
from infaas_ray.policy.underway import patience_s, remaining_s
from infaas_ray.simulator.workload import QueryKind


class Kind:
    """A kind of query with what follows from its SLO; `bound_s`: after which it expires, infinite where it never does.

    `number` counts the kinds of a workload from 0.
    """

    __slots__ = ("bound_s", "latency_s", "number", "offline", "patience_s", "rows", "slo", "target")

    def __init__(self, number: int, kind: QueryKind) -> None:
        self.number = number
        self.target = kind.target
        self.slo = kind.slo
        self.rows = kind.rows
        self.offline = kind.slo.offline
        self.patience_s = patience_s(kind.slo)
        bound_s = remaining_s(kind.slo, 0.0)
        self.bound_s = inf if bound_s is None else bound_s
        self.latency_s = inf if kind.slo.latency_s is None else kind.slo.latency_s


class Flight:
    """One query. Times in seconds: when it arrived, was last sent to a replica, and got there."""

    __slots__ = (
        "arrived_s",
        "counted",
        "degraded",
        "kind",
        "limited",
        "load",
        "reached_s",
        "replica",
        "router",
        "sent_s",
        "variant",
        "waits_for",
    )

    def __init__(self, kind: Kind, router: "Home", arrived_s: float) -> None:
        self.kind = kind
        self.router = router
        self.arrived_s = arrived_s
        self.sent_s = arrived_s
        self.reached_s = arrived_s
        self.replica = ""
        self.variant = ""
        self.load: ReplicaLoad | None = None
        self.degraded = False
        self.counted = False  # as demand
        self.limited = False  # the end of its patience is arranged
        self.waits_for: ReplicaLoad | None = None  # rows that wait for the same loading


class Batch:
    """What was computed at once, as its replica reports it."""

    __slots__ = ("compute_s", "flights", "queued_rows", "rows", "started_s", "variant")

    def __init__(self, flights: list[Flight], variant: str, rows: int, started_s: float) -> None:
        self.flights = flights
        self.variant = variant
        self.rows = rows
        self.started_s = started_s
        self.compute_s = 0.0
        self.queued_rows = 0

    def part(self, flights: list[Flight]) -> "Batch":
        """The same for some of its queries."""
        made = Batch(flights, self.variant, self.rows, self.started_s)
        made.compute_s, made.queued_rows = self.compute_s, self.queued_rows
        return made


class Home(Protocol):
    """Where a query comes from and its answer goes."""

    def answered(self, batch: Batch) -> None:
        """The batch was computed; all its queries are from here."""
        ...

    def expired(self, flight: Flight) -> None:
        """The query expired in the queue of its replica."""
        ...

    def lost(self, flight: Flight) -> None:
        """Its replica does not answer: it is gone, or takes no more queries."""
        ...
