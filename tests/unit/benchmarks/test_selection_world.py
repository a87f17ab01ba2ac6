from collections import Counter

from benchmarks.selection.__main__ import decide_all
from benchmarks.selection.world import make_world
from infaas_ray.domain import Level
from infaas_ray.policy.selection import SelectionIndex


def test_a_world_has_the_size_asked_for() -> None:
    world = make_world(1000, 100, asks=50)
    assert len(world.table.catalog.offers) == 1000
    assert len(world.table.replicas) == len(world.loads) == 100
    assert len(world.asks) == 50


def test_the_same_seed_gives_the_same_world() -> None:
    assert make_world(100, 10, asks=30, seed=4) == make_world(100, 10, asks=30, seed=4)
    assert make_world(100, 10, asks=30, seed=4) != make_world(100, 10, asks=30, seed=5)


def test_queries_name_targets_of_every_level_that_exist() -> None:
    world = make_world(1000, 100, asks=500)
    known = world.table.catalog.targets()
    levels: Counter[Level] = Counter()
    for ask in world.asks:
        assert ask.target in known
        levels[Level.USE_CASE if ":" in ask.target else Level.VARIANT if "@" in ask.target else Level.ARCHITECTURE] += 1
    assert min(levels[x] for x in Level) > 50


def test_most_decisions_dispatch_and_some_do_not() -> None:
    world = make_world(1000, 100, asks=2000)
    times, ways = decide_all(world, SelectionIndex(world.table))
    assert len(times) == 2000
    assert times == sorted(times)
    assert ways["Dispatch"] > 0.8 * 2000
    assert ways["Reject"] > 0
    assert ways["Load"] > 0
