"""From measurements to the numbers that are promised, and to tables.

Ratios are taken within a repetition; where we have two doors, the better by its median stands for us, and so does the
best of the peers for them. A number whose parts were not measured is not there.
"""

from collections.abc import Mapping, Sequence

from benchmarks.measure import Spread, figure, ratios, spread
from benchmarks.serving.driver import SIZES, DriverRates
from benchmarks.serving.http import CONNECTIONS, Measured
from benchmarks.serving.open_loop import FRACTIONS, OpenLoop
from benchmarks.serving.servers import RAY_SERVE

Numbers = dict[str, Spread]
_MOST = CONNECTIONS[-1]


def is_ours(door: str) -> bool:
    """Whether a door is one of our system."""
    return door.startswith("ours")


def fastest(rate: Mapping[tuple[str, int], Sequence[float]], doors: Sequence[str], connections: int) -> str:
    """The door with the highest median rate."""
    return max(doors, key=lambda x: spread(rate[x, connections]).median)


def http_numbers(found: Measured) -> Numbers:
    """The numbers of one workload."""
    us = [x for x in found.doors if is_ours(x)]
    peers = [x for x in found.doors if not is_ours(x)]
    ours = found.rate[fastest(found.rate, us, _MOST), _MOST]
    if found.workload == "minilm":
        best = max(found.alone.values(), key=lambda x: spread(x).median)
        return {"minilm_share_of_floor": ratios(best, found.floor)}
    numbers: Numbers = {}
    if found.workload == "digits" and peers:
        numbers["digits_vs_best_peer"] = ratios(ours, found.rate[fastest(found.rate, peers, _MOST), _MOST])
    if found.workload == "noop" and RAY_SERVE in peers:
        quickest = min(us, key=lambda x: spread(found.p50_ms[x, 1]).median)
        numbers["noop_vs_ray_serve"] = ratios(ours, found.rate[RAY_SERVE, _MOST])
        numbers["noop_p50_vs_ray_serve"] = ratios(found.p50_ms[quickest, 1], found.p50_ms[RAY_SERVE, 1])
    others = [x for x in peers if x != RAY_SERVE]
    if found.workload == "noop" and others:
        numbers["noop_vs_best_other"] = ratios(ours, found.rate[fastest(found.rate, others, _MOST), _MOST])
    return numbers


def driver_numbers(found: DriverRates) -> Numbers:
    """Our driver over plain Ray calls."""
    small, large = SIZES
    return {
        "driver_vs_ray_calls": ratios(found.ours[small], found.ray[small]),
        "arrays_vs_ray_calls": ratios(found.ours[large], found.ray[large]),
    }


def open_numbers(found: OpenLoop) -> Numbers:
    """The share on time at 80 % of capacity, and goodput at three times capacity over capacity."""
    door = max(found.capacity, key=lambda x: spread(found.capacity[x]).median)
    at_80 = found.outcomes[door, FRACTIONS[1]]
    at_3x = found.outcomes[door, FRACTIONS[2]]
    return {
        "on_time_at_80": spread([x.on_time / x.offered for x in at_80]),
        "goodput_at_3x": ratios([x.goodput for x in at_3x], found.capacity[door]),
    }


# -- tables in Markdown


def http_table(found: Measured) -> str:
    """Answers per second and latencies of every door."""
    heads = [f"{n} conn.: 1/s" for n in CONNECTIONS] + [f"{n} conn.: p50 / p99 ms" for n in CONNECTIONS]
    lines = [f"### {found.workload}", "", f"| server | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for door in found.doors:
        rates = [str(spread(found.rate[door, n])) for n in CONNECTIONS]
        delays = [
            f"{figure(spread(found.p50_ms[door, n]).median)} / {figure(spread(found.p99_ms[door, n]).median)}"
            for n in CONNECTIONS
        ]
        lines.append(f"| {door} | {' | '.join(rates + delays)} |")
    for door, alone in found.alone.items():
        lines.append(f"| {door}, before peers were started | | | {spread(alone)} | | | |")
    if found.floor:
        lines.append(f"| the floor: no server, batch of 16 | | | {spread(found.floor)} | | | |")
    lines += ["", *(f"Left out: {name}: {why}" for name, why in found.absent.items())]
    lines += [f"Note: {x}" for x in found.notes]
    return "\n".join(lines).rstrip() + "\n"


def driver_table(found: DriverRates) -> str:
    """Queries per second of both sides."""
    lines = ["### driver", "", "| queries | ours, 1/s | plain Ray calls, 1/s |", "|---|---|---|"]
    named = dict(zip(SIZES, ("4 floats", "602 KB"), strict=True))
    lines += [f"| {named[x]} | {spread(found.ours[x])} | {spread(found.ray[x])} |" for x in SIZES]
    return "\n".join(lines) + "\n"


def open_table(found: OpenLoop) -> str:
    """What became of the queries at each fraction of capacity."""
    bounds = ", ".join(f"{x:.0f}" for x in found.bounds_ms)
    lines = [f"### open loop: {found.workload}, bounds of {bounds} ms in equal parts", ""]
    heads = ["door", "of capacity", "offered 1/s", "on time", "late", "refused", "failed", "goodput / capacity"]
    heads += ["refusal p50 / p99 ms", "generator late p99 ms", "called on time, but late"]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for door, fraction in found.outcomes:
        runs = found.outcomes[door, fraction]
        shares = [
            str(spread([getattr(x, part) / x.offered for x in runs]))
            for part in ("on_time", "late", "refused", "failed")
        ]
        cells = [door, f"{fraction:g}", str(spread([x.offered / x.seconds for x in runs])), *shares]
        cells.append(str(ratios([x.goodput for x in runs], found.capacity[door])))
        refusal = spread([x.refusals.p50_ms for x in runs]), spread([x.refusals.p99_ms for x in runs])
        cells.append(f"{figure(refusal[0].median)} / {figure(refusal[1].median)}")
        cells.append(figure(spread([x.lateness.p99_ms for x in runs]).median))
        cells.append(str(sum(x.false_on_time for x in runs)))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Capacity, {door}: {spread(x)} answers/s" for door, x in found.capacity.items())]
    return "\n".join(lines) + "\n"
