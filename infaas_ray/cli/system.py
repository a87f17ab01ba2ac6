"""`infaas up`, `down`, `status`, `demo`: a system's life."""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from infaas_ray.cli.command import command, err, out, show, table
from infaas_ray.config import Settings


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the HTTP endpoint (default 8000).")
@click.option("--address", help="Ray cluster to use: 'local' (default) starts one here, else its address or 'auto'.")
@command
def up(settings: Settings, as_json: bool, port: int | None, address: str | None) -> None:
    """Start the system; returns when it takes queries."""
    from infaas_ray.serving import launch

    settings = _with(settings, port, address)
    status = nullcontext() if as_json else err.status("starting")
    with status as shown:
        run = launch.up(settings, lambda step: shown.update(step) if shown is not None else None)
    content = {"url": run.url, "ray": run.address, "home": str(settings.home)}
    show(as_json, content, lambda: out.print(f"ready at {run.url}; 'infaas list' shows what it serves"))


def _with(settings: Settings, port: int | None, address: str | None) -> Settings:
    http = settings.http if port is None else settings.http.model_copy(update={"port": port})
    cluster = settings.cluster if address is None else settings.cluster.model_copy(update={"address": address})
    return settings.model_copy(update={"http": http, "cluster": cluster})


@click.command()
@command
def down(settings: Settings, as_json: bool) -> None:
    """Let every query finish, then end the system."""
    from infaas_ray.serving import launch

    status = nullcontext() if as_json else err.status("stopping")
    with status as shown:
        ended = launch.down(settings, lambda step: shown.update(step) if shown is not None else None)
    show(as_json, {"ended": ended}, lambda: out.print("ended" if ended else f"nothing runs from {settings.home}"))


@click.command()
@command
def status(settings: Settings, as_json: bool) -> None:
    """Workers, replicas, and what became of the queries."""
    from infaas_ray.serving import launch

    found = launch.status(settings)
    show(as_json, found, lambda: _show_status(found))


def _show_status(found: Mapping[str, Any]) -> None:
    own_ports = ", ".join(x["direct_url"] for x in found["routers"].values() if x["direct_url"])
    out.print(f"{found['url']} (routers' own ports: {own_ports or 'none'})  {found['variants']} variants")
    rows = [
        [x["replica"], f"{x['state']} {x['condition']}".strip(), str(x["pid"] or ""), x["worker"][:8]]
        for x in found["replicas"]
    ]
    table("Replicas", ["replica", "state", "pid", "worker"], rows)
    share = [
        [x["worker"][:8], x["type"], _percent(x["cpu_share"]), _percent(x["memory_share"])] for x in found["workers"]
    ]
    table("Workers", ["worker", "type", "processors", "memory"], share)
    out.print("Queries: " + ", ".join(f"{count} {name}" for name, count in found["queries"].items()))
    for variant, reason in found["blocked"].items():
        out.print(Text.assemble((variant, "yellow"), f": {reason}"), soft_wrap=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


@click.command()
@click.option("--results", type=click.Path(path_type=Path), default=Path("demo-results"), show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@command
def demo(settings: Settings, as_json: bool, results: Path, port: int) -> None:
    """The whole story: train, register, serve, query, scale. Needs the extra 'demo'."""
    from infaas_ray.demo.story import tell

    told = tell(_with(settings, port, None), results, err)
    show(as_json, told.summary(), lambda: told.show(out))
    sys.exit(0 if told.complete else 1)
