"""Who is compared on a scenario, with what settings, and with what machines at the beginning.

Rule: all settings are their defaults, for us and for the others; only what a user of that strategy must say (which
variants, how many) is chosen, by `choices` and `provision`. A queue-length autoscaler is given the expert's variants.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.headline.choices import Chosen, fixed_choices, wishes
from benchmarks.headline.load import past_load
from benchmarks.headline.provision import Fleet, cheapest, provisioned
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.simulator.scenario import Scenario

OURS = "planner"
INFAAS = "infaas"
CLIPPER, SM = "Clipper+", "SM+"
EXPERT = "cheapest"  # the choice of an expert


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A strategy of a scenario. `workers` are there at the beginning, beside those of the scenario."""

    name: str
    scaling: ScalingSettings
    workers: Mapping[str, int] = field(default_factory=dict)

    def of(self, scenario: Scenario) -> Scenario:
        """The scenario with this strategy alone."""
        before = scenario.world.workers
        workers = {**before, **{x: max(count, before.get(x, 0)) for x, count in self.workers.items()}}
        world = replace(scenario.world, workers=workers)
        return replace(scenario, strategies={self.name: self.scaling}, world=world)

    def same_run(self, other: "Entry") -> bool:
        """Whether the other gives the same run under the same seed."""
        return (self.scaling, self.workers) == (other.scaling, other.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """The entries of a scenario, ours first; `choices`: the variant by target, by the name of the choice."""

    entries: tuple[Entry, ...]
    choices: Mapping[str, Chosen]

    def twin(self, entry: Entry) -> Entry:
        """The first entry that gives the same runs."""
        return next(x for x in self.entries if x.same_run(entry))

    @property
    def fixed(self) -> list[str]:
        """The choices of users, without the expert's and without those that name the same variants as one before."""
        found: dict[tuple[tuple[str, str], ...], str] = {}
        for name, chosen in self.choices.items():
            if name != EXPERT:
                found.setdefault(tuple(sorted(chosen.items())), name)
        return list(found.values())


def named(system: str, choice: str) -> str:
    """The name of Clipper+ or SM+ with a choice of variants."""
    return f"{system} {choice}"


def lineup(scenario: Scenario) -> Lineup:
    """Everybody."""
    load = past_load(scenario)
    wished = wishes(scenario.catalog, scenario.workload, load)
    most = scenario.world.most_workers
    expert = cheapest(scenario.catalog, wished, load, most)
    choices: dict[str, Chosen] = {**fixed_choices(wished), EXPERT: expert}
    entries = [
        Entry(name=OURS, scaling=_scaling(strategy="planner")),
        Entry(name=INFAAS, scaling=_scaling(strategy="infaas")),
        Entry(name="proteus", scaling=_scaling(strategy="proteus")),
        Entry(name="model-switching", scaling=_scaling(strategy="model_switching")),
        Entry(name="queue-length", scaling=_scaling(strategy="queue_length", keep_warm=_one_of_each(expert))),
    ]
    for choice, chosen in choices.items():
        fleet = provisioned(scenario.catalog, wished, chosen, load, most)
        entries.append(clipper(choice, fleet))
        entries.append(sm(choice, chosen))
    return Lineup(entries=tuple(entries), choices=choices)


def clipper(choice: str, fleet: Fleet) -> Entry:
    """Clipper+: the replicas of a fleet, on its machines, with processors for each replica alone."""
    scaling = _scaling(strategy="static", keep_warm=dict(fleet.replicas), oversubscription=1.0)
    return Entry(name=named(CLIPPER, choice), scaling=scaling, workers=dict(fleet.packed.machines))


def sm(choice: str, chosen: Chosen) -> Entry:
    """SM+: one replica of each at least, more by demand; processors are shared as everywhere else."""
    scaling = _scaling(strategy="individual", fixed=True, keep_warm=_one_of_each(chosen))
    return Entry(name=named(SM, choice), scaling=scaling)


def _one_of_each(chosen: Chosen) -> dict[str, int]:
    return dict.fromkeys(chosen.values(), 1)


def _scaling(**changes: object) -> ScalingSettings:
    """The defaults, for large fleets: a variant may have more replicas than the 64 that protect a small system."""
    return ScalingSettings(max_replicas_per_variant=1000, **changes)  # type: ignore[arg-type]
