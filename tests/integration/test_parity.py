"""One workload file, run live and simulated: the same arrivals, every query accounted for, and a log that replays.

How closely the two agree on times is what `make bench-live` measures; here nothing is timed.
"""

import numpy as np
import pytest

from benchmarks.live.open_system import LiveRun, arrivals, run_live
from infaas_ray.config import Settings, load_settings
from infaas_ray.domain import UseCase
from infaas_ray.policy.replay import replay
from infaas_ray.serving import launch
from infaas_ray.simulator.report import result_of
from infaas_ray.simulator.scenario import Scenario, read_scenario
from tests.integration.conftest import add_fake, free_port, wait_for

USE_CASE = UseCase(task="agree", dataset="numbers")
SEED = 7
IMPOSSIBLE_S = 0.005
CATALOGUE = """
profiles:
  - home: .
    worker_types: [this-machine]
"""
SCENARIO = """
catalogue: catalogue.yaml
duration_s: 6
workload:
  rates: {shape: fluctuating, low_qps: 20, high_qps: 60, period_s: 4, duration_s: 6}
  queries:
    - target: "agree:numbers"
      classes:
        - {share: 3, latency_ms: 400}
        - {share: 2, latency_ms: 800, min_accuracy: 0.95}
        - {share: 1, latency_ms: 5, min_accuracy: 0.95}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two registered models, and beside them the scenario that is about them."""
    folder = tmp_path_factory.mktemp("parity")
    settings = load_settings(
        flags={"home": folder, "http": {"port": free_port()}, "cluster": {"cpus": 2}}, environment={}
    )
    add_fake(settings, "rough", accuracy=0.8, row_s=0.002, use_case=USE_CASE, folder=folder)
    add_fake(settings, "fine", accuracy=0.99, row_s=0.01, use_case=USE_CASE, folder=folder)
    (folder / "catalogue.yaml").write_text(CATALOGUE)
    (folder / "scenario.yaml").write_text(SCENARIO)
    return settings


@pytest.fixture(scope="module")
def scenario(home: Settings) -> Scenario:
    return read_scenario(home.home / "scenario.yaml")


@pytest.fixture(scope="module")
def live(home: Settings, scenario: Scenario) -> tuple[LiveRun, dict[str, int], list[bytes]]:
    """The live run, the system's own counts, and its decision log after its end."""
    x = {"x": np.zeros((1, 4), np.float32)}
    launch.up(home)
    try:
        with launch.open_system(home) as system:
            run = run_live(system, scenario.workload, lambda kind: x, seed=SEED, duration_s=scenario.duration_s)
        # Counts are those of the routers' last reports: of the end once as many have left as came.
        wait_for(
            lambda: sum(n for fate, n in launch.status(home)["queries"].items() if fate != "accepted") == run.arrived
        )
        counts = launch.status(home)["queries"]
        assert counts["accepted"] == run.arrived
    finally:
        launch.down(home)
    return run, counts, (home.home / "decisions.jsonl").read_bytes().splitlines(keepends=True)


def test_the_same_queries_arrive_and_each_has_one_fate(
    scenario: Scenario, live: tuple[LiveRun, dict[str, int], list[bytes]]
) -> None:
    run, counts, _ = live
    (strategy,) = scenario.strategies  # the default, as live
    world = scenario.make(strategy, SEED)
    world.run()
    simulated = result_of(world, strategy, SEED)
    assert run.arrived == simulated.arrived == len(arrivals(scenario.workload, SEED, scenario.duration_s)) > 100
    assert simulated.answered + simulated.refused + simulated.expired == simulated.arrived
    assert run.fates.total() == run.arrived
    assert counts["answered"] == len(run.latencies_s)
    assert counts["rejected"] == run.fates["refused"]
    assert counts.get("expired", 0) == run.fates["expired"]
    assert run.fates["failed"] == 0
    # What nobody can do is refused on both sides, what is easy is done on both.
    impossible = sum(x.arrived for x in simulated.kinds if x.latency_s == IMPOSSIBLE_S)
    assert min(run.fates["refused"], simulated.refused) >= impossible > 0
    assert min(run.fates["met"], simulated.met) > 0
    assert {x.partition("@")[0] for x in run.by_variant} == {"rough", "fine"}
    assert set(simulated.answered_by) == set(run.by_variant)


def test_both_logs_replay(scenario: Scenario, live: tuple[LiveRun, dict[str, int], list[bytes]]) -> None:
    simulated: list[bytes] = []
    (strategy,) = scenario.strategies
    scenario.make(strategy, SEED, simulated.append).run()
    for log in (live[2], simulated):
        assert len(log) > 10
        assert replay(log) is None
