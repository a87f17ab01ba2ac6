"""When machines that only save money come."""

from infaas_ray.policy.planner.problem import Plan
from infaas_ray.policy.scaling.patience import Patience

STAY = Plan(workers={"cheap": 0, "dear": 1}, forgone_usd_per_hour=0.36)  # 0.0001 a second
SWAP = Plan(workers={"cheap": 1, "dear": 0})
BACK = Plan(workers={"cheap": 0, "dear": 1})
HAD = {"cheap": 0, "dear": 1}
HAS = {"cheap": 1, "dear": 0}


def swapped(patience: Patience, at: float, back_at: float) -> None:
    """Save for 100 s up to `at`, swap, and have demand undo it."""
    for second in range(0, 101, 10):
        patience.note(STAY if second else BACK, HAD, at - 100 + second)
    patience.note(SWAP, HAD, at)
    patience.note(SWAP, HAS, at + 30)
    patience.note(BACK, HAS, back_at)


def saved(patience: Patience, now: float) -> float:
    """What is saved in ten seconds from now on."""
    patience.note(BACK, HAD, now)
    patience.note(STAY, HAD, now + 10)
    return patience.saved_usd


def test_what_other_machines_would_save_adds_up() -> None:
    patience = Patience()
    patience.note(BACK, HAD, 100.0)
    for now in (110.0, 120.0):
        patience.note(STAY, HAD, now)
    assert abs(patience.saved_usd - 0.002) < 1e-9


def test_it_begins_anew_where_they_would_save_nothing() -> None:
    patience = Patience()
    patience.note(STAY, HAD, 10.0)
    patience.note(BACK, HAD, 20.0)
    assert patience.saved_usd == 0.0


def test_no_more_counts_than_the_time_between_plans() -> None:
    patience = Patience()
    patience.note(STAY, HAD, 1e6)
    assert patience.saved_usd <= 0.0031


def test_a_swap_that_demand_undoes_soon_makes_the_next_wait_longer() -> None:
    patience = Patience()
    swapped(patience, at=200.0, back_at=250.0)
    assert abs(saved(patience, 300.0) - 0.0005) < 2e-5


def test_a_swap_saves_nothing_before_the_old_machines_are_gone() -> None:
    patience = Patience()
    for now in range(100, 201, 10):
        patience.note(STAY if now > 100 else BACK, HAD, now)
    patience.note(SWAP, HAD, 200.0)
    for now in range(210, 600, 10):
        patience.note(SWAP, {"cheap": 1, "dear": 1}, now)
    patience.note(BACK, HAS, 600.0)
    assert abs(saved(patience, 700.0) - 0.0005) < 2e-5


def test_a_swap_that_paid_makes_the_next_come_sooner() -> None:
    patience = Patience()
    swapped(patience, at=200.0, back_at=500.0)
    assert abs(saved(patience, 600.0) - 0.002) < 1e-4


def test_other_machines_that_demand_needs_tell_nothing_of_a_swap() -> None:
    patience = Patience()
    patience.note(BACK, HAD, 100.0)
    patience.note(STAY, HAD, 120.0)
    patience.note(SWAP, HAD, 130.0)
    patience.note(Plan(workers={"cheap": 2, "dear": 0}), HAS, 140.0)
    assert abs(saved(patience, 200.0) - 0.001) < 1e-9


def test_a_machine_that_is_lost_is_no_swap_undone() -> None:
    patience = Patience()
    patience.note(BACK, HAD, 100.0)
    patience.note(STAY, {"cheap": 0, "dear": 2}, 120.0)
    swap = Plan(workers={"cheap": 1, "dear": 1})
    patience.note(swap, {"cheap": 0, "dear": 2}, 130.0)
    patience.note(swap, {"cheap": 1, "dear": 1}, 140.0)
    patience.note(swap, {"cheap": 1, "dear": 0}, 150.0)
    assert abs(saved(patience, 200.0) - 0.001) < 1e-9


def test_what_was_learned_is_forgotten() -> None:
    patience = Patience()
    swapped(patience, at=200.0, back_at=250.0)
    assert abs(saved(patience, 250.0 + 10 * 3600) - 0.001) < 1e-5
