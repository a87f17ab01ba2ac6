"""What was spent and served, by hour, in the metadata database: it outlives every controller.

Rules: amounts are added to what the hour has already, so any number of writers and restarts lose nothing and count
nothing twice; rows are of an hour in UTC (`2026-11-25T10`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.schema import PEAKS, SHARES, USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """US dollars spent on a variant on a worker type in an hour, and the rows that it answered.

    `variant` may be an account of the ledger instead (idle, booting), without a use case. Rows have no worker type.
    """

    hour: str
    use_case: str
    variant: str
    worker_type: str = ""
    usd: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The greatest rate of a use case in an hour, in rows a second, and for how many seconds it was watched."""

    hour: str
    use_case: str
    peak_qps: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Rows of an hour that a variant answered for a named application; the rest is of those that gave no name."""

    hour: str
    application: str
    use_case: str
    variant: str
    rows: int


def record_usage(
    metadata: Metadata, usage: Iterable[Usage], peaks: Iterable[Peak], shares: Iterable[Share] = ()
) -> None:
    """Add to what the hours have; all or nothing."""
    with metadata.writing() as connection:
        for x in usage:
            key = {name: getattr(x, name) for name in ("hour", "use_case", "variant", "worker_type")}
            _add(connection, USAGE, key, {"usd": USAGE.c.usd + x.usd, "rows": USAGE.c.rows + x.rows}, x)
        for peak in peaks:
            key = {"hour": peak.hour, "use_case": peak.use_case}
            higher = sql.case((PEAKS.c.peak_qps < peak.peak_qps, peak.peak_qps), else_=PEAKS.c.peak_qps)
            _add(connection, PEAKS, key, {"peak_qps": higher, "seconds": PEAKS.c.seconds + peak.seconds}, peak)
        for share in shares:
            key = {name: getattr(share, name) for name in ("hour", "application", "use_case", "variant")}
            _add(connection, SHARES, key, {"rows": SHARES.c.rows + share.rows}, share)


def read_shares(metadata: Metadata, since: str = "") -> list[Share]:
    """What named applications had, of hours from `since` on (all, where empty), in order of time."""
    with metadata.reading() as connection:
        found = connection.execute(sql.select(SHARES).where(SHARES.c.hour >= since).order_by(SHARES.c.hour)).mappings()
        return [Share(**x) for x in found]


def read_usage(metadata: Metadata, since: str = "") -> tuple[list[Usage], list[Peak]]:
    """All rows of hours from `since` on (all, where empty), in order of time."""
    with metadata.reading() as connection:
        usage = connection.execute(sql.select(USAGE).where(USAGE.c.hour >= since).order_by(USAGE.c.hour)).mappings()
        peaks = connection.execute(sql.select(PEAKS).where(PEAKS.c.hour >= since).order_by(PEAKS.c.hour)).mappings()
        return [Usage(**x) for x in usage], [Peak(**x) for x in peaks]


def _add(connection: Connection, table: sql.Table, key: dict[str, str], change: dict[str, Any], fresh: Any) -> None:
    """Change the row of that key, or insert `fresh` where there is none."""
    where = [table.c[name] == value for name, value in key.items()]
    if connection.execute(sql.update(table).where(*where).values(**change)).rowcount == 0:
        connection.execute(sql.insert(table).values(**{x.name: getattr(fresh, x.name) for x in table.columns}))
