"""`infaas`: bring a system up, register models, ask questions, see why.

Every command takes `--json`; results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 refused or
failed (the message says what would be right), 2 wrong usage.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infaas_ray.client import Client
from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import Array, WorkerType
from infaas_ray.errors import InfaasError, InvalidInput, UnknownTarget, one_of
from infaas_ray.storage.metadata import Metadata

P = ParamSpec("P")
R = TypeVar("R")
Command = Callable[..., Any]

_PAGE_COLUMNS = 160  # of tables that go to a file or a pipe
_err = Console(stderr=True, highlight=False)
_out = Console(highlight=False, width=None if sys.stdout.isatty() else _PAGE_COLUMNS)


def _command(function: Callable[P, Any]) -> Command:
    """A command with `--home`, `--config` and `--json`, whose errors are told in words (or JSON) and not as a trace."""

    @click.option("--home", type=click.Path(path_type=Path), help="Folder of the system (default ~/.infaas).")
    @click.option("--config", type=click.Path(path_type=Path), help="YAML file with settings.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    @wraps(function)
    def run(*args: Any, home: Path | None, config: Path | None, as_json: bool, **options: Any) -> None:
        try:
            flags = {"home": home.resolve()} if home else {}
            function(*args, load_settings(config, flags), as_json, **options)  # type: ignore[arg-type]
        except InfaasError as error:
            if as_json:
                click.echo(json.dumps({**error.to_json(), "status": error.status}))
            else:
                _err.print(f"[red]error:[/red] {error.message}", soft_wrap=True)
                for variant, reason in getattr(error, "reasons", {}).items():
                    _err.print(f"  {variant}: {reason}", soft_wrap=True)
            sys.exit(1)

    return run


def _slo_options(function: Callable[P, R]) -> Callable[P, R]:
    for option in (
        click.option("--latency-ms", type=float, help="Latency bound."),
        click.option("--min-accuracy", type=float, help="Least accuracy, 0 to 1."),
        click.option("--max-usd-per-1k", type=float, help="Greatest price of 1,000 rows, US dollars."),
    ):
        function = option(function)
    return function


def _print(as_json: bool, content: Any, people: Callable[[], None]) -> None:
    if as_json:
        click.echo(json.dumps(content, default=str))
    else:
        people()


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _out.print(table)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="infaas_ray")
def main() -> None:
    """Model-less inference serving: say what a query needs; the system chooses the model-variant."""


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the HTTP endpoint (default 8000).")
@click.option("--address", help="Ray cluster to use: 'local' (default) starts one here, else its address or 'auto'.")
@_command
def up(settings: Settings, as_json: bool, port: int | None, address: str | None) -> None:
    """Start the system; returns when it takes queries."""
    from infaas_ray.serving import launch

    settings = _with(settings, port, address)
    status = nullcontext() if as_json else _err.status("starting")
    with status as shown:
        run = launch.up(settings, lambda step: shown.update(step) if shown is not None else None)
    content = {"url": run.url, "ray": run.address, "home": str(settings.home)}
    _print(as_json, content, lambda: _out.print(f"ready at [bold]{run.url}[/bold]; 'infaas list' shows what it serves"))


def _with(settings: Settings, port: int | None, address: str | None) -> Settings:
    http = settings.http if port is None else settings.http.model_copy(update={"port": port})
    cluster = settings.cluster if address is None else settings.cluster.model_copy(update={"address": address})
    return settings.model_copy(update={"http": http, "cluster": cluster})


@main.command()
@_command
def down(settings: Settings, as_json: bool) -> None:
    """Let every query finish, then end the system."""
    from infaas_ray.serving import launch

    status = nullcontext() if as_json else _err.status("stopping")
    with status as shown:
        ended = launch.down(settings, lambda step: shown.update(step) if shown is not None else None)
    _print(as_json, {"ended": ended}, lambda: _out.print("ended" if ended else f"nothing runs from {settings.home}"))


@main.command()
@_command
def status(settings: Settings, as_json: bool) -> None:
    """Workers, replicas, and what became of the queries."""
    from infaas_ray.serving import launch

    found = launch.status(settings)
    _print(as_json, found, lambda: _show_status(found))


def _show_status(found: Mapping[str, Any]) -> None:
    _out.print(f"{found['url']}  {found['variants']} variants, routing table {found['table_version']}")
    rows = [
        [x["replica"], f"{x['state']} {x['condition']}".strip(), str(x["pid"] or ""), x["worker"][:8]]
        for x in found["replicas"]
    ]
    _table("Replicas", ["replica", "state", "pid", "worker"], rows)
    share = [
        [x["worker"][:8], x["type"], _percent(x["cpu_share"]), _percent(x["memory_share"])] for x in found["workers"]
    ]
    _table("Workers", ["worker", "type", "processors", "memory"], share)
    _out.print("Queries: " + ", ".join(f"{count} {name}" for name, count in found["queries"].items()))
    for variant, reason in found["blocked"].items():
        _out.print(f"[yellow]{variant}[/yellow]: {reason}")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--name", "architecture", required=True, help="Name of the architecture, such as resnet18.")
@click.option("--task", required=True, help="What it does, such as image-classification.")
@click.option("--dataset", required=True, help="On what data, such as imagenet.")
@click.option("--validation", type=click.Path(path_type=Path), help=".npz: one array per input, and 'label'.")
@click.option("--metric", default="top1_accuracy", show_default=True, help="How accuracy is measured.")
@click.option("--declared-accuracy", type=float, help="Accuracy without a validation set; shown as declared.")
@click.option("--hardware", multiple=True, type=click.Choice(["cpu", "gpu", "neuron"]), help="Default cpu; repeat.")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="Threads of a CPU variant (default 1, 2).")
@click.option("--batch-limit", type=click.IntRange(1), help="Largest batch (default 16).")
@click.option("--recipe", "recipes", multiple=True, help="Only this, such as openvino-int8; repeat for more.")
@click.option("--offer-all", is_flag=True, help="Offer dominated variants, too.")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Accept a pickled scikit-learn estimator. Its code runs here with your rights: only for files you trust.",
)
@click.option("--picture", type=click.Path(path_type=Path), help="Write accuracy against latency as .png, .svg, .pdf.")
@_command
def register(
    settings: Settings, as_json: bool, model: Path, architecture: str, picture: Path | None, **options: Any
) -> None:
    """Register MODEL: generate its variants, measure them, offer those that none dominates.

    MODEL is an .onnx or .pt2 file, a TorchScript archive, or a Hugging Face folder with safetensors.
    """
    from infaas_ray import api
    from infaas_ray.variants import pareto_picture

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, disable=as_json, transient=True) as bar:
        task = bar.add_task("reading the model", total=None)
        found = api.register(
            model,
            architecture=architecture,
            settings=settings,
            on_progress=lambda x: bar.update(task, description=x.step, completed=x.done, total=x.total),
            options=_generation_options(options),
            **options,
        )
    rows = [(v, p, v.name in found.offered) for v, p in found.variants]
    content = {
        "architecture": architecture,
        "variants": [{**_variant_row(v, p), "offered": offered} for v, p, offered in rows],
        "skipped": list(found.skipped),
        "failures": dict(found.failures),
        "missing": dict(found.missing),
        "picture": str(pareto_picture.draw(rows, picture, architecture)) if picture else None,
    }
    _print(as_json, content, lambda: _show_registration(content, pareto_picture.as_text(rows)))


def _generation_options(options: dict[str, Any]) -> Any:
    """Take the options of generation out of those of a registration."""
    from infaas_ray.domain import HardwareKind
    from infaas_ray.variants.generator import GenerationOptions

    names = ("hardware", "threads", "batch_limit", "recipes", "offer_all", "allow_pickle")
    given = {name: options.pop(name) for name in names}
    given["hardware"] = tuple(HardwareKind(x) for x in given["hardware"])
    return GenerationOptions(**{name: value for name, value in given.items() if value})


def _variant_row(variant: Any, profile: Any) -> dict[str, Any]:
    accuracy = profile.accuracy
    return {
        "variant": variant.name,
        "accuracy": accuracy.value,
        "accuracy_interval": accuracy.interval,
        "accuracy_source": str(accuracy.source),
        "p50_ms": profile.latencies[0].p50_s * 1e3,
        "p99_ms": profile.latencies[0].p99_s * 1e3,
        "saturation_qps": profile.saturation_qps,
        "load_s": profile.load_s,
        "peak_memory_mb": profile.peak_memory_bytes / 1e6,
    }


_VARIANT_COLUMNS = ["variant", "accuracy", "p50 ms", "p99 ms", "rows/s", "load s", "memory MB"]


def _variant_cells(row: Mapping[str, Any]) -> list[str]:
    declared = " (declared)" if row["accuracy_source"] == "declared" else ""
    return [
        row["variant"],
        f"{row['accuracy']:.4f}{declared}",
        f"{row['p50_ms']:.3f}",
        f"{row['p99_ms']:.3f}",
        f"{row['saturation_qps']:,.0f}",
        f"{row['load_s']:.2f}",
        f"{row['peak_memory_mb']:.0f}",
    ]


def _show_registration(content: Mapping[str, Any], picture: str) -> None:
    rows = sorted(content["variants"], key=lambda x: x["p50_ms"])
    cells = [[*_variant_cells(x), "yes" if x["offered"] else "dominated"] for x in rows]
    _table(f"Variants of {content['architecture']}", [*_VARIANT_COLUMNS, "offered"], cells)
    _out.print(picture, markup=False, soft_wrap=True)
    for label, reason in content["failures"].items():
        _out.print(f"[yellow]not offered[/yellow] {label}: {reason}", soft_wrap=True)
    for runtime, how in content["missing"].items():
        _out.print(f"[yellow]not tried[/yellow] {runtime}: {how}", markup=True, soft_wrap=True)
    if content["picture"]:
        _out.print(f"picture: {content['picture']}", soft_wrap=True)


@main.command()
@click.argument("target")
@click.option("--all", "every", is_flag=True, help="Dominated variants, too.")
@_command
def variants(settings: Settings, as_json: bool, target: str, every: bool) -> None:
    """What TARGET (a use case or an architecture) can be answered with: accuracy, latency, price."""
    metadata = Metadata(settings.metadata_url)
    try:
        architectures = metadata.architectures()
        chosen = [x for x in architectures.values() if target in (x.name, x.use_case.name, x.use_case.task)]
        if not chosen:
            known = {name for x in architectures.values() for name in (x.name, x.use_case.name)}
            raise UnknownTarget(one_of("target", target, sorted(known)))
        offered = {x.name for x, _ in metadata.variants(offered=True)}
        found = [pair for x in chosen for pair in metadata.variants(x.name)]
    finally:
        metadata.close()
    types = _worker_types(settings)
    rows = [
        {
            **_variant_row(v, p),
            "offered": v.name in offered,
            "usd_per_1k": {x.name: price for x in types if (price := x.usd_per_1k(v, p)) < math.inf},
        }
        for v, p in sorted(found, key=lambda pair: pair[1].latencies[0].p50_s)
        if every or v.name in offered
    ]
    _print(as_json, rows, lambda: _show_variants(target, rows, len(found) - len(rows)))


def _worker_types(settings: Settings) -> list[WorkerType]:
    """Those of the price catalogue; without one, a machine like this."""
    named = list(settings.worker_types().values())
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    here = WorkerType(
        name="this-machine",
        resources={"CPU": cores},
        memory_bytes=memory,
        usd_per_hour=cores * settings.prices.usd_per_cpu_hour,
    )
    return named or [here]


def _show_variants(target: str, rows: list[dict[str, Any]], hidden: int) -> None:
    types = list(dict.fromkeys(name for x in rows for name in x["usd_per_1k"]))
    columns = ["variant", "accuracy", "95 %", "p50 ms", "p99 ms", "rows/s", *(f"USD/1k {x}" for x in types)]
    cells = [
        [
            x["variant"] if x["offered"] else f"{x['variant']} (dominated)",
            f"{x['accuracy']:.4f}",
            "declared" if x["accuracy_interval"] is None else "{:.3f} to {:.3f}".format(*x["accuracy_interval"]),
            f"{x['p50_ms']:.3f}",
            f"{x['p99_ms']:.3f}",
            f"{x['saturation_qps']:,.0f}",
            *(f"{x['usd_per_1k'][name]:.2e}" if name in x["usd_per_1k"] else "" for name in types),
        ]
        for x in rows
    ]
    _table(f"Variants for {target}", columns, cells)
    if hidden:
        _out.print(f"{hidden} dominated variants are not shown; --all shows them")


@main.command()
@click.option("--export", "export_to", type=click.Path(path_type=Path), help="Write what is registered to this file.")
@click.option("--import", "import_from", type=click.Path(path_type=Path), help="Add the profiles of this file.")
@click.option("--architecture", "architectures", multiple=True, help="Export only this one; repeat for more.")
@click.option("--replace", is_flag=True, help="Let an import replace profiles of the same name.")
@_command
def profile(
    settings: Settings,
    as_json: bool,
    export_to: Path | None,
    import_from: Path | None,
    architectures: tuple[str, ...],
    replace: bool,
) -> None:
    """Carry profiles between machines as files. What has no artifact here is kept for planning, not offered."""
    from infaas_ray.storage.repository import repository_at
    from infaas_ray.variants.profile_file import export_profiles, import_profiles

    if (export_to is None) == (import_from is None):
        raise InvalidInput("give one of --export FILE and --import FILE")
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    metadata = Metadata(settings.metadata_url)
    try:
        if export_to is not None:
            count = export_profiles(metadata, export_to, architectures)
            _print(as_json, {"exported": count}, lambda: _out.print(f"{count} variants written to {export_to}"))
            return
        assert import_from is not None
        stored = repository_at(settings.repository).digests()
        found = import_profiles(metadata, import_from, stored, replace=replace)
    finally:
        metadata.close()
    told = f"{len(found.added)} variants added, {len(found.left)} were there already (--replace takes them, too)"
    _print(as_json, {"added": found.added, "left": found.left}, lambda: _out.print(told))


@main.command("list")
@_command
def list_(settings: Settings, as_json: bool) -> None:
    """Use cases, architectures and variants that are registered."""
    if "://" not in (settings.storage.metadata or "") and not (settings.home / "metadata.db").exists():
        found: list[dict[str, Any]] = []
    else:
        found = _registered(settings)

    def people() -> None:
        if not found:
            _out.print("nothing is registered yet; 'infaas register --help' says how, 'infaas demo' shows it")
        for use_case in dict.fromkeys(x["use_case"] for x in found):
            rows = [x for x in found if x["use_case"] == use_case]
            _table(use_case, _VARIANT_COLUMNS, [_variant_cells(x) for x in sorted(rows, key=lambda x: x["p50_ms"])])

    _print(as_json, found, people)


def _registered(settings: Settings) -> list[dict[str, Any]]:
    metadata = Metadata(settings.metadata_url)
    try:
        architectures = metadata.architectures()
        return [
            {"use_case": architectures[v.architecture].use_case.name, **_variant_row(v, p)}
            for v, p in metadata.variants()
        ]
    finally:
        metadata.close()


def _url(settings: Settings, url: str | None) -> str:
    from infaas_ray.serving import launch

    run = None if url else launch.read_run(settings)
    return url or (run.url if run else f"http://{settings.http.host}:{settings.http.port}")


@main.command()
@click.argument("target")
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An input tensor; repeat for more.")
@click.option("--inputs", "archive", type=click.Path(path_type=Path), help=".npz with one array per input.")
@click.option("--on-miss", type=click.Choice(["reject", "degrade", "late"]), help="If the SLO cannot be met now.")
@click.option("--url", help="Address of the system (default: the one that runs here).")
@_slo_options
@_command
def query(
    settings: Settings,
    as_json: bool,
    target: str,
    inputs: tuple[str, ...],
    archive: Path | None,
    url: str | None,
    **slo: Any,
) -> None:
    """Ask TARGET (a use case, an architecture or a variant) and show who answered."""
    arrays = _read_inputs(inputs, archive)
    with Client(_url(settings, url)) as client:
        result = client.infer(target, _only_inputs(client, target, arrays, archive), **slo)
    told = {name: getattr(result, name) for name in result.__slots__ if name != "outputs"}
    content = {**told, "outputs": {name: x.tolist() for name, x in result.outputs.items()}}

    def people() -> None:
        _table("Answer", ["", ""], [[name, str(value)] for name, value in told.items()])
        for name, array in result.outputs.items():
            _out.print(f"{name} {array.dtype}{list(array.shape)}: {np.array2string(array, threshold=12, precision=4)}")

    _print(as_json, content, people)


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
            arrays[name] = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
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


@main.command()
@click.argument("target")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows of the query.")
@click.option("--url", help="Address of the system (default: the one that runs here).")
@_slo_options
@_command
def explain(settings: Settings, as_json: bool, target: str, rows: int, url: str | None, **slo: Any) -> None:
    """Which variant would answer such a query now, and why the others lose."""
    with Client(_url(settings, url)) as client:
        candidates = client.explain(target, rows=rows, **slo)
    cells = [
        [
            f"[bold green]{x['variant']}[/bold green]" if x["chosen"] else x["variant"],
            f"{x['accuracy']:.4f}",
            f"{x['usd_per_1k']:.3g}",
            "" if x["expected_ms"] is None else f"{x['expected_ms']:.2f}",
            str(x["replicas"]),
            x["why"],
        ]
        for x in candidates
    ]
    columns = ["variant", "accuracy", "USD per 1k", "expected ms", "replicas", "why"]
    _print(as_json, candidates, lambda: _table(f"Candidates for {target}", columns, cells))


@main.command()
@click.option("--results", type=click.Path(path_type=Path), default=Path("demo-results"), show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@_command
def demo(settings: Settings, as_json: bool, results: Path, port: int) -> None:
    """The whole story: train, register, serve, query, scale. Needs the extra 'demo'."""
    from infaas_ray.demo.story import tell

    told = tell(_with(settings, port, None), results, _err)
    _print(as_json, told.summary(), lambda: told.show(_out))
    sys.exit(0 if told.complete else 1)


if __name__ == "__main__":
    main()
