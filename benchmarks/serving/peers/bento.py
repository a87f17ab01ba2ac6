"""BentoML: one worker, adaptive batching for models; a plain asynchronous endpoint for the no-op, where it is faster.

A batchable endpoint takes one parameter, so the inputs of a model with several are stacked into one array.
"""

import bentoml
import numpy as np
import peer_model

if peer_model.NAME == "noop":

    @bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
    class Server:
        """The no-op."""

        def __init__(self) -> None:
            self._model = peer_model.load()

        @bentoml.api
        async def predict(self, x: list) -> list:
            """One row."""
            return self._model.predict({"x": np.asarray(x, np.float32)}).tolist()

else:

    @bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
    class Server:
        """A model."""

        def __init__(self) -> None:
            self._model = peer_model.load()

        @bentoml.api(batchable=True, max_batch_size=peer_model.BATCH, max_latency_ms=10_000)
        def predict(self, x: np.ndarray) -> np.ndarray:
            """Rows of all inputs, stacked."""
            dtypes = self._model.dtypes
            parts = {name: x[:, at].astype(dtype) for at, (name, dtype) in enumerate(dtypes.items())}
            return self._model.predict(parts)
