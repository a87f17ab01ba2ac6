"""Ray Serve with one variant, fixed and replicated: `python -m benchmarks.live.ray_serve`, told by the environment.

BENCH_HOME is the home folder in which the variant BENCH_VARIANT is registered, BENCH_PORT where to listen,
BENCH_REPLICAS how many replicas there are, one thread each. The settings are those of the fastest form of Ray Serve
that benchmarks/serving found: one deployment that reads the request and batches in itself, no wait for a batch.

A request is the picture's bytes, an answer those of the logits. The model is loaded and run by the very code that
runs it in our replicas, so that what is compared is not two ways to call a runtime.
"""

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.live.models import BATCH, SHAPE, open_variant
from benchmarks.serving.peers.local_ray import local_ray
from infaas_ray.serving.interpreter import settle

_ONGOING = 512  # Serve's default of 5 would leave batches small


class Model:
    """One replica. The model runs on a thread of its own, so that requests come in meanwhile."""

    def __init__(self, home: str, variant: str) -> None:
        self._model = open_variant(Path(home), variant)
        self._thread = ThreadPoolExecutor(1)
        settle()  # as our replicas do; Python's own settings would make the model wait for the event loop

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def predict(self, bodies: list[bytes]) -> list[bytes]:
        """Answer requests together, in the order of the requests."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, bodies)

    def _compute(self, bodies: list[bytes]) -> list[bytes]:
        images = np.frombuffer(b"".join(bodies), np.float32).reshape(len(bodies), *SHAPE)
        return [x.tobytes() for x in self._model.predict({"image": images})["logits"]]

    async def __call__(self, request: Request) -> Response:
        """One request."""
        return Response(await self.predict(await request.body()), media_type="application/octet-stream")


def main() -> None:
    """Serve until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with local_ray():
        port = int(os.environ["BENCH_PORT"])
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "WARNING"})
        deployment = serve.deployment(
            name="model",
            num_replicas=int(os.environ["BENCH_REPLICAS"]),
            max_ongoing_requests=_ONGOING,
            ray_actor_options={"num_cpus": 1},
        )(Model)
        application = deployment.bind(os.environ["BENCH_HOME"], os.environ["BENCH_VARIANT"])
        serve.run(application, name="bench", route_prefix="/")
        over.wait()
        serve.shutdown()


if __name__ == "__main__":
    main()
