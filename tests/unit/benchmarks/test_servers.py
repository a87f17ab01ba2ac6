import json

import numpy as np
import pytest

from benchmarks.serving.generator import http_request
from benchmarks.serving.servers import PEERS, encode_protocol, rows_of, serving
from benchmarks.serving.workloads import Workload, noop
from infaas_ray.protocol import decode_request


@pytest.fixture
def workload() -> Workload:
    return noop()


def test_rows_keep_their_batch_dimension(workload: Workload) -> None:
    rows = rows_of(workload)
    assert len(rows) == len(workload.expected)
    assert all(x["x"].shape == (1, 4) for x in rows)


def test_protocol_bodies_are_what_the_server_reads(workload: Workload) -> None:
    row = {"x": np.array([[0.1, 1e-7, -3.0, 16.0]], np.float32)}
    request, inputs = decode_request(encode_protocol(row, {"latency_ms": 5.0}), None)
    np.testing.assert_array_equal(inputs["x"], row["x"])
    assert request.parameters == {"latency_ms": 5.0}


@pytest.mark.parametrize("key", list(PEERS))
def test_every_peer_gets_the_same_numbers(key: str, workload: Workload) -> None:
    body = json.loads(PEERS[key].encode(workload)(rows_of(workload)[1]))
    found = body["inputs"][0]["data"] if key == "mlserver" else body["x"]
    assert found == [4.0, 5.0, 6.0, 7.0]


def test_a_request_is_whole() -> None:
    request = http_request("127.0.0.1", "/a", b"{}", {"X-A": "b"})
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /a HTTP/1.1"
    assert b"Content-Length: 2" in head.splitlines()
    assert b"X-A: b" in head.splitlines()
    assert body == b"{}"


def test_a_peer_that_is_not_installed_is_refused_with_a_reason(workload: Workload, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from benchmarks.serving.generator import MeasurementFailed

    peer = replace(PEERS["litserve"], python=tmp_path / "python")
    with pytest.raises(MeasurementFailed, match="make peers"), serving(peer, workload, tmp_path):
        pass
