"""MLServer's runtime for the benchmark; its settings are the two JSON files that the launcher writes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import peer_model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Bench(MLModel):
    """One model; a file's runs on a thread of its own, as the documentation asks of whoever blocks."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = peer_model.load()
        self._thread = ThreadPoolExecutor(1)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch that the adaptive batcher made, or one request."""
        inputs = {x.name: np.asarray(NumpyCodec.decode_input(x)) for x in payload.inputs}
        if peer_model.NAME == "noop":
            output = self._model.predict(inputs)
        else:
            output = await asyncio.get_running_loop().run_in_executor(self._thread, self._model.predict, inputs)
        return InferenceResponse(
            id=payload.id, model_name=self.name, outputs=[NumpyCodec.encode_output(self._model.output, output)]
        )
