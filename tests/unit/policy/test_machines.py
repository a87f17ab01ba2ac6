"""The books of machines: what is asked for, what came, and what cannot be had."""

import pytest

from infaas_ray.policy.machines import FIRST_BLOCK_S, Machines
from tests.unit.policy.builders import worker_type

CPU = worker_type("cpu", boot_s=30.0)


def test_a_launch_that_fails_ends_what_is_not_known_to_start() -> None:
    machines = Machines()
    machines.want("cpu", 5, 0.0)
    machines.failed("cpu", "no capacity", 1.0, coming=3)
    assert machines.booting("cpu") == 3
    assert machines.take_failed() == {"cpu": "no capacity"}
    assert machines.blocks.reason("cpu", 1.0 + FIRST_BLOCK_S / 2) is not None
    machines.failed("cpu", "no capacity", 2.0)
    assert machines.booting("cpu") == 0


def test_launches_that_were_asked_for_together_and_fail_one_by_one_count_once() -> None:
    machines = Machines()
    machines.want("cpu", 5, 0.0)
    for left in (4, 3, 2, 1, 0):
        machines.failed("cpu", "no capacity", 5.0 - left, coming=left)
    assert machines.blocks.reason("cpu", 5.0 + FIRST_BLOCK_S) is None
    machines.want("cpu", 1, 40.0)
    machines.failed("cpu", "no capacity", 41.0)
    assert machines.blocks.reason("cpu", 41.0 + 1.5 * FIRST_BLOCK_S) is not None


def test_more_than_was_asked_for_does_not_come() -> None:
    machines = Machines()
    machines.failed("cpu", "a launch of somebody else's", 0.0, coming=4)
    assert (machines.booting("cpu"), machines.take_failed()) == (0, {})
    machines.want("cpu", 1, 0.0)
    machines.failed("cpu", "no capacity", 1.0, coming=4)
    assert machines.booting("cpu") == 1


@pytest.mark.parametrize(("at", "left"), [(80.0, 5), (100.0, 3), (200.0, 0)])
def test_only_what_is_overdue_is_given_up(at: float, left: int) -> None:
    machines = Machines()
    machines.want("cpu", 2, 0.0)
    machines.want("cpu", 5, 60.0)
    machines.give_up_overdue({"cpu": CPU}, at)
    assert machines.booting("cpu") == left
    assert bool(machines.take_failed()) == (left < 5)
