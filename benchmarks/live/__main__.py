"""`python -m benchmarks.live`: a mixed workload on two cores, served by Ray Serve with one variant, and by us.

Tables, a picture, and one JSON line last. `--only` picks parts.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.live.models import Measured, accurate_eager, best_fixed, prepare
from benchmarks.live.numbers import (
    Numbers,
    class_table,
    number_table,
    numbers_of,
    step_table,
    system_table,
    variant_table,
)
from benchmarks.live.parity import measure_parity, parity_numbers, parity_table
from benchmarks.live.picture import draw
from benchmarks.live.steps import Climb, Climber
from benchmarks.live.systems import ACCURATE, FIXED, OURS, OURS_FIXED, Served, our_system, ray_serve
from benchmarks.live.traffic import QueryClass, classes
from benchmarks.measure import machine, spread, tidy_on_sigterm
from benchmarks.serving.generator import Generator

PARTS = ("rates", "parity")
_SYSTEMS = ("accurate", "fixed", "ours")
_PARITY_SHARE = 0.3  # of the rate that ours sustains: the driver asks from the same processors, and is dearer
_PARITY_QPS = 500.0  # where that was not measured


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--systems", default=",".join(_SYSTEMS), help=f"of the part rates: {', '.join(_SYSTEMS)}")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one step")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds of a step before its count begins")
    parser.add_argument(
        "--parity-qps", type=float, help="greatest rate of the part parity; default: follows from rates"
    )
    parser.add_argument("--cache", type=Path, default=Path(".infaas/bench"), help="models and homes, made once")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/live/results"))
    given = parser.parse_args()
    for name, known in (("only", PARTS), ("systems", _SYSTEMS)):
        chosen = [x for x in getattr(given, name).split(",") if x]
        for x in chosen:
            if x not in known:
                parser.error(f"{x!r} is none of {', '.join(known)}")
        setattr(given, name, chosen)
    if given.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    return given


def main() -> None:
    """Measure the parts asked for."""
    given = arguments()
    tidy_on_sigterm()
    given.cache = given.cache.resolve()
    given.results.mkdir(parents=True, exist_ok=True)
    facts = f"{machine()}; {given.repetitions} repetitions, steps of {given.seconds:g} s, median [least-greatest]"
    print(facts, flush=True)
    variants = prepare(given.cache, _say)
    asked = classes(variants)
    numbers: Numbers = {}
    if "rates" in given.only:
        climbs = _climb_all(given, variants, asked)
        numbers |= _tell_rates(given, facts, variants, asked, climbs)
        if OURS in climbs and given.parity_qps is None:
            given.parity_qps = _PARITY_SHARE * spread(climbs[OURS].sustained_qps).median
    if "parity" in given.only:
        numbers |= _parity(given, facts, variants, asked)
    print(number_table(numbers))
    print(json.dumps({name: round(x.median, 4) for name, x in numbers.items()}))


def _say(text: str) -> None:
    print(f"... {text}", flush=True)


def _fixed(variants: Sequence[Measured], asked: Sequence[QueryClass]) -> tuple[Measured, Measured]:
    """What is fixed in Ray Serve: the most accurate in eager PyTorch, and the best for all classes."""
    least, bound_s = max(x.least_accuracy for x in asked), min(x.bound_s for x in asked)
    return accurate_eager(variants), best_fixed(variants, least, bound_s)


def _climb_all(
    given: argparse.Namespace, variants: Sequence[Measured], asked: Sequence[QueryClass]
) -> dict[str, Climb]:
    """Raise the load on each system, one at a time, repetition by repetition."""
    eager, fixed = _fixed(variants, asked)
    accuracies = {v.name: p.accuracy.value for v, p in variants}
    found: dict[str, Climb] = {}
    with Generator() as generator:
        climber = Climber(generator, asked, given.seconds, given.warm)
        for repetition in range(given.repetitions):
            for key, name, variant in (("accurate", ACCURATE, eager), ("fixed", FIXED, fixed)):
                if key in given.systems:
                    with ray_serve(name, variant, asked, given.cache, accuracies) as served:
                        _climb(climber, served, found, repetition)
            if "ours" in given.systems:
                with our_system(fixed, asked, given.cache, accuracies) as ours:
                    for served in ours:
                        _climb(climber, served, found, repetition)
    return {x: found[x] for x in (ACCURATE, FIXED, OURS, OURS_FIXED) if x in found}


def _climb(climber: Climber, served: Served, found: dict[str, Climb], repetition: int) -> None:
    climb = found.setdefault(served.name, Climb(system=served.name))
    before = len(climb.failed)
    climber.climb(served, climb, repetition)
    _say(f"repetition {repetition + 1}: {served.name} sustains {climb.sustained_qps[-1]:.0f} queries/s")
    for failure in climb.failed[before:]:
        _say(f"{served.name} {failure}")


def _tell_rates(
    given: argparse.Namespace,
    facts: str,
    variants: Sequence[Measured],
    asked: Sequence[QueryClass],
    climbs: dict[str, Climb],
) -> Numbers:
    """Print and keep what was measured."""
    eager, fixed = _fixed(variants, asked)
    numbers = numbers_of(climbs)
    tables = [
        class_table(asked),
        variant_table(variants, {eager[0].name: ACCURATE, fixed[0].name: FIXED}),
        system_table(climbs),
        number_table(numbers),
    ]
    print("\n" + "\n".join(tables), flush=True)
    text = "\n".join([facts, "", *tables, "### Every run", "", step_table(climbs)])
    (given.results / "rates.md").write_text(text)
    draw(climbs.values(), given.results / "rates.png")
    return numbers


def _parity(
    given: argparse.Namespace, facts: str, variants: Sequence[Measured], asked: Sequence[QueryClass]
) -> Numbers:
    """Run the same workloads live and simulated."""
    pairs, replays = measure_parity(
        given.cache, variants, asked, given.parity_qps or _PARITY_QPS, given.repetitions, _say
    )
    numbers = parity_numbers(pairs)
    table = parity_table(pairs, replays)
    print(f"\n{table}", flush=True)
    (given.results / "parity.md").write_text(f"{facts}\n\n{table}\n{number_table(numbers)}")
    if not replays:
        raise SystemExit("the live decision log does not replay")
    return numbers


if __name__ == "__main__":
    main()
