"""`infaas prices`: what worker types cost, by which source; refreshed from AWS when the user asks."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from infaas_ray.cli.command import command, out, show, table
from infaas_ray.config import Settings, WorkerPrice, read_prices
from infaas_ray.errors import ConfigError


@click.command()
@click.option("--refresh", is_flag=True, help="Ask AWS what they cost now, and write that into the catalogue.")
@click.option("--catalog", type=click.Path(path_type=Path), help="Price catalogue (default: prices.catalog).")
@click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    help="File of 'ray up' that says which instance type a worker type is, where the catalogue does not.",
)
@click.option("--region", help="Region of AWS, such as us-east-1 (default: the cluster file's, or that of your AWS).")
@command
def prices(
    settings: Settings,
    as_json: bool,
    refresh: bool,
    catalog: Path | None,
    cluster: Path | None,
    region: str | None,
) -> None:
    """Worker types and their prices, with source and date.

    With --refresh, on-demand prices come from AWS's price list and spot prices from its spot price history (the median
    of the zones): of Linux, on shared hardware. Either all prices of the file change, or none.
    """
    path = catalog or settings.prices.catalog
    if path is None:
        raise ConfigError(
            "which price catalogue? name one with --catalog, such as configs/catalogs/aws.yaml, or in the settings "
            "(prices.catalog)"
        )
    before = read_prices(path)
    if refresh:
        _refresh(path, before, cluster, region)
    rows = [
        {
            "name": x.name,
            "instance_type": x.instance_type,
            "spot": x.spot,
            "usd_per_hour": x.usd_per_hour,
            "was_usd_per_hour": before[x.name].usd_per_hour,
            "source": x.source,
            "date": x.date,
        }
        for x in read_prices(path).values()
    ]
    show(as_json, {"catalog": str(path), "worker_types": rows}, lambda: _tell(path, rows, refresh))


def _tell(path: Path, rows: list[dict[str, Any]], refreshed: bool) -> None:
    def prices_of(row: dict[str, Any]) -> list[str]:
        now = f"{row['usd_per_hour']:g}"
        return [f"{row['was_usd_per_hour']:g}", now, _change(row)] if refreshed else [now]

    columns = ["was, USD per hour", "is", "change"] if refreshed else ["USD per hour"]
    cells = [[x["name"], *prices_of(x), x["source"], x["date"]] for x in rows]
    table(f"Prices in {path}", ["worker type", *columns, "source", "date"], cells)
    if refreshed:
        out.print("A running system takes them when it is started anew.")


def _change(row: dict[str, Any]) -> str:
    was, now = row["was_usd_per_hour"], row["usd_per_hour"]
    return "" if was in (now, 0) else f"{now / was - 1:+.1%}"


def _refresh(path: Path, known: dict[str, WorkerPrice], cluster: Path | None, region: str | None) -> None:
    """Write today's prices of every worker type whose instance type is known."""
    from infaas_ray.serving.cluster_file import machines_of
    from infaas_ray.storage.price_file import NewPrice, write_prices
    from infaas_ray.storage.price_list import aws_prices

    machines, cluster_region = machines_of(cluster) if cluster else ({}, None)
    types = {name: machine for name, x in known.items() if (machine := x.instance_type or machines.get(name, ""))}
    if not types:
        raise ConfigError(
            f"no worker type of {path} says what machine it is: give it 'instance_type: m5.2xlarge', or name the file "
            "of 'ray up' with --cluster"
        )
    wanted = {name: (machine, known[name].spot) for name, machine in types.items()}
    offered = aws_prices(region or cluster_region).all_of(wanted.values())
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    fresh = {
        name: NewPrice(usd_per_hour=offered[key].usd_per_hour, source=offered[key].source, date=date)
        for name, key in wanted.items()
    }
    write_prices(path, fresh)
