"""Ray Serve: `BENCH_COMPOSITION=default` is ingress -> handle -> replica with `@serve.batch`; `single` is one
deployment that reads the request and batches in itself, the faster form for the HAProxy mode.

The batch wait is 0: a batch is what has gathered while the last one ran, the least latency that Serve can give.
"""

import os
import signal
import threading

import peer_model
from local_ray import local_ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

_DEPLOYMENT = {"max_ongoing_requests": 512, "ray_actor_options": {"num_cpus": 0}}


class _Batching:
    def __init__(self):
        self._model = peer_model.load()

    @serve.batch(max_batch_size=peer_model.BATCH, batch_wait_timeout_s=0.0)
    async def predict(self, rows):
        """Answer requests of one row each together."""
        return self._model.predict(peer_model.stack(self._model, rows)).tolist()


@serve.deployment(**_DEPLOYMENT)
class Model(_Batching):
    """The replica of the composition."""


@serve.deployment(**_DEPLOYMENT)
class Ingress:
    """Reads the request, asks the replica through its handle, and answers."""

    def __init__(self, handle):
        self._handle = handle

    async def __call__(self, request: Request):
        """One request."""
        return JSONResponse({"output": await self._handle.predict.remote(await request.json())})


@serve.deployment(**_DEPLOYMENT)
class Single(_Batching):
    """All in one replica."""

    async def __call__(self, request: Request):
        """One request."""
        return JSONResponse({"output": await self.predict(await request.json())})


def main() -> None:
    """Serve until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with local_ray():
        serve.start(
            http_options={"host": "127.0.0.1", "port": peer_model.PORT}, logging_config={"log_level": "WARNING"}
        )
        single = os.environ["BENCH_COMPOSITION"] == "single"
        serve.run(Single.bind() if single else Ingress.bind(Model.bind()), name="bench", route_prefix="/")
        over.wait()
        serve.shutdown()


if __name__ == "__main__":
    main()
