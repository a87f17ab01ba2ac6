"""`infaas plan`: a fleet for a demand, before there is any."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infaas_ray.cli import main
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.plan_book import RunningPlan
from infaas_ray.serving import launch
from infaas_ray.storage.metadata import Metadata
from tests.unit.policy.builders import USE_CASE, catalog, offer, ready, v
from tests.unit.policy.test_plan_book import Turns

PRICES = """
worker_types:
  - {name: cheap, resources: {CPU: 4}, memory_gib: 8, usd_per_hour: 0.4}
  - {name: dear, resources: {CPU: 4}, memory_gib: 8, usd_per_hour: 0.9}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    metadata = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
    offers = [
        offer("small", accuracy=0.7, rate_qps=667),
        offer("large", accuracy=0.9, p99_ms=[(1, 40.0), (8, 160.0)], rate_qps=100),
    ]
    for architecture in catalog(*offers).architectures.values():
        metadata.add_architecture(architecture)
    for x in offers:
        metadata.put_variant(x.variant, x.profile)
    metadata.close()
    (tmp_path / "prices.yaml").write_text(PRICES)
    (tmp_path / "settings.yaml").write_text(f"prices: {{catalog: {tmp_path / 'prices.yaml'}}}")
    return tmp_path


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments, "--home", str(home), "--config", str(home / "settings.yaml")])


def test_the_cheapest_machines_and_why(home: Path) -> None:
    found = run(home, USE_CASE, "--rate", "300", "--slo", "latency_ms=500,min_accuracy=0.9", "--explain")
    assert found.exit_code == 0
    assert "cheap" in found.output
    assert "dear" not in found.output
    assert "large@" in found.output


def test_imported_profiles_are_planned_with_though_they_are_not_offered(home: Path) -> None:
    metadata = Metadata(f"sqlite:///{home / 'metadata.db'}")
    for architecture in ("small", "large"):
        metadata.offer(architecture, set())
    metadata.close()
    found = run(home, USE_CASE, "--rate", "300", "--slo", "latency_ms=500,min_accuracy=0.9")
    assert found.exit_code == 0
    assert "large@" in found.output


def test_queries_of_many_rows_need_more_room(home: Path) -> None:
    asked = USE_CASE, "--rate", "300", "--slo", "latency_ms=120,min_accuracy=0.7", "--json"
    singly, many = (json.loads(run(home, *asked, *rows).output)["because"]["classes"] for rows in ((), ("--rows", "8")))
    assert "8 rows" in many[0]["query_class"]
    assert many[0]["marginal_usd_per_1k"] > singly[0]["marginal_usd_per_1k"]


def test_quotes_say_what_a_looser_slo_would_save(home: Path) -> None:
    found = run(home, "classification", "--rate", "900", "--slo", "min_accuracy=0.71", "--quotes", "--json")
    content = json.loads(found.output)
    assert content["plan"]["workers"]["dear"] == 0
    (quote,) = content["because"]["quotes"]
    assert quote["saves_usd_per_hour"] > 0
    assert "accuracy 0.69" in quote["name"]


def test_a_mixture_shares_the_rate(home: Path) -> None:
    found = run(
        home, USE_CASE, "--rate", "100", "--slo", "latency_ms=100,share=0.25", "--slo", "latency_ms=900", "--json"
    )
    classes = json.loads(found.output)["because"]["classes"]
    assert sorted(x["demand_qps"] for x in classes) == [25.0, 75.0]


def test_who_accepts_less_accuracy_is_planned_for_where_nothing_reaches_it(home: Path) -> None:
    slo = "latency_ms=500,min_accuracy=0.99"
    assert run(home, USE_CASE, "--rate", "50", "--slo", slo).exit_code == 1
    found = run(home, USE_CASE, "--rate", "50", "--slo", f"{slo},on_miss=degrade", "--explain")
    assert "large@" in found.output
    assert "50 rows/s are answered beyond their SLO" in found.output
    assert "as its queries accept" in found.output


