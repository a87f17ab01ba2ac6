"""No machine or variant is swapped back and forth: demand on the border between two machines, in the simulator."""

from pathlib import Path

import pytest
import yaml

from infaas_ray.policy.messages import RequestWorkers, StartReplica
from infaas_ray.policy.replay import decode_turn
from infaas_ray.simulator.report import result_of
from infaas_ray.simulator.scenario import read_scenario

CATALOGUE = Path(__file__).parents[2] / "configs" / "catalogs" / "infaas-2021.yaml"
FROM_S, UNTIL_S = 300.0, 3900.0  # one hour
NETWORKS = "image-classification:imagenet"


def stream(rate_qps: float, latency_ms: float, accuracy: float) -> dict[str, object]:
    """A flat rate of clustered arrivals."""
    return {
        "rates": {"shape": "flat", "rate_qps": rate_qps, "duration_s": UNTIL_S},
        "arrivals": {"process": "gamma", "variation": 2},
        "queries": [{"target": NETWORKS, "latency_ms": latency_ms, "min_accuracy": accuracy}],
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_flat_noisy_demand_swaps_no_machines_back_and_forth(tmp_path: Path, seed: int) -> None:
    """The cheaper machine carries the mean and not all of the noise.

    Where every plan is followed at once, machines boot 20 to 30 times in this hour, and 50 to 60 replicas start.
    """
    content = {
        "catalogue": str(CATALOGUE),
        "duration_s": UNTIL_S,
        "warmup_s": FROM_S,
        "workload": [stream(30, 150, 0.74), stream(12, 300, 0.76)],
    }
    path = tmp_path / "border.yaml"
    path.write_text(yaml.safe_dump(content))
    lines: list[bytes] = []
    world = read_scenario(path).make("planner", seed, lines.append)
    world.run()
    turns = [x for x in map(decode_turn, lines[1:]) if x.now >= FROM_S]
    boots = [x for turn in turns for x in turn.actions if isinstance(x, RequestWorkers) and "fewer" not in x.because]
    starts = [x for turn in turns for x in turn.actions if isinstance(x, StartReplica) and "planned" in x.because]
    found = result_of(world, "planner", seed)
    assert found.met > 0.995 * found.arrived
    assert len(boots) <= 10
    assert len(starts) <= 40
