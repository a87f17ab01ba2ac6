"""The floor: the runtime in a loop in one process, at a fixed batch size, for BENCH_SECONDS; prints rows per second."""

import os
import sys
import time

import numpy as np
import peer_model


def main() -> None:
    """`floor.py ROWS.npz`: the rows of a batch by input name."""
    model = peer_model.load()
    with np.load(sys.argv[1], allow_pickle=False) as rows:
        inputs = {name: np.resize(rows[name], (peer_model.BATCH, *rows[name].shape[1:])) for name in model.dtypes}
    for _ in range(5):
        model.predict(inputs)
    seconds = float(os.environ["BENCH_SECONDS"])
    started = time.perf_counter()
    batches = 0
    while (passed := time.perf_counter() - started) < seconds:
        model.predict(inputs)
        batches += 1
    print(batches * peer_model.BATCH / passed)


if __name__ == "__main__":
    main()
