import gc
import os
from pathlib import Path

import numpy as np
import pytest

from infaas_ray.errors import InvalidInput
from infaas_ray.serving import shared
from infaas_ray.serving.shared import Arena, SharedArray, view


def test_an_array_is_read_where_it_was_written() -> None:
    arena = Arena()
    sent = np.arange(100_000, dtype=np.float32).reshape(100, 1000)
    lease = arena.put(sent)
    assert lease is not None
    got = view(lease.name, sent.dtype, sent.shape)
    np.testing.assert_array_equal(got, sent)
    assert got.segment == lease.name
    assert not got.flags.writeable
    part = got[1:]
    assert isinstance(part, SharedArray)
    assert part.segment is None


def test_segments_are_used_again_and_go_with_their_arena() -> None:
    arena = Arena()
    first = arena.put(np.zeros(70_000, np.uint8))
    assert first is not None
    first.release()
    second = arena.put(np.ones((2, 40_000), np.uint8))
    assert second is not None
    assert second.name == first.name
    file = Path("/dev/shm") / second.name
    assert file.stat().st_mode & 0o777 == 0o600
    del arena, first, second
    gc.collect()
    assert not file.exists()


def test_a_full_arena_says_so() -> None:
    arena = Arena(most_bytes=100_000)
    assert arena.put(np.zeros(60_000, np.uint8)) is not None
    assert arena.put(np.zeros(60_000, np.uint8)) is None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "infaas-xyz", "infaas-" + "0" * 31, "/dev/shm/x"])
def test_other_names_are_not_opened(name: str) -> None:
    with pytest.raises(InvalidInput, match="not the name"):
        view(name, np.dtype("uint8"), (1,))


def test_a_segment_that_is_not_there_or_too_small_is_told() -> None:
    with pytest.raises(InvalidInput, match="cannot be opened"):
        view("infaas-" + "0" * 32, np.dtype("uint8"), (1,))
    lease = Arena().put(np.zeros(70_000, np.uint8))
    assert lease is not None
    for shape in ((10**9,), (-1, 5)):
        with pytest.raises(InvalidInput, match="does not fit"):
            view(lease.name, np.dtype("float64"), shape)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    name = "infaas-" + "f" * 32
    link = Path(shared._FOLDER) / name
    (tmp_path / "secret").write_bytes(b"x" * 100)
    os.symlink(tmp_path / "secret", link)
    try:
        with pytest.raises(InvalidInput, match="cannot be opened"):
            view(name, np.dtype("uint8"), (1,))
    finally:
        link.unlink()
