import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infaas_ray.domain import DATATYPES, SLO, Answer, OnMiss
from infaas_ray.errors import InvalidInput
from infaas_ray.protocol import (
    application_of,
    decode_explain,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    slo_of,
)


def body(**change: object) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
    return json.dumps({"inputs": [{k: v for k, v in (tensor | change).items() if v is not None}]}).encode()


def answer(**outputs: np.ndarray) -> Answer:
    return Answer(
        query_id="q",
        outputs=outputs,
        variant="a@b",
        replica="a@b#1",
        accuracy=0.9,
        usd_per_1k=0.1,
        queue_s=0.001,
        compute_s=0.002,
        latency_s=0.004,
        batch_rows=3,
        slo_met=True,
    )


class TestRequests:
    def test_flat_and_nested_data_are_the_same(self) -> None:
        for data in ([1, 2.5], [[1, 2.5]]):
            _, arrays = decode_request(body(data=data), None)
            assert arrays["x"].dtype == np.float32
            assert arrays["x"].tolist() == [[1.0, 2.5]]

    @pytest.mark.parametrize(
        ("raw", "header", "says"),
        [
            (b"", None, "body is empty"),
            (body()[:-9], None, "cut short"),
            (b"\xff\xfe", None, "not valid JSON"),
            (b"[]", None, "Open Inference Protocol"),
            (b"{}", None, "missing required field `inputs`"),
            (body(data=None), None, "neither 'data'"),
            (body(datatype="FP31"), None, "supported: BOOL"),
            (body(datatype="FP16"), None, "raw bytes"),
            (body(shape=[1, 3]), None, "needs 3 numbers, got 2"),
            (body(shape=[-1, 2]), None, "lengths must be 0 or more"),
            (body(shape=[]), None, "lengths must be"),
            (body(data=["a", "b"]), None, "is not a FP32"),
            (body(data=[1.0, None]), None, "is not a FP32"),
            (body(datatype="INT64", data=[1, 2.5]), None, "2.5 is not a INT64"),
            (body(datatype="UINT8", data=[1, 300]), None, "does not fit UINT8"),
            (body(datatype="BOOL", data=[1, 0]), None, "is not a BOOL"),
            (body(), "none", "must be the bytes of JSON"),
            (body(), "100000", "must be the bytes of JSON"),
            (body(data=None, parameters={"binary_data_size": 8}), None, "0 are left"),
            (body(data=None, parameters={"binary_data_size": 7}), None, "needs 8 raw bytes"),
            (body(shape=[0, 2**62, 2**62], data=[]), None, r"below 2\*\*31"),
            (body(shape=[0, 10**30], data=[]), None, r"below 2\*\*31"),
            (body(shape=[1] * 100, data=[1]), None, "give 1 to 32 lengths"),
            (body(shape=[0, *[2**31 - 1] * 3], data=[]), None, "no array can have shape"),
            (body(shape=[1] * 100, data=None, parameters={"binary_data_size": 4}), None, "give 1 to 32 lengths"),
            (body(shape=[0, *[2**31 - 1] * 3], data=None, parameters={"binary_data_size": 0}), None, "no array"),
            (body(data=[7, 8]).replace(b"[7, 8]", b"[1e400, 2]"), None, "out of range"),
            (body(data=[1e300, 1]), None, "does not fit FP32"),
            (body(data=[7, 8]).replace(b"[7, 8]", b"[" * 200_000), None, "nested too deeply"),
            (body(name="caf").replace(b"caf", b"caf\xff"), None, "not valid JSON"),
            (body(data=["caf"]).replace(b"caf", b"caf\xff"), None, "not valid JSON"),
            (body(shape=[2, 32], data=[[0] * 60, [[0] * 4]]), None, "nested as the shape"),
            (body(shape=[2, 2], data=[[1, 2, 3], [4]]), None, "nested as the shape"),
            (body(shape=[2, 2], data=[[1, 2, 3, 4]]), None, "nested as the shape"),
            (body(data=7), None, "must be a flat list"),
            (body(), "²", "must be the bytes of JSON"),
            (body(), "1" * 5000, "must be the bytes of JSON"),
        ],
    )
    def test_wrong_bodies_are_told_what_would_be_right(self, raw: bytes, header: str | None, says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            decode_request(raw, header)

    def test_raw_bytes_that_no_input_claims_are_refused(self) -> None:
        text = body()
        with pytest.raises(InvalidInput, match="4 bytes of raw tensor data belong to no input"):
            decode_request(text + b"abcd", str(len(text)))

    def test_an_input_may_appear_once(self) -> None:
        twice = json.loads(body())["inputs"] * 2
        with pytest.raises(InvalidInput, match="twice"):
            decode_request(json.dumps({"inputs": twice}).encode(), None)

    @given(st.binary(max_size=300), st.none() | st.integers(-5, 400).map(str))
    def test_no_body_does_worse_than_invalid_input(self, raw: bytes, header: str | None) -> None:
        with contextlib.suppress(InvalidInput):
            decode_request(raw, header)

    @given(
        st.sampled_from(sorted(set(DATATYPES.values()))).flatmap(
            lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(max_dims=3, max_side=4))
        )
    )
    def test_raw_tensors_arrive_as_they_left(self, array: np.ndarray) -> None:
        raw, json_bytes = encode_request({"x": array, "y": array}, {"latency_ms": 5}, "id-1")
        request, arrays = decode_request(raw, str(json_bytes))
        assert request.id == "id-1"
        assert request.parameters["latency_ms"] == 5
        for name in ("x", "y"):
            assert arrays[name].dtype == array.dtype
            assert arrays[name].tobytes() == array.tobytes()
            assert arrays[name].shape == array.shape


