"""The provider alone: facts that it tells, with nobody to give orders in return."""

import dataclasses

import numpy as np
import pytest

from infaas_ray.domain import HardwareKind, WorkerType
from infaas_ray.policy.messages import Event, LaunchFailed, WorkerInterrupted, WorkerJoined, WorkerLost
from infaas_ray.simulator.engine import Engine
from infaas_ray.simulator.meter import Meter
from infaas_ray.simulator.settings import WorldSettings
from infaas_ray.simulator.workers import Machine, Provider
from tests.unit.policy.builders import offer
from tests.unit.simulator.worlds import CALM, worker_type


class Story:
    """A provider, and what it tells when."""

    def __init__(self, kind: WorkerType, **changes: object) -> None:
        self.engine = Engine()
        self.told: list[tuple[float, Event]] = []
        self.lost: list[str] = []
        settings: WorldSettings = dataclasses.replace(CALM, **changes)  # type: ignore[arg-type]
        self.meter = Meter([], 0.0, 1000.0, 10)
        self.provider = Provider(
            self.engine,
            settings,
            [kind],
            np.random.default_rng(1),
            self.meter,
            lambda event: self.told.append((self.engine.now, event)),
            lambda machine: self.lost.append(machine.name),
        )
        self.provider.begin()

    def times(self, kind: type[Event]) -> list[float]:
        return [at for at, event in self.told if type(event) is kind]


def test_a_machine_boots_joins_and_is_given_back() -> None:
    story = Story(worker_type(min_workers=0, boot_s=10.0))
    story.engine.at(5.0, lambda _: story.provider.have({"cpu": 2}, lambda name: False))
    story.engine.at(30.0, lambda _: story.provider.release("cpu-1"))
    story.engine.run(40.0)
    assert story.times(WorkerJoined) == [15.0, 15.0]
    assert story.times(WorkerLost) == [30.0]
    assert story.lost == ["cpu-1"]


def test_machines_that_leave_do_not_count_as_there() -> None:
    story = Story(worker_type(min_workers=1))
    story.provider.have({"cpu": 1}, lambda name: name == "cpu-1")
    story.engine.run(40.0)
    assert sorted(story.provider.machines) == ["cpu-1", "cpu-2"]


def test_a_spot_machine_is_taken_away_after_its_notice_and_another_one_never() -> None:
    spot = Story(worker_type(spot=True), interruptions_per_hour=360.0, notice_s=5.0)
    spot.engine.run(1000.0)
    [told], [lost] = spot.times(WorkerInterrupted), spot.times(WorkerLost)
    assert lost == pytest.approx(told + 5.0)
    bought = Story(worker_type(), interruptions_per_hour=360.0)
    bought.engine.run(1000.0)
    assert not bought.times(WorkerInterrupted)


def test_machines_crash_without_notice() -> None:
    story = Story(worker_type(), worker_crashes_per_hour=360.0)
    story.engine.run(1000.0)
    assert len(story.times(WorkerLost)) == 1
    assert not story.times(WorkerInterrupted)


@pytest.mark.parametrize("changes", [{"launch_failures": 1.0}, {"most_workers": {"cpu": 0}}])
def test_launches_fail_and_cost_nothing(changes: dict[str, object]) -> None:
    story = Story(worker_type(min_workers=0), launch_failure_s=3.0, **changes)
    story.provider.have({"cpu": 2}, lambda name: False)
    story.engine.run(40.0)
    assert story.times(LaunchFailed) == [3.0]
    assert not story.provider.machines
    story.meter.machines.end(40.0)
    assert story.meter.machines.hours() == {}


def test_a_launch_that_fails_leaves_the_others_of_its_type() -> None:
    story = Story(worker_type(min_workers=0, boot_s=10.0), launch_failure_s=3.0, most_workers={"cpu": 2})
    story.provider.have({"cpu": 4}, lambda name: False)
    story.engine.run(40.0)
    assert [event.coming for _, event in story.told if isinstance(event, LaunchFailed)] == [2]
    assert story.times(WorkerJoined) == [10.0, 10.0]


def test_a_share_of_a_gpu_goes_to_the_first_device_that_has_it_left() -> None:
    engine = Engine()
    machine = Machine("gpu-1", worker_type("gpu", resources={"CPU": 4.0, "GPU": 2.0}), engine, 0.0)
    small = offer(hardware=HardwareKind.GPU).variant
    pools = [machine.pool_for(str(x), small, 0.5, engine)[0] for x in range(4)]
    assert [machine.devices.index(x) for x in pools] == [0, 0, 1, 1]
