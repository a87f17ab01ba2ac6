from pathlib import Path

import pytest

from infaas_ray.config import from_yaml, load_settings
from infaas_ray.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("http: {port: 1111, routers: 2}\nscaling: {slack: 1.5}\n")
    environment = {"INFAAS_HTTP__PORT": "2222", "INFAAS_CLUSTER__NAMESPACE": "other", "HOME": "/x"}
    settings = load_settings(file, {"cluster": {"namespace": "flag"}}, environment)
    assert (settings.http.port, settings.http.routers) == (2222, 2)
    assert settings.cluster.namespace == "flag"
    assert settings.scaling.slack == 1.5
    assert load_settings(None, None, {"INFAAS_CONFIG": str(file)}).http.port == 1111


def test_what_names_the_cache_is_no_setting() -> None:
    assert load_settings(None, None, {"INFAAS_CACHE": "/tmp/cache"}) == load_settings(None, None, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("htp: {}", "htp: there is no such setting"),
        ("http: {prot: 1}", "http.prot"),
        ("http: {port: 0}", "greater than or equal to 1"),
        ("scaling: {slak: 1}", "scaling.slak"),
        ("scaling: {slack: 0.5}", "slack"),
        ("- a", "keys and values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_settings(file, environment={})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml", environment={})


def test_the_default_file_says_what_the_defaults_are() -> None:
    assert load_settings(ROOT / "configs/default.yaml", environment={}) == load_settings(environment={})


def test_the_default_file_names_every_setting() -> None:
    defaults = load_settings(environment={}).model_dump(exclude={"home"})
    listed = from_yaml((ROOT / "configs/default.yaml").read_text())
    assert {name: set(section) for name, section in listed.items()} == {
        name: set(section) for name, section in defaults.items()
    }


def test_the_price_catalogue_gives_worker_types() -> None:
    catalog = ROOT / "configs/catalogs/aws.yaml"
    types = load_settings(flags={"prices": {"catalog": str(catalog)}}, environment={}).worker_types()
    assert types["cpu"].usd_per_hour > 0
    assert types["neuron"].resources["neuron_cores"] == 2
    assert load_settings(environment={}).worker_types() == {}


def test_a_wrong_price_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("worker_types: [{name: m, resources: {CPU: 1}, memory_gib: 1, usd_per_hour: -1}]")
    with pytest.raises(ConfigError, match="usd_per_hour"):
        load_settings(flags={"prices": {"catalog": str(file)}}, environment={}).worker_types()


def test_paths_hold_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(flags={"home": "h", "prices": {"catalog": "c.yaml"}}, environment={})
    assert (settings.home, settings.prices.catalog) == (tmp_path / "h", tmp_path / "c.yaml")
