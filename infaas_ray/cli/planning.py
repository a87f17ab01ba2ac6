"""`infaas plan`: what to have for a given demand, and why, before there is any traffic."""

from pathlib import Path
from typing import Any

import click
import msgspec

from infaas_ray.cli.command import command, out, show, table
from infaas_ray.cli.models import worker_types
from infaas_ray.config import Settings
from infaas_ray.domain import WorkerType
from infaas_ray.errors import InvalidInput, UnknownTarget, one_of
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.messages import CatalogChanged
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.explain import Explanation, Quote, explain, quote
from infaas_ray.policy.planner.problem import Plan, PlanProblem
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.routing import Catalog

_LOOSER = 1.5  # the next cheaper SLO that a quote looks at: this times the latency bound
_LESS = 0.02  # and this much less accuracy


@click.command()
@click.argument("target")
@click.option("--rate", type=click.FloatRange(0, min_open=True), required=True, help="Rows a second in all.")
@click.option(
    "--slo",
    "slos",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="latency_ms, min_accuracy, max_usd_per_1k, and share of the rate (default: equal). Repeat for a mixture.",
)
@click.option("--explain", "explained", is_flag=True, help="Say for each machine and variant what it is for.")
@click.option("--quotes", is_flag=True, help="Say what the next looser SLOs would save.")
@command
def plan(
    settings: Settings,
    as_json: bool,
    target: str,
    rate: float,
    slos: tuple[str, ...],
    explained: bool,
    quotes: bool,
) -> None:
    """The cheapest fleet that answers so many rows a second of TARGET within their SLOs.

    Machines are those of the price catalogue (prices.catalog in the settings), or ones like this.
    """
    types = {x.name: x for x in worker_types(settings)}
    catalog = _catalog(settings, types)
    wanted = _wanted(settings, target, rate, slos)
    problem = _problem(settings, catalog, target, wanted)
    made = solve(problem, settings.scaling.planner.time_limit_s, settings.scaling.planner.gap)
    said = explain(problem, made)
    offered = _quotes(settings, catalog, target, wanted, made) if quotes else []
    content: dict[str, Any] = {"plan": msgspec.to_builtins(made)}
    if explained:
        content["because"] = msgspec.to_builtins(said)
    if quotes:
        content["quotes"] = msgspec.to_builtins(offered)
    show(as_json, content, lambda: _tell(made, said if explained else None, offered))


def _catalog(settings: Settings, types: dict[str, WorkerType]) -> Catalog:
    """What is registered in this home, imported profiles too."""
    from infaas_ray.serving.catalog import read_catalog
    from infaas_ray.storage.metadata import Metadata

    metadata = Metadata(settings.metadata_url)
    try:
        return read_catalog(metadata, types.values())
    finally:
        metadata.close()


def _wanted(settings: Settings, target: str, rate: float, slos: tuple[str, ...]) -> list[Wanted]:
    found = [_slo(x) for x in slos] or [{}]
    given = sum(x["share"] for x in found if "share" in x)
    open_ones = [x for x in found if "share" not in x]
    if given > 1 + 1e-9 or (not open_ones and abs(given - 1) > 1e-6):
        raise InvalidInput(f"the shares of --slo must be 1 in all, not {given:g}")
    return [
        Wanted(
            target=target,
            latency_s=x["latency_ms"] / 1e3 if "latency_ms" in x else None,
            min_accuracy=x.get("min_accuracy"),
            max_usd_per_1k=x.get("max_usd_per_1k"),
            demand_qps=rate * x.get("share", (1 - given) / max(1, len(open_ones))),
            z=settings.scaling.planner.head_room,
        )
        for x in found
    ]


_KEYS = ("latency_ms", "min_accuracy", "max_usd_per_1k", "share")


def _slo(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.replace(" ", ",").split(","):
        if not part:
            continue
        key, _, value = part.partition("=")
        if key not in _KEYS:
            raise InvalidInput(one_of("key of --slo", key, _KEYS))
        try:
            found[key] = float(value)
        except ValueError:
            raise InvalidInput(f"--slo {part!r}: {value!r} is not a number, such as in latency_ms=50") from None
        if not found[key] > 0:
            raise InvalidInput(f"--slo {part!r} must be above 0")
    return found


def _problem(settings: Settings, catalog: Catalog, target: str, wanted: list[Wanted]) -> PlanProblem:
    fleet = Fleet(settings.scaling.oversubscription, settings.scaling.start_overhead_s)
    fleet.apply(CatalogChanged(catalog=catalog), 0.0)
    if target not in fleet.targets:
        raise UnknownTarget(one_of("target", target, [x for x in fleet.targets if "@" not in x]))
    return Builder(fleet, Known(catalog, fleet.targets), settings.scaling.planner, {}, 0.0).build(wanted)
