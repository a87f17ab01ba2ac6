"""A steady stream of queries, each of whose fate is kept."""

import threading
import time
from collections import Counter
from concurrent.futures import Future
from typing import Any

import numpy as np

from infaas_ray.domain import Answer
from infaas_ray.serving.driver import Outcome, System


class Load:
    """Asks `rate_qps` queries a second of one row from `with` until its end; `slo` as `System.submit` takes it."""

    def __init__(self, system: System, target: str, rate_qps: float, **slo: Any) -> None:
        self._system = system
        self._target = target
        self._rate_qps = rate_qps
        self._slo = slo
        self._futures: list[Future[Outcome]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        start = time.monotonic()
        while not self._over.is_set():
            x = np.full((1, 4), len(self._futures), np.float32)
            self._futures.append(self._system.submit(self._target, {"x": x}, **self._slo))
            self._over.wait(max(0.0, start + len(self._futures) / self._rate_qps - time.monotonic()))

    def asked(self) -> int:
        """How many have been asked so far."""
        return len(self._futures)

    def met(self, after: int = 0, last: int = 40) -> bool:
        """Whether the last queries that have an outcome, of those asked after so many, were all answered in time."""
        known = [x.result() for x in self._futures[after:] if x.done()][-last:]
        return len(known) == last and all(isinstance(x, Answer) and x.slo_met for x in known)

    def outcomes(self) -> list[Outcome]:
        """What became of every query asked, waiting for the last."""
        return [x.result(timeout=30) for x in self._futures]

    def answered_by(self) -> set[str]:
        """The architectures that have answered so far."""
        known = [x.result() for x in list(self._futures) if x.done()]
        return {x.variant.partition("@")[0] for x in known if isinstance(x, Answer)}

    def fates(self) -> Counter[str]:
        """The outcomes by kind; an answer that is not the question's counts as wrong."""
        found: Counter[str] = Counter()
        for number, outcome in enumerate(self.outcomes()):
            if isinstance(outcome, Answer):
                found["answered" if outcome.outputs["y"][0, 0] == number else "wrong"] += 1
            else:
                found[type(outcome).__name__] += 1
        return found
