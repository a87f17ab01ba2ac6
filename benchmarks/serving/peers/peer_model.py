"""The model that a peer serves, told by the environment; the same for every peer and for the floor.

BENCH_MODEL is `noop` or the path of an ONNX file, BENCH_BATCH the most rows to run together, BENCH_PORT where to
listen. One thread, never spinning. It needs NumPy and, for a file, ONNX Runtime; nothing of our system.
"""

import os

import numpy as np

BATCH = int(os.environ.get("BENCH_BATCH", "16"))
PORT = int(os.environ.get("BENCH_PORT", "0"))
NAME = os.environ.get("BENCH_MODEL", "noop")
_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Noop:
    """Gives back what it gets."""

    dtypes = {"x": np.float32}  # noqa: RUF012
    output = "y"

    def predict(self, inputs):
        """A batch of `x` as `y`."""
        return inputs["x"]


class Onnx:
    """One session with one thread."""

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
        self.dtypes = {x.name: _DTYPES[x.type] for x in self._session.get_inputs()}
        self.output = self._session.get_outputs()[0].name

    def predict(self, inputs):
        """The first output of a batch."""
        return self._session.run([self.output], inputs)[0]


def load():
    """The model that BENCH_MODEL names."""
    return Noop() if NAME == "noop" else Onnx(NAME)


def stack(model, rows):
    """Requests of one row each, as decoded from JSON, as the arrays of one batch."""
    return {name: np.asarray([row[name] for row in rows], dtype) for name, dtype in model.dtypes.items()}
