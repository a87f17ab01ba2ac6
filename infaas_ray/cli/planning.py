"""`infaas plan`: what to have for a demand, and why, before there is any; or the plan that is followed."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, floor, sqrt
from typing import Any

import click
import msgspec

from infaas_ray.cli.command import command, out, show, silent_libraries, table
from infaas_ray.cli.models import worker_types
from infaas_ray.config import Settings
from infaas_ray.domain import OnMiss, WorkerType
from infaas_ray.errors import InvalidInput, Unavailable, UnknownTarget, one_of
from infaas_ray.policy.demand import size_of
from infaas_ray.policy.fleet import Fleet
from infaas_ray.policy.messages import CatalogChanged
from infaas_ray.policy.plan_book import Followed, RunningPlan
from infaas_ray.policy.planner.build import Builder, Known, Wanted
from infaas_ray.policy.planner.capacity import Capacity
from infaas_ray.policy.planner.explain import PlanExplanation, explain
from infaas_ray.policy.planner.problem import Plan, PlanProblem, counts_of
from infaas_ray.policy.planner.quotes import looser
from infaas_ray.policy.planner.solve import solve
from infaas_ray.policy.routing import Catalog, Offer

_MOST_QUOTES = 10  # of a running plan, whose classes may be hundreds
_MOST_RATE = 1e9  # rows a second
_NO_READY: Mapping[str, int] = {}


@click.command()
@click.argument("target", required=False)
@click.option("--rate", type=float, help="Rows a second in all.")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows of one query.")
@click.option(
    "--slo",
    "slos",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="latency_ms, min_accuracy, max_usd_per_1k, on_miss (reject, degrade, late), and share of the rate (default: "
    "equal). Repeat for a mixture.",
)
@click.option("--explain", "explained", is_flag=True, help="Say for each machine and variant what it is for.")
@click.option("--quotes", is_flag=True, help="Say what the next looser SLOs would save.")
@command
def plan(
    settings: Settings,
    as_json: bool,
    target: str | None,
    rate: float | None,
    rows: int,
    slos: tuple[str, ...],
    explained: bool,
    quotes: bool,
) -> None:
    """The cheapest fleet that answers so many rows a second of TARGET within their SLOs.

    Machines are those of the price catalogue (prices.catalog in the settings), or ones like this. Without a TARGET: the
    plan that the running system follows.
    """
    if target is None:
        if rate is not None or slos or rows != 1:
            raise InvalidInput(
                "--rate, --rows and --slo are of a TARGET: infaas plan TARGET --rate 100; without one, the plan"
            )
        _show_running(settings, as_json, explained, quotes)
    elif rate is None:
        raise InvalidInput(f"how many rows a second of {target}? add --rate 100")
    elif not 0 < rate <= _MOST_RATE:  # not a number, too
        raise InvalidInput(f"--rate must be above 0 and at most {_MOST_RATE:g} rows a second, not {rate:g}")
    else:
        _show_asked(settings, as_json, target, _wanted(settings, target, rate, rows, slos), explained, quotes)


def _show_asked(
    settings: Settings, as_json: bool, target: str, wanted: list[Wanted], explained: bool, quotes: bool
) -> None:
    types = {x.name: x for x in worker_types(settings)}
    catalog = _catalog(settings, types)
    planner = settings.scaling.planner
    problem = _problem(settings, catalog, target, wanted)
    impossible = _impossible(settings, catalog, wanted, problem)
    variations = looser(wanted) if quotes else {}
    others = {name: _problem(settings, catalog, target, asked) for name, asked in variations.items()}
    with silent_libraries():
        made = solve(problem, planner.time_limit_s, planner.gap)
        said = explain(problem, made, others, planner.time_limit_s, planner.gap)
    content = {
        "plan": msgspec.to_builtins(made),
        "because": msgspec.to_builtins(said),
        "impossible": list(impossible),
    }

    def people() -> None:
        _tell(made, said, explained)
        for why in impossible.values():
            out.print(why, soft_wrap=True)

    show(as_json, content, people)


def _show_running(settings: Settings, as_json: bool, explained: bool, quotes: bool) -> None:
    from infaas_ray.serving import launch

    running = launch.plan(settings, _MOST_QUOTES if quotes else 0)
    followed = followed_plan(running)
    said = _explained(settings, followed, running)
    content = {
        "plan": msgspec.to_builtins(followed.plan),
        "because": msgspec.to_builtins(said),
        "made_because": followed.because,
        "age_s": followed.age_s,
        "took_s": followed.took_s,
        "workers": running.workers,
        "ready": running.ready,
    }

    def people() -> None:
        out.print(f"asked for {followed.age_s:.0f} s ago, made in {followed.took_s:.2f} s: {followed.because}")
        machines = [
            [name, str(count), str(running.workers.get(name, 0))]
            for name, count in followed.plan.workers.items()
            if count or running.workers.get(name, 0)
        ]
        table("Machines", ["worker type", "planned", "there"], machines)
        _tell(followed.plan, said, explained, running.ready)

    show(as_json, content, people)


def followed_plan(running: RunningPlan) -> Followed:
    """The plan that a system follows; raises InvalidInput or Unavailable, saying what to do, where it follows none."""
    if running.strategy != "planner":
        raise InvalidInput(
            f"the running system follows no plan: scaling.strategy is {running.strategy!r}. Set it to 'planner' and "
            "start the system anew, or ask what would be planned: infaas plan TARGET --rate 100"
        )
    if running.followed is None:
        raise Unavailable("there is no plan yet: the first one is being made; ask again in a moment", 1.0)
    return running.followed


def _explained(settings: Settings, followed: Followed, running: RunningPlan) -> PlanExplanation:
    """The plan for its own problem; quotes beside what would be planned now, as its changes are made already."""
    planner = settings.scaling.planner
    others = dict(running.problems)
    now = others.pop("", None)
    with silent_libraries():
        said = explain(followed.problem, followed.plan)
        if now is None:
            return said
        made = solve(now, planner.time_limit_s, planner.gap)
        return replace(said, quotes=explain(now, made, others, planner.time_limit_s, planner.gap).quotes)


def _tell(
    made: Plan, said: PlanExplanation, explained: bool, ready: Mapping[str, Mapping[str, int]] | None = None
) -> None:
    out.print(said.summary, soft_wrap=True)
    planned, spare = counts_of(made.replicas), counts_of(made.spare)
    places = dict.fromkeys([*planned, *spare])
    rows = [[*x, str(planned.get(x, 0)), str(spare.get(x, 0))] for x in places]
    columns = ["variant", "worker type", "replicas", "spare"]
    if ready is not None:
        columns.append("ready")
        rows = [[*x, str(ready.get(x[0], _NO_READY).get(x[1], 0))] for x in rows]
    table("Replicas", columns, rows)
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
    """What is offered in this home, and the best of the profiles that were imported without their artifacts."""
    from infaas_ray.serving.catalog import read_catalog
    from infaas_ray.storage.metadata import Metadata
    from infaas_ray.storage.repository import repository_at
    from infaas_ray.variants.pareto import undominated

    metadata = Metadata(settings.metadata_url)
    try:
        stored = repository_at(settings.repository).digests()
        imported = [x for x in metadata.variants() if x[0].artifact not in stored]
        best = undominated(imported)
        also = [x for x in imported if x[0].name in best]
        return read_catalog(metadata, types.values(), types.values(), also=also)
    finally:
        metadata.close()


def _wanted(settings: Settings, target: str, rate: float, rows: int, slos: tuple[str, ...]) -> list[Wanted]:
    """What is asked for, as classes of queries that come independently of one another."""
    found = [_slo(x) for x in slos] or [({}, OnMiss.REJECT)]
    given = sum(x["share"] for x, _ in found if "share" in x)
    open_ones = [x for x, _ in found if "share" not in x]
    if given > 1 + 1e-9 or (not open_ones and abs(given - 1) > 1e-6):
        raise InvalidInput(f"the shares of --slo must be 1 in all, not {given:g}")
    return [
        Wanted(
            target=target,
            latency_s=x["latency_ms"] / 1e3 if "latency_ms" in x else None,
            min_accuracy=x.get("min_accuracy"),
            max_usd_per_1k=x.get("max_usd_per_1k"),
            demand_qps=rate * x.get("share", (1 - given) / max(1, len(open_ones))),
            z=settings.scaling.planner.head_room * sqrt(rows),
            on_miss=on_miss,
            size=size_of(rows),
            rows_each=rows,
        )
        for x, on_miss in found
    ]


_KEYS = ("latency_ms", "min_accuracy", "max_usd_per_1k", "on_miss", "share")


def _slo(text: str) -> tuple[dict[str, float], OnMiss]:
    """The numbers of an SLO by key, and what to do on a miss."""
    found: dict[str, float] = {}
    on_miss = OnMiss.REJECT
    for part in text.replace(" ", ",").split(","):
        if not part:
            continue
        key, _, value = part.partition("=")
        if key not in _KEYS:
            raise InvalidInput(one_of("key of --slo", key, _KEYS))
        if key == "on_miss":
            if value not in list(OnMiss):
                raise InvalidInput(one_of("on_miss", value, list(OnMiss)))
            on_miss = OnMiss(value)
            continue
        try:
            found[key] = float(value)
        except ValueError:
            raise InvalidInput(f"--slo {part!r}: {value!r} is not a number, such as in latency_ms=50") from None
        if not found[key] > 0:
            raise InvalidInput(f"--slo {part!r} must be above 0")
    return found, on_miss


def _problem(settings: Settings, catalog: Catalog, target: str, wanted: list[Wanted]) -> PlanProblem:
    fleet = Fleet(settings.scaling.oversubscription, settings.scaling.start_overhead_s)
    fleet.apply(CatalogChanged(catalog=catalog), 0.0)
    if target not in fleet.targets:
        raise UnknownTarget(one_of("target", target, [x for x in fleet.targets if "@" not in x]))
    return Builder(fleet, Known(catalog, fleet.targets), settings.scaling.planner, {}, 0.0).build(wanted)


# ---- what no variant can serve

_BOUNDS = ("latency_s", "min_accuracy", "max_usd_per_1k")


def _impossible(settings: Settings, catalog: Catalog, wanted: list[Wanted], problem: PlanProblem) -> Mapping[str, str]:
    """Why no variant can serve a class, by its name. Raises InvalidInput where that is so of all classes."""
    served = {x.name for x in problem.classes}
    found = {x.name: _why_not(settings, catalog, x) for x in wanted if x.name not in served}
    if not served:
        raise InvalidInput("; ".join(found.values()))
    return found


def _why_not(settings: Settings, catalog: Catalog, asked: Wanted) -> str:
    """What could be instead: of each bound, with the others kept; where no single one helps, with none kept."""
    given = [x for x in _BOUNDS if getattr(asked, x) is not None]
    found = {x: _able(settings, catalog, asked, x) for x in given}
    kept, joint = "with the rest of its SLO, " if len(given) > 1 else "", ", or "
    if not any(found.values()):
        found = dict.fromkeys(given, _able(settings, catalog, asked, *_BOUNDS))
        kept, joint = "even without the rest of its SLO, " if len(given) > 1 else "", ", and "
    said = [_could_be(settings, x, offers, asked) for x, offers in found.items() if offers]
    words = kept + joint.join(said) if said else "no worker type can run one"
    return f"no variant can serve {asked.name!r}: {words}"


def _able(settings: Settings, catalog: Catalog, asked: Wanted, *free: str) -> list[Offer]:
    """The variants that could serve a class without some of its bounds."""
    without: dict[str, Any] = dict.fromkeys(free)
    problem = _problem(settings, catalog, asked.target, [replace(asked, **without)])
    return [catalog.offers[problem.variants[x.variant].name] for found in problem.classes for x in found.options]


def _could_be(settings: Settings, bound: str, offers: list[Offer], asked: Wanted) -> str:
    """The tightest bound that one of these variants meets, rounded to the safe side."""
    if bound == "latency_s":
        least_s = min(Capacity(x, ceil(asked.rows_each)).least_s for x in offers) + settings.scaling.planner.overhead_s
        return f"latency_ms must be above {ceil(least_s * 1e6 - 1e-3) / 1e3:.10g}, the least latency"
    if bound == "min_accuracy":
        return f"min_accuracy must be {floor(max(x.accuracy for x in offers) * 1e4) / 1e4:g} at most, the highest"
    return f"max_usd_per_1k must be {ceil(min(x.usd_per_1k for x in offers) * 1e9 - 1e-3) / 1e9:.10g} at least"
