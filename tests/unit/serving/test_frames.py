import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.errors import InfaasError, InvalidInput, PayloadTooLarge
from infaas_ray.serving.frames import Frame, FrameReader, encode


def whole(call: int, verb: str, fields: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    buffers, size = encode(call, verb, fields, arrays)
    data = b"".join(buffers)
    assert len(data) == size
    return data


def feed(reader: FrameReader, data: bytes, step: int) -> list[Frame]:
    frames: list[Frame] = []
    while data:
        space = reader.writable()
        count = min(len(space), step, len(data))
        space[:count] = data[:count]
        frames += reader.received(count)
        data = data[count:]
    return frames


@given(
    st.lists(st.integers(0, 300) | st.just(1100), min_size=1, max_size=4),
    st.integers(1, 400),
    st.sampled_from([128, 256, 4096]),
)
def test_frames_arrive_whole_however_the_bytes_are_cut(lengths: list[int], step: int, scratch: int) -> None:
    sent = [np.arange(n, dtype=np.float32) for n in lengths]
    data = b"".join(whole(call, "infer", {"rows": call}, {"x": array}) for call, array in enumerate(sent))
    frames = feed(FrameReader(scratch_bytes=scratch), data, step)
    assert [x.head.call for x in frames] == list(range(len(sent)))
    for frame, array in zip(frames, sent, strict=True):
        assert frame.head.fields == {"rows": frame.head.call}
        np.testing.assert_array_equal(frame.arrays()["x"], array)


def test_many_tensors_keep_their_types_and_shapes() -> None:
    arrays = {"a": np.ones((2, 3), np.int64), "b": np.array([[True], [False]]), "c": np.zeros((0, 4), np.float16)}
    arrays["d"] = np.arange(12, dtype=np.float32).reshape(3, 4).T  # not contiguous
    (frame,) = feed(FrameReader(), whole(1, "v", {}, arrays), 1000)
    for name, array in frame.arrays().items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])


def test_a_frame_beyond_the_limit_is_refused_before_it_is_read() -> None:
    reader = FrameReader(max_frame_bytes=100)
    with pytest.raises(PayloadTooLarge, match="exceeds the limit of 100"):
        feed(reader, struct.pack("<II", 50, 100), 8)


def test_a_head_that_does_not_parse_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not parse"):
        feed(FrameReader(), struct.pack("<II", 3, 0) + b"abc", 100)


def test_a_tensor_beyond_its_body_is_refused() -> None:
    data = whole(1, "v", {}, {"x": np.ones(4)})
    head_bytes = struct.unpack_from("<I", data)[0]
    (frame,) = feed(FrameReader(), struct.pack("<II", head_bytes, 0) + data[8 : 8 + head_bytes], 100)
    with pytest.raises(InvalidInput, match="does not fit"):
        frame.arrays()


def test_an_array_that_has_no_datatype_is_refused() -> None:
    with pytest.raises(InvalidInput, match="complex64"):
        encode(1, "v", {}, {"x": np.zeros(2, np.complex64)})


@given(st.binary(max_size=200))
def test_garbage_does_no_worse_than_an_error(data: bytes) -> None:
    try:
        for frame in feed(FrameReader(max_frame_bytes=1000), data, 64):
            frame.arrays()
    except InfaasError:
        pass
