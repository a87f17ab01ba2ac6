"""`infaas events`, `replay`: what the controller decided and why."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from infaas_ray.cli.command import command, out, show
from infaas_ray.config import Settings
from infaas_ray.errors import InvalidInput, NotRunning
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
from infaas_ray.policy.replay import Header, LoggedTurn, WholeLines, decode, in_words
from infaas_ray.policy.replay import replay as replay_log

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
    with log.open("rb") as file:
        lines = WholeLines(file)
        found = replay_log(lines, settings.scaling)
    content = {
        "same": found is None,
        "difference": None if found is None else str(found),
        "cut_line": lines.cut or None,
    }

    def people() -> None:
        out.print("the same actions in every turn" if found is None else str(found))
        if lines.cut:
            out.print(f"line {lines.cut}, the last one, is cut and was left out")

    show(as_json, content, people)
    if found is not None:
        raise SystemExit(1)
