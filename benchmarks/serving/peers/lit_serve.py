"""LitServe with its batching for models that gain from it; without for the no-op, where it is faster.

Its batch wait must not be 0: its worker would then spin and take a core from everybody else.
"""

import litserve
import peer_model


class Api(litserve.LitAPI):
    """One model."""

    def setup(self, device):
        """Load in the worker."""
        self._model = peer_model.load()

    def decode_request(self, request):
        """A row."""
        return request

    def batch(self, inputs):
        """Rows as arrays."""
        return peer_model.stack(self._model, inputs)

    def predict(self, x):
        """Arrays of a batch, or a single row where there is no batching."""
        if peer_model.NAME == "noop":
            return self._model.predict(peer_model.stack(self._model, [x]))[0]
        return self._model.predict(x)

    def unbatch(self, output):
        """Rows again."""
        return list(output)

    def encode_response(self, output):
        """JSON."""
        return {"output": output.tolist()}


if __name__ == "__main__":
    batching = {} if peer_model.NAME == "noop" else {"max_batch_size": peer_model.BATCH, "batch_timeout": 0.002}
    server = litserve.LitServer(Api(**batching), accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1", port=peer_model.PORT, num_api_servers=1, log_level="warning", generate_client_file=False
    )
