"""`python -m benchmarks.selection`: decision time with 100 and with 10,000 variants; one JSON line last."""

import argparse
import gc
import json
from collections import Counter
from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns

from benchmarks.measure import Spread, figure, machine, percentile, spread
from benchmarks.selection.world import World, make_world
from infaas_ray.policy.selection import SelectionIndex, select

Size = tuple[int, int]  # variants and replicas

LARGE: Size = (10_000, 1_000)
SMALL: Size = (100, 10)
FEW_VARIANTS: Size = (100, 1_000)
SIZES = (SMALL, FEW_VARIANTS, LARGE)


def decide_all(
    world: World, index: SelectionIndex, clock: Callable[[], int] = perf_counter_ns
) -> tuple[list[float], Counter[str]]:
    """Microseconds of each decision, ascending, and how many ended in which way."""
    times: list[float] = []
    ways: Counter[str] = Counter()
    loads = world.loads
    for target, rows, slo in world.asks:
        started = clock()
        decision = select(target, rows, slo, index, loads, 0.0001, table_age_s=1.0)
        times.append((clock() - started) / 1e3)
        ways[type(decision).__name__] += 1
    times.sort()
    return times, ways


def main() -> None:
    """Measure, print a table, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--decisions", type=int, default=20_000)
    options = parser.parse_args()
    worlds = {size: make_world(*size, asks=options.decisions) for size in SIZES}
    print(machine())
    p50: dict[Size, list[float]] = {size: [] for size in SIZES}
    p99: dict[Size, list[float]] = {size: [] for size in SIZES}
    indexes = {}
    for size, world in worlds.items():
        started = perf_counter_ns()
        indexes[size] = SelectionIndex(world.table)
        built_ms = (perf_counter_ns() - started) / 1e6
        cold, ways = decide_all(world, indexes[size])
        said = ", ".join(f"{name} {count / len(cold):.1%}" for name, count in ways.most_common())
        print(f"{_named(size)}: index in {built_ms:.1f} ms; slowest first decision {cold[-1] / 1e3:.1f} ms; {said}")
    gc.collect()
    gc.freeze()  # as a router does with a new catalogue
    for size, world in worlds.items():
        busy, _ = decide_all(world, indexes[size], thread_time_ns)
        found = f"p50 {figure(percentile(busy, 0.5))} us, p99 {figure(percentile(busy, 0.99))} us"
        print(f"{_named(size)}, in processor time (what other processes take does not count): {found}")
    for _ in range(options.repetitions):
        for size, world in worlds.items():
            times, _ = decide_all(world, indexes[size])
            p50[size].append(percentile(times, 0.5))
            p99[size].append(percentile(times, 0.99))
    report(p50, p99)


def _named(size: Size) -> str:
    return f"{size[0]:,} variants with {size[1]:,} replicas"


def report(p50: dict[Size, list[float]], p99: dict[Size, list[float]]) -> None:
    """Print the table, then the JSON line."""
    print("\n| variants | replicas | p50 us | p99 us |\n|---|---|---|---|")
    half: dict[Size, Spread] = {size: spread(p50[size]) for size in SIZES}
    most: dict[Size, Spread] = {size: spread(p99[size]) for size in SIZES}
    for size in SIZES:
        print(f"| {size[0]:,} | {size[1]:,} | {half[size]} | {most[size]} |")
    growth, by_variants = (half[LARGE].median / half[x].median for x in (SMALL, FEW_VARIANTS))
    print(f"\np50 grows by {figure(growth)}x, by {figure(by_variants)}x where the replicas are as many\n")
    numbers = {"p50_us": half[LARGE].median, "p99_us": most[LARGE].median}
    print(json.dumps(numbers | {"growth": round(growth, 3), "growth_by_variants": round(by_variants, 3)}))


if __name__ == "__main__":
    main()
