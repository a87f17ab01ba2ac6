"""The limits of a cluster, and what they leave of a wish for workers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import WorkerType
from infaas_ray.errors import ConfigError
from infaas_ray.serving.cluster_file import Limits, limits_of, to_be_had

LIMITS = Limits(least={"cpu": 0, "gpu": 1}, most={"cpu": 3, "gpu": 2}, total=4)
FILE = """
max_workers: 4
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  cpu: {resources: {CPU: 8}, max_workers: 3}
  gpu: {resources: {GPU: 1}, min_workers: 1}
"""


def settings(path: Path | None, address: str = "auto") -> Settings:
    return load_settings(flags={"cluster": {"address": address, "autoscaling_config": path}}, environment={})


def kind(name: str, least: int = 0, most: int = 100) -> WorkerType:
    return WorkerType(
        name=name, resources={"CPU": 4}, memory_bytes=1, usd_per_hour=1, min_workers=least, max_workers=most
    )


class TestCut:
    def test_what_is_allowed_is_asked_for(self) -> None:
        assert LIMITS.cut({"cpu": 2, "gpu": 1}, {}, {}) == ({"cpu": 2, "gpu": 1}, {})

    def test_those_that_leave_are_asked_for_on_top(self) -> None:
        assert LIMITS.cut({"cpu": 1}, {"cpu": 1}, {"cpu": 1}) == ({"cpu": 2}, {})

    def test_more_than_allowed_is_told_because_ray_would_grant_nothing(self) -> None:
        granted, reasons = LIMITS.cut({"cpu": 9, "tpu": 1}, {}, {})
        assert granted == {"cpu": 3, "tpu": 0}
        assert set(reasons) == {"cpu", "tpu"}

    def test_a_count_that_waits_for_others_to_leave_is_no_failure(self) -> None:
        assert LIMITS.cut({"gpu": 2}, {"gpu": 1}, {"gpu": 2}) == ({"gpu": 2}, {})

    def test_where_all_are_too_many_those_here_go_first(self) -> None:
        granted, reasons = LIMITS.cut({"cpu": 3, "gpu": 2}, {}, {"gpu": 2})
        assert granted == {"cpu": 2, "gpu": 2}
        assert reasons == {"cpu": "the cluster's file allows 4 workers in all"}

    @given(
        counts=st.dictionaries(st.sampled_from(["cpu", "gpu", "tpu"]), st.integers(0, 9)),
        leaving=st.dictionaries(st.sampled_from(["cpu", "gpu"]), st.integers(0, 3)),
        here=st.dictionaries(st.sampled_from(["cpu", "gpu"]), st.integers(0, 2)),
    )
    def test_never_more_than_the_limits(
        self, counts: dict[str, int], leaving: dict[str, int], here: dict[str, int]
    ) -> None:
        granted, reasons = LIMITS.cut(counts, leaving, here)
        assert granted.keys() == counts.keys()
        assert sum(granted.values()) <= LIMITS.total
        assert all(0 <= count <= LIMITS.most.get(name, 0) for name, count in granted.items())
        assert all(granted[name] == 0 or count > 0 for name, count in counts.items() if not leaving.get(name))
        if sum(counts.values()) <= LIMITS.total and all(x <= LIMITS.most.get(n, 0) for n, x in counts.items()):
            assert reasons == {}


class TestFile:
    def test_its_limits_are_read_without_the_head(self, tmp_path: Path) -> None:
        (tmp_path / "c.yaml").write_text(FILE)
        found = limits_of(settings(tmp_path / "c.yaml"))
        assert found == Limits(least={"cpu": 0, "gpu": 1}, most={"cpu": 3, "gpu": 4}, total=4)

    def test_none_is_needed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert limits_of(settings(None)) is None

    def test_that_of_ray_up_is_found(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "ray_bootstrap_config.yaml").write_text(FILE)
        assert limits_of(settings(None)) is not None
        assert limits_of(settings(None, "local")) is None

    @pytest.mark.parametrize("content", ["[]", "max_workers: many\navailable_node_types: {}", "a: [", "{}"])
    def test_a_wrong_one_is_named(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "c.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"c\.yaml"):
            limits_of(settings(tmp_path / "c.yaml"))

    def test_one_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"gone\.yaml"):
            limits_of(settings(tmp_path / "gone.yaml"))


class TestToBeHad:
    def test_the_narrower_limit_counts_and_unknown_types_cannot_be_had(self) -> None:
        known = {x.name: x for x in (kind("cpu", most=2), kind("gpu", least=0, most=9), kind("tpu"))}
        found = to_be_had(settings(None), known, LIMITS)
        assert [(x.name, x.min_workers, x.max_workers) for x in found] == [("cpu", 0, 2), ("gpu", 1, 2)]

    def test_without_a_file_the_catalogue_counts(self) -> None:
        assert to_be_had(settings(None), {"cpu": kind("cpu")}, None) == [kind("cpu")]

    def test_a_ray_of_its_own_starts_no_machines(self) -> None:
        assert to_be_had(settings(None, "local"), {"cpu": kind("cpu")}, None) == []
