"""Throughput at equal attainment: the highest rate of a workload that fixed machines serve within its SLOs.

Rules:
- There are as many machines of each type of the catalogue (at least one) as hold one replica of each variant, for every
  choice of variants; none comes or goes.
- The rate rises by stairs of `_STEP`, from `_BEGIN` of what is expected; the first part of each stair does not count.
  Found is the highest stair at which `GOOD` of the queries meet their SLO. A ramp whose last stair is good goes on; one
  without a good stair begins again lower.
- What is expected: for Clipper+ the rate for which its replicas fit the machines, and it has those replicas; the same
  for SM+; for the others a little more than for any of these. It only says where to look.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np

from benchmarks.headline.choices import Chosen, Wish, wishes
from benchmarks.headline.lineup import CLIPPER, SM, Entry, Lineup, clipper, named
from benchmarks.headline.load import Load, past_load
from benchmarks.headline.packing import pack
from benchmarks.headline.provision import Fleet, provisioned
from benchmarks.headline.ratios import GOOD
from benchmarks.headline.store import Store, throughput_key
from benchmarks.headline.work import Task, Told, do_all
from infaas_ray.errors import InvalidInput
from infaas_ray.policy.routing import Catalog
from infaas_ray.simulator.rates import Ramp
from infaas_ray.simulator.scenario import Scenario
from infaas_ray.simulator.workloads import Popular, Stream
from infaas_ray.simulator.world import World

_BEGIN, _LOWER = 0.6, 0.4  # of what is expected; of a ramp that failed
_BEYOND = 1.3  # of the most that is expected of fixed variants is expected of others
_STEP, _STAIRS = 1.05, 20
_STAIR_S = 4.0
_QUERIES = 1500  # a stair has at least about so many
_PARTS, _SETTLING = 4, 1  # of a stair, and those that do not count
_HOPELESS, _HOPELESS_STAIRS = 0.9, 3  # so many stairs in a row below this end a ramp
_RAMPS = 6
_MOST_MACHINES = 20  # of each type


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """The highest rate in queries a second; 0 where none was found."""

    rate_qps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The queries of a workload on fixed machines, and what to expect. The rates of `scenario` do not matter."""

    name: str
    scenario: Scenario
    popular: Popular
    machines: Mapping[str, int]
    entries: Sequence[Entry]
    expected_qps: Mapping[str, float]


def bench(name: str, scenario: Scenario, found: Lineup, names: Sequence[str]) -> Bench:
    """The strategies of these names on fixed machines, with the queries of a scenario."""
    if not isinstance(scenario.workload, Stream):
        raise InvalidInput(f"{name}: throughput is measured of workloads with one stream")
    popular = scenario.workload.popular
    machines = fixed_machines(scenario.catalog, found.choices)
    fixed = replace(scenario, catalog=on_fixed(scenario.catalog, machines), warmup_s=0.0)
    entries = {x.name: x for x in found.entries if x.name in names}
    expected: dict[str, float] = {}
    wished = wishes(fixed.catalog, fixed.workload, past_load(scenario))
    for choice, chosen in found.choices.items():
        rate_qps, fleet = best_static(fixed.catalog, wished, chosen, popular, machines)
        expected |= {x: rate_qps for x in (named(CLIPPER, choice), named(SM, choice)) if x in entries}
        if named(CLIPPER, choice) in entries:
            entries[named(CLIPPER, choice)] = replace(clipper(choice, fleet), workers={})
    most = _BEYOND * max(expected.values(), default=1.0)
    return Bench(
        name=name,
        scenario=fixed,
        popular=popular,
        machines=machines,
        entries=tuple(entries.values()),
        expected_qps={x: expected.get(x, most) for x in entries},
    )


def fixed_machines(catalog: Catalog, choices: Mapping[str, Chosen]) -> dict[str, int]:
    """So many machines of each type, by the rule at the top. Raises InvalidInput where none are enough."""
    for count in range(1, _MOST_MACHINES + 1):
        machines = {x.name: min(count, x.max_workers) for x in catalog.worker_types.values()}
        alone = [dict.fromkeys(chosen.values(), 1) for chosen in choices.values()]
        if all(not pack(x, dict.fromkeys(x, 0.0), catalog, machines, machines).homeless for x in alone):
            return machines
    raise InvalidInput(f"{_MOST_MACHINES} machines of each type do not hold one replica of each variant")


def on_fixed(catalog: Catalog, machines: Mapping[str, int]) -> Catalog:
    """The catalogue with exactly these machines."""
    types = {
        name: replace(x, min_workers=machines[name], max_workers=machines[name])
        for name, x in catalog.worker_types.items()
    }
    return replace(catalog, worker_types=types)


