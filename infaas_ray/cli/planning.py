"""`infaas plan`: what to have for a given demand, and why, before there is any traffic."""

from dataclasses import replace

import click
import msgspec

from infaas_ray.cli.command import command, out, show, silent_libraries, table
from infaas_ray.cli.models import worker_types
from infaas_ray.config import Settings
from infaas_ray.domain import WorkerType
from infaas_ray.errors import InvalidInput, UnknownTarget, one_of
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.messages import CatalogChanged
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.explain import PlanExplanation, explain
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
    planner = settings.scaling.planner
    problem = _problem(settings, catalog, target, wanted)
    others = {
        name: _problem(settings, catalog, target, asked) for name, asked in (_looser(wanted) if quotes else {}).items()
    }
    with silent_libraries():
        made = solve(problem, planner.time_limit_s, planner.gap)
        said = explain(problem, made, others, planner.time_limit_s, planner.gap)
    content = {"plan": msgspec.to_builtins(made), "because": msgspec.to_builtins(said)}
    show(as_json, content, lambda: _tell(made, said, explained))


def _looser(wanted: list[Wanted]) -> dict[str, list[Wanted]]:
    """The same demand with one class's bound a little looser, by what that would be."""
    found: dict[str, list[Wanted]] = {}
    for at, one in enumerate(wanted):
        options = []
        if one.latency_s is not None:
            options.append(replace(one, latency_s=one.latency_s * _LOOSER))
        if one.min_accuracy is not None and one.min_accuracy > _LESS:
            options.append(replace(one, min_accuracy=one.min_accuracy - _LESS))
        for other in options:
            found[other.name] = [*wanted[:at], other, *wanted[at + 1 :]]
    return found


def _tell(made: Plan, said: PlanExplanation, explained: bool) -> None:
    out.print(said.summary, soft_wrap=True)
    rows = [[v, kind, str(n)] for v, kinds in made.replicas.items() for kind, n in kinds.items()]
    table("Replicas", ["variant", "worker type", "replicas"], rows)
    classes = [
        [x.query_class, f"{x.demand_qps:.4g}", f"{x.marginal_usd_per_1k:.3g}", f"{x.refused_qps:.4g}"]
        for x in said.classes
    ]
    table("Classes of queries", ["class", "rows/s", "1,000 more cost USD", "refused rows/s"], classes)
    if explained:
        told = [(f"{x.workers} x {x.worker_type}", x.because) for x in said.types]
        told += [(f"{x.replicas} x {x.variant} on {x.worker_type}", x.because) for x in said.places]
        told += [(x.query_class, x.because) for x in said.classes]
        for what, because in told:
            out.print(f"{what}: {because}", soft_wrap=True)
    for x in said.quotes:
        out.print(f"{x.name}: {x.because}", soft_wrap=True)


def _catalog(settings: Settings, types: dict[str, WorkerType]) -> Catalog:
    """What is registered in this home, imported profiles too."""
    from infaas_ray.serving.catalog import read_catalog
    from infaas_ray.storage.metadata import Metadata

    metadata = Metadata(settings.metadata_url)
    try:
        return read_catalog(metadata, types.values(), types.values())
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
