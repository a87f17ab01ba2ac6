"""`infaas query`, `explain`: one question to a running system, and why it goes where it goes."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.text import Text

from infaas_ray.cli.command import command, out, show, slo_options, table
from infaas_ray.client import Client
from infaas_ray.config import Settings
from infaas_ray.domain import Array
from infaas_ray.errors import InvalidInput, NotRunning, one_of


def _url(settings: Settings, url: str | None) -> str:
    """The address given, or that of the system that runs from this home."""
    from infaas_ray.serving.head import read_run

    if url:
        return url
    run = read_run(settings)
    if run is None:
        raise NotRunning(f"no system runs from {settings.home}; start one with 'infaas up', or name one with --url")
    return run.url


@click.command()
@click.argument("target")
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An input tensor; repeat for more.")
@click.option("--inputs", "archive", type=click.Path(path_type=Path), help=".npz with one array per input.")
@click.option("--on-miss", type=click.Choice(["reject", "degrade", "late"]), help="If the SLO cannot be met now.")
@click.option("--application", default="", help="Whose query it is, for 'infaas cost --by application'.")
@click.option("--url", help="Address of the system (default: the one that runs here).")
@slo_options
@command
def query(
    settings: Settings,
    as_json: bool,
    target: str,
    inputs: tuple[str, ...],
    archive: Path | None,
    application: str,
    url: str | None,
    **slo: Any,
) -> None:
    """Ask TARGET (a use case, an architecture or a variant) and show who answered."""
    arrays = _read_inputs(inputs, archive)
    with Client(_url(settings, url), application=application) as client:
        result = client.infer(target, _only_inputs(client, target, arrays, archive), **slo)
    told = {name: getattr(result, name) for name in result.__slots__ if name != "outputs"}
    content = {**told, "outputs": {name: x.tolist() for name, x in result.outputs.items()}}

    def people() -> None:
        table("Answer", ["", ""], [[name, str(value)] for name, value in told.items()])
        for name, array in result.outputs.items():
            out.print(f"{name} {array.dtype}{list(array.shape)}: {np.array2string(array, threshold=12, precision=4)}")

    show(as_json, content, people)


def _read_inputs(inputs: tuple[str, ...], archive: Path | None) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    try:
        if archive is not None:
            with np.load(archive, allow_pickle=False) as stored:
                arrays.update({name: stored[name] for name in stored.files})
        for item in inputs:
            name, found, file = item.partition("=")
            if not found:
                raise InvalidInput(f"--input takes NAME=FILE.npy, not {item!r}")
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                raise InvalidInput(f"{file} holds several arrays; give it with --inputs")
            arrays[name] = loaded
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"cannot read the inputs: {error}") from None
    if not arrays:
        raise InvalidInput("give the inputs with --inputs FILE.npz or --input NAME=FILE.npy")
    return arrays


def _only_inputs(client: Client, target: str, arrays: Mapping[str, Array], archive: Path | None) -> dict[str, Array]:
    """Leave out of an archive what the target does not take, so that a validation set can be asked as it is."""
    if archive is None:
        return dict(arrays)
    known = [x["name"] for x in client.metadata(target)["inputs"]]
    missing = [x for x in known if x not in arrays]
    if missing:
        raise InvalidInput(f"{archive}: {one_of('input', missing[0], list(arrays))}")
    return {name: arrays[name] for name in known}


@click.command()
@click.argument("target")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows of the query.")
@click.option("--url", help="Address of the system (default: the one that runs here).")
@slo_options
@command
def explain(settings: Settings, as_json: bool, target: str, rows: int, url: str | None, **slo: Any) -> None:
    """Which variant would answer such a query now, and why the others lose."""
    with Client(_url(settings, url)) as client:
        candidates = client.explain(target, rows=rows, **slo)
    cells = [
        [
            Text(x["variant"], "bold green" if x["chosen"] else ""),
            f"{x['accuracy']:.4f}",
            f"{x['usd_per_1k']:.3g}",
            "" if x["expected_ms"] is None else f"{x['expected_ms']:.2f}",
            str(x["replicas"]),
            x["why"],
        ]
        for x in candidates
    ]
    columns = ["variant", "accuracy", "USD per 1k", "expected ms", "replicas", "why"]
    show(as_json, candidates, lambda: table(f"Candidates for {target}", columns, cells))
