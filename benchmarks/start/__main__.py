"""`python -m benchmarks.start`: the first answer of replicas that are not there yet, with shells and without.

One JSON line last.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import Spread, machine, spread
from benchmarks.serving.ours import running
from benchmarks.start.models import KINDS, WIDTH, offer, start_settings
from infaas_ray.client import Client
from infaas_ray.config import Settings

Found = dict[tuple[str, int], list[float]]  # seconds beyond the load, by kind of model and number of shells
_SETTLE_S = 1.5
_LIMIT_S = 60.0


def measure(home: Path, shells: int, starts: int, found: Found) -> None:
    """Bring a system up, and ask `starts` variants of each kind their first query, each when all is quiet again."""
    settings = start_settings(home, shells)
    load_s = offer(settings, starts + 1)
    x = {"x": np.ones((1, WIDTH), np.float32)}
    with running(settings) as run, Client(run.url, timeout_s=_LIMIT_S) as client:
        for _ in range(20):
            client.infer(f"{KINDS[0]}-0", x)  # the way to the router is warm
        for number in range(1, starts + 1):
            for kind in KINDS:
                _wait_for_shells(settings, shells)
                time.sleep(_SETTLE_S)
                began = time.perf_counter()
                client.infer(f"{kind}-{number}", x)
                took_s = time.perf_counter() - began
                found.setdefault((kind, shells), []).append(took_s - load_s[f"{kind}-{number}"])


def _wait_for_shells(settings: Settings, shells: int) -> None:
    from infaas_ray.serving import launch

    end = time.monotonic() + _LIMIT_S
    while any(x["shells"] < shells for x in launch.status(settings)["workers"]):
        if time.monotonic() > end:
            raise SystemExit("the shells did not come; is the machine busy?")
        time.sleep(0.5)


def main() -> None:
    """Measure, print a table, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="systems with and without shells, in turns")
    parser.add_argument("--starts", type=int, default=3, help="starts of each kind in a round")
    parser.add_argument("--shells", type=int, default=2)
    options = parser.parse_args()
    print(machine())
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="infaas-start-") as folder:
        for _ in range(options.rounds):
            for shells in (options.shells, 0):
                measure(Path(folder), shells, options.starts, found)
    spreads = {key: spread(values) for key, values in found.items()}
    for (kind, shells), x in sorted(spreads.items()):
        print(f"{kind:12s} {shells} shells: first answer {x} s beyond the load ({len(found[kind, shells])} starts)")
    print(json.dumps(_last_line(spreads, options.shells)))


def _last_line(spreads: dict[tuple[str, int], Spread], shells: int) -> dict[str, float]:
    """The worst median over the kinds, with shells and without."""
    worst = {n: max(x.median for (_, count), x in spreads.items() if count == n) for n in (shells, 0)}
    return {
        "start_beyond_load_s": round(worst[shells], 3),
        "start_beyond_load_s_without_shells": round(worst[0], 3),
    }


if __name__ == "__main__":
    main()