class TestResponses:
    @pytest.mark.parametrize("binary", [True, False])
    def test_outputs_arrive_as_they_left(self, binary: bool) -> None:
        request, _ = decode_request(
            json.dumps(json.loads(body()) | {"id": "7", "parameters": {"binary_data_output": binary}}).encode(), None
        )
        outputs = {"y": np.arange(6, dtype=np.float32).reshape(3, 2), "z": np.array([True, False])}
        raw, json_bytes = encode_response("target", request, answer(**outputs))
        assert (json_bytes is not None) is binary
        head, arrays = decode_response(raw, None if json_bytes is None else str(json_bytes))
        assert head["id"] == "7"
        assert head["model_name"] == "target"
        assert head["parameters"]["latency_ms"] == 4.0
        for name, array in outputs.items():
            np.testing.assert_array_equal(arrays[name], array)

    def test_only_the_outputs_asked_for_go_back_each_in_its_own_form(self) -> None:
        asked = json.loads(body()) | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
        request, _ = decode_request(json.dumps(asked).encode(), None)
        raw, json_bytes = encode_response("t", request, answer(y=np.ones(2), z=np.ones(2)))
        head, arrays = decode_response(raw, str(json_bytes))
        assert list(arrays) == ["y"]
        assert head["outputs"][0]["parameters"] == {"binary_data_size": 16}


class TestSlo:
    def test_parameters_win_over_headers(self) -> None:
        headers = {"x-slo-latency-ms": "50", "x-slo-min-accuracy": "0.9"}
        assert slo_of({"latency_ms": 20}, headers) == SLO(latency_s=0.02, min_accuracy=0.9)

    def test_the_timeout_of_the_protocol_counts_in_microseconds(self) -> None:
        assert slo_of({"timeout": 20_000}, {}).latency_s == pytest.approx(0.02)
        assert slo_of({"timeout": 20_000, "latency_ms": 5}, {}).latency_s == pytest.approx(0.005)
        assert slo_of({"timeout": 0}, {}).latency_s is None

    def test_what_clients_add_of_their_own_is_ignored(self) -> None:
        slo = slo_of({"triton_enable_empty_final_response": True, "priority": 1, "on_miss": "late"}, {})
        assert slo == SLO(on_miss=OnMiss.LATE)

    @pytest.mark.parametrize(
        ("parameters", "headers", "says"),
        [
            ({"latency_sm": 5}, {}, "unknown parameter 'latency_sm'; known: latency_ms"),
            ({"latency_ms": -5}, {}, "latency must be a number above 0"),
            ({"latency_ms": "5"}, {}, "latency_ms must be a number"),
            ({"latency_ms": True}, {}, "latency_ms must be a number"),
            ({"min_accuracy": 2}, {}, "min_accuracy must be a number at least 0 and at most 1"),
            ({"max_usd_per_1k": 0}, {}, "above 0"),
            ({"on_miss": "shrug"}, {}, "reject, degrade, late"),
            ({"latency_ms": None}, {}, "latency_ms must be a number, not null"),
            ({"offline": None}, {}, "offline must be true or false, not null"),
            ({"on_miss": None}, {}, "not null"),
            ({"latency_ms": 10**400}, {}, "latency_ms must be a number below"),
            ({"min_accuracy": 10**400}, {}, "min_accuracy must be a number below"),
            ({}, {"x-slo-latency-ms": "soon"}, "x-slo-latency-ms must be a number"),
        ],
    )
    def test_wrong_values_are_refused(self, parameters: dict, headers: dict, says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            slo_of(parameters, headers)

    def test_a_null_in_a_request_is_named(self) -> None:
        request, _ = decode_request(
            json.dumps(json.loads(body()) | {"parameters": {"latency_ms": None}}).encode(), None
        )
        with pytest.raises(InvalidInput, match="latency_ms must be a number, not null"):
            slo_of(request.parameters, {})


class TestApplication:
    def test_the_parameter_wins_over_the_header(self) -> None:
        headers = {"x-application": "blog"}
        assert application_of({}, {}) == ""
        assert application_of({}, headers) == "blog"
        assert application_of({"application": "shop"}, headers) == "shop"
        assert slo_of({"application": "shop"}, {}) == SLO()

    @pytest.mark.parametrize("name", [None, 5, True, "a b", "x" * 65, "a\n", "(other)", "é"])
    def test_what_is_no_name_is_refused(self, name: object) -> None:
        with pytest.raises(InvalidInput, match="application must be 1 to 64"):
            application_of({"application": name}, {})


class TestExplain:
    def test_an_empty_body_asks_for_one_row(self) -> None:
        asked = decode_explain(b"")
        assert (asked.rows, asked.parameters) == (1, {})

    @pytest.mark.parametrize(
        ("raw", "says"),
        [
            (b'{"rows": true}', "Expected `int`, got `bool`"),
            (b'{"rows": 0}', ">= 1"),
            (b'{"rows": 1%s}' % (b"0" * 400), "<= 2147483647"),
            (b'{"parameters": {"latency_ms": 1%s}}' % (b"0" * 400), "out of range"),
            (b'{"parameters": []}', "Expected `object`"),
            (b'{"parameters": ' + b"[" * 200_000, "Expected `object`"),
            (b'{"else": ' + b"[" * 200_000, "nested too deeply"),
            (b'{"parameters": {"\xff": 1}}', "not valid JSON"),
        ],
    )
    def test_wrong_questions_are_told_what_would_be_right(self, raw: bytes, says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            decode_explain(raw)
