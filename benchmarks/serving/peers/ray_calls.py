"""Plain Ray actor calls: for each line `small SECONDS` or `large SECONDS` on its input, prints the calls per second.

The actor answers with a float. Calls are pipelined, many at once, as fast as Ray takes them; an array goes as a direct
argument (putting it into the object store first is no faster).
"""

import sys
import time

import numpy as np
import ray
from local_ray import local_ray

_WINDOW = {"small": 1000, "large": 32}
_WIDTH = {"small": 4, "large": 3 * 224 * 224}


class Model:
    """What is called."""

    def answer(self, x):
        """One float."""
        return float(x[0, 0])


def rate(actor, size: str, seconds: float) -> float:
    """Calls per second."""
    x = np.zeros((1, _WIDTH[size]), np.float32)
    done = 0
    started = time.perf_counter()
    waiting = [actor.answer.remote(x) for _ in range(_WINDOW[size])]
    while (passed := time.perf_counter() - started) < seconds:
        half = len(waiting) // 2
        ray.get(waiting[:half])
        done += half
        waiting = waiting[half:] + [actor.answer.remote(x) for _ in range(half)]
    ray.get(waiting)
    return done / passed


def main() -> None:
    """Answer until the input ends."""
    with local_ray():
        actor = ray.remote(Model).options(num_cpus=0, enable_task_events=False).remote()
        ray.get(actor.answer.remote(np.zeros((1, 4), np.float32)))
        for line in sys.stdin:
            size, seconds = line.split()
            print(rate(actor, size, float(seconds)), flush=True)


if __name__ == "__main__":
    main()
