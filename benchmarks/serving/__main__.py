"""`python -m benchmarks.serving`: our system, its peers and the floor; tables, a picture, and one JSON line last.

`--only` picks parts; the JSON line then has the numbers of those parts only. Results are kept in `--results`.
"""

import argparse
import json
from pathlib import Path

from benchmarks.measure import machine, tidy_on_sigterm
from benchmarks.serving.driver import measure_driver
from benchmarks.serving.generator import Generator
from benchmarks.serving.http import Measured, Options, measure_workload
from benchmarks.serving.numbers import (
    Numbers,
    driver_numbers,
    driver_table,
    http_numbers,
    http_table,
    open_numbers,
    open_table,
)
from benchmarks.serving.open_loop import measure_open_loop
from benchmarks.serving.picture import draw
from benchmarks.serving.servers import PEERS
from benchmarks.serving.workloads import Workload, demo_workload, noop

PARTS = ("noop", "digits", "minilm", "driver", "open")
_DECIMALS = 4


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"peers, separated by commas: {', '.join(PEERS)}")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one point (three times that in the open loop)")
    parser.add_argument("--open-model", choices=("noop", "digits", "minilm"), default="minilm")
    parser.add_argument("--cache", type=Path, default=Path(".infaas/bench"), help="models and homes, made once")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/serving/results"))
    given = parser.parse_args()
    given.only = [x for x in given.only.split(",") if x]
    given.peers = [x for x in given.peers.split(",") if x]
    for name, known in [*((x, PARTS) for x in given.only), *((x, tuple(PEERS)) for x in given.peers)]:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    return given


def main() -> None:
    """Measure the parts asked for."""
    given = arguments()
    tidy_on_sigterm()
    options = Options(
        peers=given.peers,
        repetitions=given.repetitions,
        seconds=given.seconds,
        cache=given.cache.resolve(),
        say=lambda text: print(f"... {text}", flush=True),
    )
    options.cache.mkdir(parents=True, exist_ok=True)
    given.results.mkdir(parents=True, exist_ok=True)
    facts = f"{machine()}; {given.repetitions} repetitions of {given.seconds:g} s, median [least-greatest]"
    print(facts, flush=True)
    numbers: Numbers = {}
    pictured: list[Measured] = []
    with Generator() as generator:
        for part in given.only:
            found, table = measure_part(part, given.open_model, options, generator, pictured)
            numbers |= found
            print(f"\n{table}", flush=True)
            (given.results / f"{part}.md").write_text(f"{facts}\n\n{table}\n{number_table(found)}")
    if pictured:
        draw(pictured, given.results / f"{'-'.join(x.workload for x in pictured)}.png")
    print(number_table(numbers))
    print(json.dumps({name: round(x.median, _DECIMALS) for name, x in numbers.items()}))


def measure_part(
    part: str, open_model: str, options: Options, generator: Generator, pictured: list[Measured]
) -> tuple[Numbers, str]:
    """The numbers and the table of one part; HTTP parts are added to `pictured`."""
    if part == "driver":
        rates = measure_driver(options)
        return driver_numbers(rates), driver_table(rates)
    if part == "open":
        outcomes = measure_open_loop(workload_named(open_model, options), options, generator)
        return open_numbers(outcomes), open_table(outcomes)
    found = measure_workload(workload_named(part, options), options, generator)
    pictured.append(found)
    return http_numbers(found), http_table(found)


def workload_named(name: str, options: Options) -> Workload:
    """A workload, made if it is not there yet."""
    return noop() if name == "noop" else demo_workload(name, options.cache, options.say)


def number_table(numbers: Numbers) -> str:
    """The numbers with their spread."""
    return "\n".join(["| number | value |", "|---|---|", *(f"| {name} | {x} |" for name, x in numbers.items()), ""])


if __name__ == "__main__":
    main()
