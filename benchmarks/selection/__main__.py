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

SIZES = ((100, 10), (10_000, 1_000))


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
    p50: dict[int, list[float]] = {variants: [] for variants, _ in SIZES}
    p99: dict[int, list[float]] = {variants: [] for variants, _ in SIZES}
    indexes = {}
    for size, world in worlds.items():
        started = perf_counter_ns()
        indexes[size] = SelectionIndex(world.table)
        built_ms = (perf_counter_ns() - started) / 1e6
        cold, ways = decide_all(world, indexes[size])
        said = ", ".join(f"{name} {count / len(cold):.1%}" for name, count in ways.most_common())
        print(
            f"{size[0]:,} variants: index in {built_ms:.1f} ms; slowest first decision {cold[-1] / 1e3:.1f} ms; {said}"
        )
    gc.collect()
    gc.freeze()  # as a router does with a new catalogue
    for size, world in worlds.items():
        busy, _ = decide_all(world, indexes[size], thread_time_ns)
        found = f"p50 {figure(percentile(busy, 0.5))} us, p99 {figure(percentile(busy, 0.99))} us"
        print(f"{size[0]:,} variants, in processor time (what other processes take does not count): {found}")
    for _ in range(options.repetitions):
        for size, world in worlds.items():
            times, _ = decide_all(world, indexes[size])
            p50[size[0]].append(percentile(times, 0.5))
            p99[size[0]].append(percentile(times, 0.99))
    report(p50, p99)


def report(p50: dict[int, list[float]], p99: dict[int, list[float]]) -> None:
    """Print the table, then the JSON line."""
    print("\n| variants | replicas | p50 us | p99 us |\n|---|---|---|---|")
    middle: dict[int, tuple[Spread, Spread]] = {n: (spread(p50[n]), spread(p99[n])) for n, _ in SIZES}
    for variants, replicas in SIZES:
        half, most = middle[variants]
        print(f"| {variants:,} | {replicas:,} | {half} | {most} |")
    small, large = middle[SIZES[0][0]], middle[SIZES[1][0]]
    growth = large[0].median / small[0].median
    print(f"\np99 grows by {figure(large[1].median / small[1].median)}x, p50 by {figure(growth)}x\n")
    print(json.dumps({"p50_us": large[0].median, "p99_us": large[1].median, "growth": round(growth, 3)}))


if __name__ == "__main__":
    main()
