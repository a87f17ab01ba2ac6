"""`infaas events`, `replay`, `cost`: what the controller decided and why, and what it cost."""

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from infaas_ray.cli.command import command, err, out, show, table
from infaas_ray.config import Settings
from infaas_ray.errors import InvalidInput, NotRunning
from infaas_ray.policy.fixed_cost import fixed_fleet
from infaas_ray.policy.messages import (
    Action,
    Event,
    LaunchFailed,
    ReplicaDied,
    ReplicaFailed,
    SolvePlan,
    WorkerInterrupted,
    WorkerJoined,
    WorkerLost,
)
from infaas_ray.policy.replay import Header, LoggedTurn, decode, in_words
from infaas_ray.policy.replay import replay as replay_log
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.usage import Usage, read_usage

_SHOWN_FACTS = (WorkerJoined, WorkerLost, WorkerInterrupted, LaunchFailed, ReplicaFailed, ReplicaDied)
_POLL_S = 0.3


@click.command()
@click.option("--last", type=click.IntRange(1), default=50, show_default=True, help="How many to show first.")
@click.option("--follow", "-f", is_flag=True, help="Go on showing what happens, until Ctrl-C.")
@command
def events(settings: Settings, as_json: bool, last: int, follow: bool) -> None:
    """What the controller saw and did, and why: the decision log of the system in this home."""
    path = settings.home / "decisions.jsonl"
    if not path.exists():
        raise NotRunning(f"there is no decision log {path}; start a system with 'infaas up'")
    with path.open("rb") as log:
        offset, rows = _rows(_whole_lines(log), 0.0)
        for row in rows[-last:]:
            _tell(row, as_json)
        while follow:
            time.sleep(_POLL_S)
            offset, rows = _rows(_whole_lines(log), offset)
            for row in rows:
                _tell(row, as_json)


def _whole_lines(log: BinaryIO) -> Iterator[bytes]:
    """The lines that are written to their end, from where the file stands."""
    while True:
        start = log.tell()
        line = log.readline()
        if not line.endswith(b"\n"):
            log.seek(start)
            return
        yield line


def _rows(lines: Iterator[bytes], offset: float) -> tuple[float, list[dict[str, Any]]]:
    """What is worth showing of a log, and the offset of its times to Unix time."""
    rows: list[dict[str, Any]] = []
    for found in decode(lines):
        if isinstance(found, Header):
            offset = found.unix_s
            continue
        rows += [_row(x, _fact(x), found, offset) for x in found.events if isinstance(x, _SHOWN_FACTS)]
        rows += [_row(x, in_words(x), found, offset) for x in found.actions]
    return offset, rows


def _row(message: Event | Action, words: str, turn: LoggedTurn, offset: float) -> dict[str, Any]:
    content = msgspec.to_builtins(message)
    if isinstance(message, SolvePlan):
        del content["problem"]  # thousands of numbers; the log has them
    return {"unix_s": turn.now + offset, "words": words, **content}


def _fact(event: Event) -> str:
    fields = {name: value for name, value in msgspec.to_builtins(event).items() if name != "type" and value != {}}
    return f"{type(event).__name__}: " + ", ".join(f"{name} {value}" for name, value in fields.items())


def _tell(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(row).decode())
    else:
        at = datetime.fromtimestamp(row["unix_s"], UTC)
        out.print(f"{at:%H:%M:%S.%f}"[:-3] + f"  {row['words']}", soft_wrap=True)


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@command
def replay(settings: Settings, as_json: bool, log: Path) -> None:
    """Feed a decision LOG to this version, and show where it first decides otherwise. Exit status 1 where it does."""
    if not log.is_file():
        raise InvalidInput(f"there is no decision log {log}; a system writes decisions.jsonl into its home folder")
    with log.open("rb") as lines:
        found = replay_log(lines, settings.scaling)
    content = {"same": found is None, "difference": None if found is None else str(found)}
    show(as_json, content, lambda: out.print("the same actions in every turn" if found is None else str(found)))
    if found is not None:
        raise SystemExit(1)


@click.command()
@click.option("--since", default="", help="From this hour on (UTC), such as 2026-11-25T10 or 2026-11.")
@click.option(
    "--by",
    type=click.Choice(["use-case", "variant", "worker-type", "hour"]),
    default="use-case",
    show_default=True,
)
@command
def cost(settings: Settings, as_json: bool, since: str, by: str) -> None:
    """What the machines cost and for what, beside what the most accurate variant, fixed, would have cost."""
    metadata = Metadata(settings.metadata_url)
    try:
        usage, _ = read_usage(metadata, since)
        fixed = _fixed(metadata, settings, since)
    finally:
        metadata.close()
    spent = sum(x.usd for x in usage)
    rows = _grouped(usage, by)
    content = {"usd": spent, "rows": sum(x.rows for x in usage), "by": rows, "fixed": fixed}

    def people() -> None:
        if not usage:
            err.print("nothing was spent yet: usage is written each minute while a system runs")
            return
        cells = [[x["name"], f"{x['usd']:.6f}", f"{x['rows']:,}", _per_1k(x["usd"], x["rows"])] for x in rows]
        table(f"{spent:.6f} USD", [by, "USD", "rows", "USD per 1,000"], cells)
        if fixed:
            columns = ["use case", "fixed variant", "machines", "USD"]
            title = "Serving the most accurate variant on machines of its own would have cost"
            fleets = [f"{x['machines']} x {x['worker_type']}" for x in fixed]
            table(
                title,
                columns,
                [[x["use_case"], x["variant"], y, f"{x['usd']:.6f}"] for x, y in zip(fixed, fleets, strict=True)],
            )

    show(as_json, content, people)


def _per_1k(usd: float, rows: int) -> str:
    return f"{usd / rows * 1000:.3g}" if rows else ""


def _grouped(usage: list[Usage], by: str) -> list[dict[str, Any]]:
    """Sums by one of the columns, dearest first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for x in usage:
        name = str(getattr(x, by.replace("-", "_"))) or (x.variant if by == "use-case" else "(none)")
        sums[name][0] += x.usd
        sums[name][1] += x.rows
    found = [{"name": name, "usd": usd, "rows": int(rows)} for name, (usd, rows) in sums.items()]
    return sorted(found, key=lambda x: -float(str(x["usd"])))


def _fixed(metadata: Metadata, settings: Settings, since: str) -> list[dict[str, Any]]:
    """By use case, the fleet of its most accurate variant that the greatest rate would have needed."""
    from infaas_ray.cli.models import worker_types
    from infaas_ray.serving.catalog import read_catalog

    types = {x.name: x for x in worker_types(settings)}
    catalog = read_catalog(metadata, types.values())
    _, peaks = read_usage(metadata, since)
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
