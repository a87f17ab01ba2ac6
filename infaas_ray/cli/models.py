"""`infaas register`, `variants`, `profile`, `list`: what there is to choose from."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from infaas_ray.cli.command import command, err, out, show, table
from infaas_ray.config import Settings
from infaas_ray.domain import WorkerType
from infaas_ray.errors import InvalidInput, UnknownTarget, one_of
from infaas_ray.storage.metadata import Metadata


@click.command()
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
@click.option(
    "--gpu-batch-limit", "gpu_batch_limits", multiple=True, type=click.IntRange(1), help="A GPU variant for each."
)
@click.option("--neuron-cores", multiple=True, type=click.IntRange(1), help="A Neuron variant for each (default 1).")
@click.option("--recipe", "recipes", multiple=True, help="Only this, such as openvino-int8; repeat for more.")
@click.option(
    "--output", "output_names", multiple=True, help="Names an output of a .pt2, or chooses one of an .onnx; repeat."
)
@click.option("--offer-all", is_flag=True, help="Offer dominated variants, too.")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Accept a pickled scikit-learn estimator. Its code runs here with your rights: only for files you trust.",
)
@click.option("--picture", type=click.Path(path_type=Path), help="Write accuracy against latency as .png, .svg, .pdf.")
@command
def register(
    settings: Settings, as_json: bool, model: Path, architecture: str, picture: Path | None, **options: Any
) -> None:
    """Register MODEL: generate its variants, measure them, offer those that none dominates.

    MODEL is an .onnx or .pt2 file, a TorchScript archive, or a Hugging Face folder with safetensors.
    """
    from infaas_ray import api
    from infaas_ray.variants import pareto_picture

    if picture is not None:  # minutes of work come before it is drawn
        pareto_picture.require_drawable(picture)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=as_json, transient=True) as bar:
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
    show(as_json, content, lambda: _show_registration(content, pareto_picture.as_text(rows)))


def _generation_options(options: dict[str, Any]) -> Any:
    """Take the options of generation out of those of a registration."""
    from infaas_ray.domain import HardwareKind
    from infaas_ray.variants.generator import GenerationOptions

    names = tuple(x.name for x in fields(GenerationOptions) if x.name in options)
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
    table(f"Variants of {content['architecture']}", [*_VARIANT_COLUMNS, "offered"], cells)
    out.print(picture, soft_wrap=True)
    for label, reason in content["failures"].items():
        out.print(Text.assemble(("not offered", "yellow"), f" {label}: {reason}"), soft_wrap=True)
    for runtime, how in content["missing"].items():
        out.print(Text.assemble(("not tried", "yellow"), f" {runtime}: {how}"), soft_wrap=True)
    if content["picture"]:
        out.print(f"picture: {content['picture']}", soft_wrap=True)


@click.command()
@click.argument("target")
@click.option("--all", "every", is_flag=True, help="Those that are not offered, too.")
@command
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
    types = worker_types(settings)
    rows = [
        {
            **_variant_row(v, p),
            "offered": v.name in offered,
            "usd_per_1k": {x.name: price for x in types if (price := x.usd_per_1k(v, p)) < math.inf},
        }
        for v, p in sorted(found, key=lambda pair: pair[1].latencies[0].p50_s)
        if every or v.name in offered
    ]
    show(as_json, rows, lambda: _show_variants(target, rows, len(found) - len(rows)))


def worker_types(settings: Settings) -> list[WorkerType]:
    """Those of the price catalogue; without one, a machine like this."""
    return list(settings.worker_types().values()) or [settings.this_machine()]


def _show_variants(target: str, rows: list[dict[str, Any]], hidden: int) -> None:
    types = list(dict.fromkeys(name for x in rows for name in x["usd_per_1k"]))
    columns = ["variant", "accuracy", "95 %", "p50 ms", "p99 ms", "rows/s", *(f"USD/1k {x}" for x in types)]
    cells = [
        [
            x["variant"] if x["offered"] else f"{x['variant']} (not offered)",
            f"{x['accuracy']:.4f}",
            "declared" if x["accuracy_interval"] is None else "{:.3f} to {:.3f}".format(*x["accuracy_interval"]),
            f"{x['p50_ms']:.3f}",
            f"{x['p99_ms']:.3f}",
            f"{x['saturation_qps']:,.0f}",
            *(f"{x['usd_per_1k'][name]:.2e}" if name in x["usd_per_1k"] else "" for name in types),
        ]
        for x in rows
    ]
    table(f"Variants for {target}", columns, cells)
    if hidden:
        why = "dominated, or without an artifact here"
        out.print(f"{hidden} variants are not offered ({why}) and not shown; --all shows them")


@click.command()
@click.option("--export", "export_to", type=click.Path(path_type=Path), help="Write what is registered to this file.")
@click.option("--import", "import_from", type=click.Path(path_type=Path), help="Add the profiles of this file.")
@click.option("--architecture", "architectures", multiple=True, help="Export only this one; repeat for more.")
@click.option("--replace", is_flag=True, help="Let an import replace profiles of the same name.")
@command
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
            show(as_json, {"exported": count}, lambda: out.print(f"{count} variants written to {export_to}"))
            return
        assert import_from is not None
        stored = repository_at(settings.repository).digests()
        found = import_profiles(metadata, import_from, stored, replace=replace)
    finally:
        metadata.close()
    told = f"{len(found.added)} variants added, {len(found.left)} were there already (--replace takes them, too)"
    show(as_json, {"added": found.added, "left": found.left}, lambda: out.print(told))


@click.command("list")
@command
def list_(settings: Settings, as_json: bool) -> None:
    """Use cases, architectures and variants that are registered."""
    if "://" not in (settings.storage.metadata or "") and not (settings.home / "metadata.db").exists():
        found: list[dict[str, Any]] = []
    else:
        found = _registered(settings)

    def people() -> None:
        if not found:
            out.print("nothing is registered yet; 'infaas register --help' says how, 'infaas demo' shows it")
        for use_case in dict.fromkeys(x["use_case"] for x in found):
            rows = [x for x in found if x["use_case"] == use_case]
            table(use_case, _VARIANT_COLUMNS, [_variant_cells(x) for x in sorted(rows, key=lambda x: x["p50_ms"])])

    show(as_json, found, people)


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
