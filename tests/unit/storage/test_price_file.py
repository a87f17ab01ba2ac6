"""New prices in a catalogue, and nothing else that changes in it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infaas_ray.config import from_yaml
from infaas_ray.errors import ConfigError
from infaas_ray.storage.price_file import NewPrice, with_prices, write_prices

CATALOGS = Path(__file__).parents[3] / "configs" / "catalogs"
NEW = NewPrice(usd_per_hour=0.5, source="m5.large, AWS price list, us-east-1", date="2026-11-26")

BLOCK = """# a comment
worker_types:
  - name: cpu  # the small one
    usd_per_hour: 0.384  # was once less
    memory_gib: 32
    source: by hand
    date: '2025'
  - name: gpu
    usd_per_hour: 1
# the end
"""


def test_comments_layout_and_other_types_stay() -> None:
    fresh = with_prices(BLOCK, {"cpu": NEW})
    assert fresh == BLOCK.replace("0.384", "0.5").replace("by hand", '"m5.large, AWS price list, us-east-1"').replace(
        "'2025'", '"2026-11-26"'
    )


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        "worker_types: [{name: gpu, usd_per_hour: 1.0, spot: true}]",
        "worker_types:\r\n- name: gpu\r\n  usd_per_hour: 1\r\n",
    ],
)
def test_source_and_date_are_added_where_there_were_none(text: str) -> None:
    found = {x["name"]: x for x in from_yaml(with_prices(text, {"gpu": NEW}))["worker_types"]}
    assert found["gpu"]["usd_per_hour"] == 0.5
    assert (found["gpu"]["source"], found["gpu"]["date"]) == (NEW.source, NEW.date)


@given(usd=st.floats(1e-6, 1e4), source=st.text(max_size=40))
def test_any_price_and_source_can_be_read_again(usd: float, source: str) -> None:
    fresh = with_prices(BLOCK, {"cpu": NewPrice(usd_per_hour=usd, source=source, date="2026-11-26")})
    changed, other = from_yaml(fresh)["worker_types"]
    assert changed["usd_per_hour"] == pytest.approx(usd, abs=1e-6)
    assert changed["source"] == source
    assert other == from_yaml(BLOCK)["worker_types"][1]
    assert fresh.count("\n") == BLOCK.count("\n")


@pytest.mark.parametrize("name", ["aws.yaml", "aws-2026.yaml"])
def test_prices_of_our_catalogues_can_change(name: str) -> None:
    text = (CATALOGS / name).read_text()
    rows = from_yaml(text)["worker_types"]
    fresh = with_prices(text, {rows[3]["name"]: NEW})
    found = from_yaml(fresh)["worker_types"]
    assert (found[3]["usd_per_hour"], found[3]["source"]) == (NEW.usd_per_hour, NEW.source)
    assert [x for n, x in enumerate(found) if n != 3] == [x for n, x in enumerate(rows) if n != 3]
    assert fresh.count("\n") == text.count("\n")


def test_what_is_shared_by_an_anchor_is_left_alone() -> None:
    text = "worker_types:\n- {name: a, usd_per_hour: &p 1.0}\n- {name: b, usd_per_hour: *p}\n"
    with pytest.raises(ConfigError, match="by hand"):
        with_prices(text, {"b": NEW})


@pytest.mark.parametrize("text", ["", "[]", "worker_types: {}", "other: 1"])
def test_what_is_no_catalogue_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        with_prices(text, {"a": NEW})


def test_a_file_keeps_its_rights_and_a_link_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    file.write_text(BLOCK)
    file.chmod(0o640)
    link.symlink_to(file)
    write_prices(link, {"cpu": NEW})
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert "0.5  # was once less" in file.read_text()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(BLOCK)

    def full(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_prices(file, {"cpu": NEW})
    assert file.read_text() == BLOCK
    assert [x.name for x in tmp_path.iterdir()] == ["prices.yaml"]