@pytest.mark.parametrize(
    ("slo", "could_be"),
    [
        ("latency_ms=0.001", "latency_ms must be above 13, the least latency"),
        ("min_accuracy=0.95", "min_accuracy must be 0.9 at most, the highest"),
        ("max_usd_per_1k=1e-9", "max_usd_per_1k must be "),
        (
            "latency_ms=20,min_accuracy=0.9",
            "with the rest of its SLO, latency_ms must be above 43, the least latency, or min_accuracy must be 0.7",
        ),
        (
            "latency_ms=1,min_accuracy=0.95",
            "latency_ms must be above 13, the least latency, and min_accuracy must be 0.9",
        ),
    ],
)
def test_an_slo_that_no_variant_can_meet_says_what_could_be(home: Path, slo: str, could_be: str) -> None:
    found = run(home, USE_CASE, "--rate", "10", "--slo", slo)
    assert found.exit_code == 1
    assert f"no variant can serve '{USE_CASE}, " in found.output
    assert could_be in found.output


def test_what_could_be_can_be(home: Path) -> None:
    assert run(home, USE_CASE, "--rate", "10", "--slo", "latency_ms=13.01").exit_code == 0
    assert run(home, USE_CASE, "--rate", "10", "--slo", "min_accuracy=0.9").exit_code == 0


def test_classes_that_no_variant_can_serve_are_named_beside_the_plan_for_the_others(home: Path) -> None:
    asked = USE_CASE, "--rate", "100", "--slo", "latency_ms=0.001", "--slo", "latency_ms=500"
    found = run(home, *asked)
    assert found.exit_code == 0
    assert "cheap" in found.output
    assert f"no variant can serve '{USE_CASE}, within 0.001 ms'" in found.output
    content = json.loads(run(home, *asked, "--json").output)
    assert content["impossible"] == [f"{USE_CASE}, within 0.001 ms"]
    assert [x["query_class"] for x in content["because"]["classes"]] == [f"{USE_CASE}, within 500 ms"]


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ((USE_CASE, "--rate", "1", "--slo", "latency=5"), "latency_ms"),
        ((USE_CASE, "--rate", "1", "--slo", "latency_ms=soon"), "is not a number"),
        ((USE_CASE, "--rate", "1", "--slo", "latency_ms=-5"), "above 0"),
        ((USE_CASE, "--rate", "1", "--slo", "on_miss=shrug"), "degrade, late, reject"),
        ((USE_CASE, "--rate", "1", "--slo", "share=0.4"), "must be 1 in all"),
        (("nobody", "--rate", "1"), "small"),
        ((USE_CASE,), "--rate 100"),
        *(((USE_CASE, "--rate", x), "above 0 and at most 1e+09") for x in ("0", "-1", "inf", "nan", "1.1e9")),
        (("--rate", "5"), "infaas plan TARGET"),
    ],
)
def test_bad_input_says_what_would_be_right(home: Path, arguments: tuple[str, ...], right: str) -> None:
    found = run(home, *arguments)
    assert found.exit_code == 1
    assert right in found.output


def followed(monkeypatch: pytest.MonkeyPatch, turns: Turns) -> None:
    """Let the running system be that of these turns."""

    def running(settings: object, others: int = 0) -> RunningPlan:
        return turns.book.running(turns.autoscaler, turns.now, others)

    monkeypatch.setattr(launch, "plan", running)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    turns = Turns()
    followed(monkeypatch, turns)
    return turns


def test_the_plan_that_is_followed(home: Path, turns: Turns) -> None:
    turns.follow()  # made before there was demand
    turns.follow()
    turns.turn(ready(f"{v('a')}#1"))
    found = run(home, "--explain", "--quotes")
    assert found.exit_code == 0, found.output
    assert "rows/s, planned for 0" in found.output, "why it was made"
    assert v("a") in found.output
    assert "within 750 ms" in found.output
    content = json.loads(run(home, "--json").output)
    assert content["plan"]["replicas"] == {v("a"): {"cpu": 1}}
    assert content["ready"] == {v("a"): {"cpu": 1}}
    assert content["workers"] == {"cpu": 1}
    (asked,) = content["because"]["classes"]
    assert asked["query_class"] == "a, within 500 ms, accuracy 0.9", "which is what the only variant has"
    assert asked["demand_qps"] >= 40


def test_before_the_first_plan(home: Path, turns: Turns) -> None:
    found = run(home, "--json")
    assert found.exit_code == 1
    assert "ask again" in json.loads(found.output)["error"]


def test_a_system_that_follows_no_plan_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed(monkeypatch, Turns(ScalingSettings(strategy="individual")))
    found = run(home)
    assert found.exit_code == 1
    assert "Set it to 'planner'" in found.output.replace("\n", " ")


def test_without_a_system(home: Path) -> None:
    assert "infaas up" in run(home).output
