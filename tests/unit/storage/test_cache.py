"""The local cache: entries appear whole, the oldest go first, neighbours do not disturb each other."""

import os
from pathlib import Path

import pytest

from infaas_ray.storage.cache import LocalCache, cache_root


def test_an_entry_is_made_once_and_found_again(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache")
    assert cache.get("a") is None
    made = cache.put("a", lambda path: path.write_text("one"))
    assert cache.get("a") == made
    assert made.read_text() == "one"
    cache.remove("a")
    cache.remove("a")
    assert cache.get("a") is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, limit_bytes=250)
    for age, name in enumerate(("old", "used")):
        os.utime(cache.put(name, lambda path: path.write_bytes(b"x" * 100)), (1000 + age, 1000 + age))
    os.utime(tmp_path / "old", (1002, 1002))  # somebody used it since
    cache.put("new", lambda path: path.write_bytes(b"x" * 100))
    assert sorted(x.name for x in tmp_path.iterdir()) == ["new", "old"]


def test_the_newest_stays_however_large(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, limit_bytes=10)
    cache.put("a", lambda path: path.write_bytes(b"x" * 5))
    cache.put("b", lambda path: path.write_bytes(b"x" * 50))
    assert [x.name for x in tmp_path.iterdir()] == ["b"]


def test_a_failed_making_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        LocalCache(tmp_path).put("a", fail)
    assert list(tmp_path.iterdir()) == []


def test_of_two_makers_of_a_folder_the_first_wins(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path)

    def make(path: Path) -> None:
        path.mkdir()
        (path / "who").write_text("second")
        if cache.get("a") is None:  # another process is quicker meanwhile
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "who").write_text("first")

    assert (cache.put("a", make) / "who").read_text() == "first"
    assert [x.name for x in tmp_path.iterdir()] == ["a"]


def test_the_place_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("INFAAS_CACHE", raising=False)
    assert cache_root() == tmp_path / "infaas"
    monkeypatch.setenv("INFAAS_CACHE", str(tmp_path / "mine"))
    assert cache_root() == tmp_path / "mine"
