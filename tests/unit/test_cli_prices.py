"""`infaas prices`, against mocks of AWS."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infaas_ray.cli import main
from infaas_ray.config import read_prices
from infaas_ray.storage import price_list
from tests.unit.aws import Aws, product, spot_entry

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "configs" / "catalogs" / "aws.yaml"
CLUSTER = ROOT / "cluster" / "aws.yaml"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["prices", *(str(x) for x in arguments)])


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return Path(shutil.copy(CATALOG, tmp_path / "prices.yaml"))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Prices of the three machines of our catalogue, for as many refreshes as there are stubs."""
    made = Aws()
    regions: list[str | None] = []
    monkeypatch.setattr(price_list, "aws_prices", lambda region: regions.append(region) or made.prices)
    made.regions = regions  # type: ignore[attr-defined]
    return made


def today(aws: Aws) -> None:
    for machine, usd in (("m5.2xlarge", "0.4"), ("g5.xlarge", "1.1"), ("inf2.xlarge", "0.8")):
        aws.answers_on_demand(machine, product(usd))
        aws.answers_spot(machine, spot_entry("a", "0.1"), spot_entry("b", "0.2"))


def test_without_refresh_prices_are_shown_and_nobody_is_asked(catalog: Path) -> None:
    text = catalog.read_text()
    found = run("--catalog", catalog)
    assert found.exit_code == 0
    assert "0.7582" in found.output
    assert "inf2.xlarge, spot, guessed" in found.output
    assert catalog.read_text() == text


def test_a_refresh_writes_prices_with_source_and_date(catalog: Path, aws: Aws) -> None:
    today(aws)
    found = run("--catalog", catalog, "--refresh", "--region", "us-east-1", "--json")
    assert found.exit_code == 0, found.output
    rows = {x["name"]: x for x in json.loads(found.output)["worker_types"]}
    assert (rows["cpu"]["was_usd_per_hour"], rows["cpu"]["usd_per_hour"]) == (0.384, 0.4)
    assert rows["gpu-spot"]["usd_per_hour"] == 0.15
    after = read_prices(catalog)
    assert {x.usd_per_hour for x in after.values()} == {0.4, 1.1, 0.8, 0.15}
    assert after["neuron-spot"].source == "inf2.xlarge, spot, median of 2 zones, us-east-1"
    assert all(len(x.date) == len("2026-11-26") for x in after.values())
    assert [x.boot_s for x in after.values()] == [x.boot_s for x in read_prices(CATALOG).values()]
    assert aws.regions == ["us-east-1"]  # type: ignore[attr-defined]


def test_people_see_what_changed(catalog: Path, aws: Aws) -> None:
    today(aws)
    found = run("--catalog", catalog, "--refresh")
    assert "+4.2%" in found.output
    assert "started anew" in found.output


def test_the_cluster_file_says_which_machines_and_where(catalog: Path, aws: Aws) -> None:
    lines = catalog.read_text().splitlines(keepends=True)
    catalog.write_text("".join(x for x in lines if "instance_type" not in x))
    refused = run("--catalog", catalog, "--refresh")
    assert refused.exit_code == 1
    assert "--cluster" in refused.output
    today(aws)
    assert run("--catalog", catalog, "--refresh", "--cluster", CLUSTER).exit_code == 0
    assert read_prices(catalog)["cpu"].usd_per_hour == 0.4
    assert aws.regions == ["us-east-1"]  # type: ignore[attr-defined]


def test_one_that_aws_does_not_know_leaves_all_as_it_was(catalog: Path, aws: Aws) -> None:
    catalog.write_text(catalog.read_text().replace("instance_type: g5.xlarge", "instance_type: g5.tiny"))
    text = catalog.read_text()
    for machine in ("m5.2xlarge", "g5.tiny", "inf2.xlarge"):
        aws.answers_on_demand(machine, *([] if machine == "g5.tiny" else [product("1")]))
        aws.answers_spot(machine, spot_entry("a", "0.1"))
    found = run("--catalog", catalog, "--refresh")
    assert found.exit_code == 1
    assert "'g5.tiny'" in found.output
    assert catalog.read_text() == text


def test_no_catalogue_says_which_there_are(tmp_path: Path) -> None:
    found = run("--home", tmp_path)
    assert found.exit_code == 1
    assert "configs/catalogs/aws.yaml" in found.output


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("worker_types: [{name: a}]")
    assert "memory_gib" in run("--catalog", tmp_path / "x.yaml").output
    (tmp_path / "c.yaml").write_text("available_node_types: 5")
    found = run("--catalog", CATALOG, "--refresh", "--cluster", tmp_path / "c.yaml")
    assert "not a cluster file" in found.output
