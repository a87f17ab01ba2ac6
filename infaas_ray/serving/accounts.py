"""Keeps the ledger of a running system, and writes it into the metadata database each minute.

What is spent between two writes is lost with a controller that is killed: a minute at most.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from infaas_ray.domain import WorkerType
from infaas_ray.policy.autoscaler import Autoscaler
from infaas_ray.policy.ledger import Ledger, Spent
from infaas_ray.policy.messages import Event, TrafficReported
from infaas_ray.policy.routing import Catalog
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.usage import Peak, Share, Usage, record_usage

_WRITE_S = 60.0


class Accounts:
    """Call `turn` after each turn of the control loop; where it returns something, have `write` write that."""

    def __init__(self, metadata: Metadata, now: float) -> None:
        self._metadata = metadata
        self._ledger = Ledger()
        self._written = now

    def turn(
        self, events: Iterable[Event], autoscaler: Autoscaler, prices: Mapping[str, WorkerType], now: float
    ) -> Spent | None:
        """Account for what happened; what is to be written now, if anything."""
        for event in events:
            if isinstance(event, TrafficReported):
                self._ledger.count(event)
        self._ledger.advance(autoscaler.fleet, autoscaler.traffic, prices, now)
        if now - self._written < _WRITE_S:
            return None
        self._written = now
        return self._ledger.take()

    def rest(self) -> Spent:
        """What is not written yet."""
        return self._ledger.take()

    def write(self, spent: Spent, catalog: Catalog) -> None:
        """Add to the database (blocks while it does)."""
        hour = f"{datetime.now(UTC):%Y-%m-%dT%H}"
        usage = [
            Usage(hour=hour, use_case=_use_case(variant, catalog), variant=variant, worker_type=kind, usd=usd)
            for (kind, variant), usd in spent.usd.items()
        ]
        usage += [
            Usage(hour=hour, use_case=_use_case(variant, catalog), variant=variant, rows=rows)
            for variant, rows in spent.rows.items()
        ]
        peaks = [
            Peak(hour=hour, use_case=name, peak_qps=peak, seconds=spent.seconds)
            for name, peak in spent.peak_qps.items()
        ]
        shares = [
            Share(hour=hour, application=name, use_case=_use_case(variant, catalog), variant=variant, rows=rows)
            for (name, variant), rows in spent.applications.items()
        ]
        record_usage(self._metadata, usage, peaks, shares)


def _use_case(variant: str, catalog: Catalog) -> str:
    """The use case that a variant answers; none for what is no variant (idle, booting) or has left the catalogue."""
    offer = catalog.offers.get(variant)
    return "" if offer is None else catalog.architectures[offer.variant.architecture].use_case.name
