"""`infaas cost`: what the machines cost and for what, and what a fixed fleet would have cost.

An application pays for a variant by its share of the rows that the variant answered in the hour.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from infaas_ray.cli.command import command, err, show, table
from infaas_ray.config import Settings
from infaas_ray.policy.fixed_cost import fixed_fleet
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.usage import Peak, Share, Usage, read_shares, read_usage

UNNAMED = "(unnamed)"  # queries that named no application
UNUSED = "(unused)"  # replicas that answered nothing in the hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """US dollars and rows of an application on a variant; `application` is empty on the accounts of nobody."""

    application: str
    use_case: str
    variant: str
    usd: float
    rows: int


@click.command()
@click.option("--since", default="", help="From this hour on (UTC), such as 2026-11-25T10 or 2026-11.")
@click.option(
    "--by",
    type=click.Choice(["use-case", "application", "variant", "worker-type", "hour"]),
    default="use-case",
    show_default=True,
)
@command
def cost(settings: Settings, as_json: bool, since: str, by: str) -> None:
    """What the machines cost and for what, beside what the most accurate variant, fixed, would have cost."""
    metadata = Metadata(settings.metadata_url)
    try:
        usage, peaks = read_usage(metadata, since)
        shares = read_shares(metadata, since)
        fixed = _fixed(metadata, settings, peaks)
    finally:
        metadata.close()
    spent = sum(x.usd for x in usage)
    rows = _grouped(usage, shares, by)
    instead = _instead(by, split(usage, shares), {x["use_case"]: x["usd"] for x in fixed})
    for row in rows:
        row["fixed_usd"] = instead.get(row["name"])
    content = {"usd": spent, "rows": sum(x.rows for x in usage), "by": rows, "fixed": fixed}

    def people() -> None:
        if not usage:
            err.print("nothing was spent yet: usage is written each minute while a system runs")
            return
        _tell(spent, by, rows, fixed)

    show(as_json, content, people)


def _tell(spent: float, by: str, rows: Sequence[dict[str, Any]], fixed: Sequence[dict[str, Any]]) -> None:
    columns = [by, "USD", "rows", "USD per 1,000", "fixed, USD"]
    cells = [
        [x["name"], f"{x['usd']:.6f}", f"{x['rows']:,}", _per_1k(x["usd"], x["rows"]), _usd(x["fixed_usd"])]
        for x in rows
    ]
    table(f"{spent:.6f} USD", columns, cells)
    if fixed:
        title = "Serving the most accurate variant on machines of its own would have cost"
        fleets = [[x["use_case"], x["variant"], f"{x['machines']} x {x['worker_type']}", _usd(x["usd"])] for x in fixed]
        table(title, ["use case", "fixed variant", "machines", "USD"], fleets)


def _usd(usd: float | None) -> str:
    return "" if usd is None else f"{usd:.6f}"


def _per_1k(usd: float, rows: int) -> str:
    return f"{usd / rows * 1000:.3g}" if rows else ""


def split(usage: Iterable[Usage], shares: Iterable[Share]) -> list[Entry]:
    """What each application cost, hour by hour and variant by variant. All of the usage is in it."""
    usd: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    rows: Counter[tuple[str, str, str]] = Counter()
    named: defaultdict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for x in usage:
        usd[x.hour, x.use_case, x.variant] += x.usd
        rows[x.hour, x.use_case, x.variant] += x.rows
    for share in shares:
        named[share.hour, share.use_case, share.variant][share.application] = share.rows
    found = []
    for key, spent in usd.items():
        _, use_case, variant = key
        parts = {**named[key], UNNAMED: max(0, rows[key] - sum(named[key].values()))}
        answered = sum(parts.values())
        if answered == 0:
            found.append(Entry(application="", use_case=use_case, variant=variant, usd=spent, rows=0))
            continue
        found += [
            Entry(application=name, use_case=use_case, variant=variant, usd=spent * part / answered, rows=part)
            for name, part in parts.items()
            if part
        ]
    return found


def _grouped(usage: Sequence[Usage], shares: Iterable[Share], by: str) -> list[dict[str, Any]]:
    """Sums by one of the columns, dearest first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for x in split(usage, shares) if by == "application" else usage:
        name = str(getattr(x, by.replace("-", "_")))
        if not name and by == "application" and x.use_case:
            name = UNUSED
        name = name or (x.variant if by in ("use-case", "application") else "(none)")
        sums[name][0] += x.usd
        sums[name][1] += x.rows
    found = [{"name": name, "usd": usd, "rows": int(rows)} for name, (usd, rows) in sums.items()]
    return sorted(found, key=lambda x: -float(str(x["usd"])))


def _instead(by: str, entries: Sequence[Entry], fixed: dict[str, float]) -> dict[str, float]:
    """What the fixed fleets would have cost by use case, or by application in proportion to its rows."""
    if by == "use-case":
        return fixed
    if by != "application":
        return {}
    rows: Counter[str] = Counter()
    for x in entries:
        rows[x.use_case] += x.rows
    found: defaultdict[str, float] = defaultdict(float)
    for x in entries:
        if x.rows and x.use_case in fixed:
            found[x.application] += fixed[x.use_case] * x.rows / rows[x.use_case]
    return dict(found)


def _fixed(metadata: Metadata, settings: Settings, peaks: Sequence[Peak]) -> list[dict[str, Any]]:
    """By use case, the fleet of its most accurate variant that the greatest rate would have needed."""
    from infaas_ray.cli.models import worker_types
    from infaas_ray.serving.catalog import read_catalog

    types = {x.name: x for x in worker_types(settings)}
    catalog = read_catalog(metadata, types.values())
    found = []
    for use_case in sorted({x.use_case for x in peaks}):
        here = [x for x in peaks if x.use_case == use_case]
        offers = [
            x
            for x in catalog.offers.values()
            if catalog.architectures[x.variant.architecture].use_case.name == use_case
        ]
        fleet = fixed_fleet(offers, types, max(x.peak_qps for x in here), sum(x.seconds for x in here))
        if fleet is not None:
            found.append({"use_case": use_case, **msgspec.to_builtins(fleet)})
    return found