def best_static(
    catalog: Catalog, wished: Sequence[Wish], chosen: Chosen, popular: Popular, machines: Mapping[str, int]
) -> tuple[float, Fleet]:
    """The highest rate for which Clipper+'s replicas fit the machines, and these replicas."""
    rows = np.array([share * kind.rows for share, kind in zip(popular.shares, popular.kinds, strict=True)])
    rows /= sum(popular.shares)

    def fleet(rate_qps: float) -> Fleet:
        made = provisioned(catalog, wished, chosen, Load(days=(rate_qps * rows[None, :],)), machines)
        return replace(made, packed=pack(made.replicas, made.busy, catalog, machines, machines))

    low, high = 1e-3, 1e-3
    while not fleet(high).packed.homeless:
        low, high = high, 2 * high
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if not fleet(middle).packed.homeless else (low, middle)
    return low, fleet(low)


def highest_rates(
    benches: Sequence[Bench], seeds: Sequence[int], store: Store, pool: ProcessPoolExecutor, told: Told
) -> dict[str, dict[str, list[float]]]:
    """The highest rates in queries a second by workload, strategy and rising seed."""
    tasks = {place: task for one in benches for place, task in _tasks(one, seeds).items()}
    found = do_all(tasks, store, pool, told) if tasks else {}
    return {
        one.name: {x.name: [found[one.name, x.name, seed].rate_qps for seed in seeds] for x in one.entries}
        for one in benches
    }


def _tasks(one: Bench, seeds: Sequence[int]) -> dict[tuple[str, str, int], Task[Throughput]]:
    """One task for each strategy and seed."""
    return {
        (one.name, entry.name, seed): Task(
            label=f"throughput: {one.name}, {entry.name}, seed {seed}",
            key=throughput_key(one.scenario, entry, seed, repr((one.popular, one.expected_qps[entry.name], _RULES))),
            weight=one.expected_qps[entry.name],
            kind=Throughput,
            act=partial(highest, one.scenario, one.popular, entry, seed, one.expected_qps[entry.name]),
        )
        for entry in one.entries
        for seed in seeds
    }


_RULES = (_BEGIN, _LOWER, _STEP, _STAIRS, _STAIR_S, _QUERIES, _PARTS, _SETTLING, _HOPELESS, _HOPELESS_STAIRS, _RAMPS)


def highest(scenario: Scenario, popular: Popular, entry: Entry, seed: int, expected_qps: float) -> Throughput:
    """The highest rate by the rules at the top."""
    begin, best = _BEGIN * expected_qps, 0.0
    for _ in range(_RAMPS):
        stairs = begin * _STEP ** np.arange(_STAIRS)
        shares = climb(scenario, popular, entry, seed, begin)
        good = [x for x, share in zip(stairs.tolist(), shares, strict=False) if share >= GOOD]
        best = max([best, *good])
        if good and good[-1] < stairs[-1]:
            break
        if not good and best > 0:
            break
        begin = float(stairs[-1]) if good else begin * _LOWER
    return Throughput(rate_qps=best)


class _EnoughError(Exception):
    """The ramp need not go on."""


def climb(scenario: Scenario, popular: Popular, entry: Entry, seed: int, begin_qps: float) -> list[float]:
    """The attainment of each stair of a ramp, as far as it went."""
    stair_s = max(_STAIR_S, _QUERIES / begin_qps)
    end_qps = begin_qps * _STEP ** (_STAIRS - 1)
    rates = Ramp(from_qps=begin_qps, to_qps=end_qps, duration_s=_STAIRS * stair_s, levels=_STAIRS, geometric=True)
    ramp = replace(
        scenario,
        workload=Stream(popular=popular, rates=rates),
        duration_s=rates.duration_s,
        warmup_s=0.0,
        bins=_STAIRS * _PARTS,
    )
    world = entry.of(ramp).make(entry.name, seed)

    def look(now: float) -> None:
        done = int(now / stair_s) - 1  # answers to the last stair are still on the way
        shares = _shares(world, max(0, done))
        seen = any(x >= GOOD for x in shares) or done >= _STAIRS // 2
        if seen and len(shares) >= _HOPELESS_STAIRS and max(shares[-_HOPELESS_STAIRS:]) < _HOPELESS:
            raise _EnoughError

    try:
        world.run(look)
    except _EnoughError:
        return _shares(world, int(world.engine.now / stair_s) - 1)
    return _shares(world, _STAIRS)


def _shares(world: World, stairs: int) -> list[float]:
    """The attainment of the first stairs, each without its beginning."""
    found = []
    for stair in range(stairs):
        counted = slice(stair * _PARTS + _SETTLING, (stair + 1) * _PARTS)
        arrived = sum(world.meter.arrived_in[counted])
        found.append(sum(world.meter.met_in[counted]) / arrived if arrived else 1.0)
    return found
