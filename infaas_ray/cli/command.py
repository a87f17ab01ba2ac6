"""What all commands share: their options, how results are printed, how errors are told.

Rule: results go to stdout, as JSON with `--json`; progress and errors go to stderr.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infaas_ray.config import load_settings
from infaas_ray.errors import ConfigError, InfaasError

P = ParamSpec("P")
R = TypeVar("R")
Command = Callable[..., Any]

_PAGE_COLUMNS = 160  # of tables that go to a file or a pipe
# Texts from outside hold brackets, which must be printed and not taken for markup; colour is given by `Text`.
err = Console(stderr=True, highlight=False, markup=False)
out = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PAGE_COLUMNS)


def command(function: Callable[P, Any]) -> Command:
    """A command with `--home`, `--config` and `--json`, whose errors are told in words (or JSON) and not as a trace."""

    @click.option("--home", type=click.Path(path_type=Path), help="Folder of the system (default ~/.infaas).")
    @click.option("--config", type=click.Path(path_type=Path), help="YAML file with settings.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    @wraps(function)
    def run(*args: Any, home: Path | None, config: Path | None, as_json: bool, **options: Any) -> None:
        try:
            flags = {"home": home.resolve()} if home else {}
            signal.signal(signal.SIGTERM, interrupted)
            function(*args, load_settings(config, flags), as_json, **options)  # type: ignore[arg-type]
        except (InfaasError, OSError) as found:
            error = found if isinstance(found, InfaasError) else ConfigError(str(found))
            if as_json:
                click.echo(json.dumps({**error.to_json(), "status": error.status}))
            else:
                err.print(Text.assemble(("error:", "red"), " ", error.message), soft_wrap=True)
                for variant, reason in getattr(error, "reasons", {}).items():
                    err.print(f"  {variant}: {reason}", soft_wrap=True)
            sys.exit(1)

    return run


def interrupted(_signal: int, _frame: object) -> None:
    """Let what was begun be tidied up, as after Ctrl-C; make passes a signal on to those who had it already."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Keep what compiled libraries (HiGHS) print by themselves out of the results on stdout. Print nothing inside."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def slo_options(function: Callable[P, R]) -> Callable[P, R]:
    """The options of an SLO."""
    for option in (
        click.option("--latency-ms", type=float, help="Latency bound."),
        click.option("--min-accuracy", type=float, help="Least accuracy, 0 to 1."),
        click.option("--max-usd-per-1k", type=float, help="Greatest price of 1,000 rows, US dollars."),
    ):
        function = option(function)
    return function


def show(as_json: bool, content: Any, people: Callable[[], None]) -> None:
    """Print a result: `content` as JSON, or what `people()` prints."""
    if as_json:
        click.echo(json.dumps(content, default=str))
    else:
        people()


def table(title: str, columns: list[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print a table."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out.print(grid)
