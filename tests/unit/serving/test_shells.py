import asyncio
from dataclasses import dataclass, field

import pytest

from infaas_ray.serving.shells import Shells


@dataclass
class Maker:
    """Shells are numbers; one is prepared, fails or ends when a test says so."""

    made: list[str] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    prepared: dict[int, "asyncio.Future[None]"] = field(default_factory=dict)
    ends: dict[int, asyncio.Event] = field(default_factory=dict)

    def make(self, worker: str) -> int:
        self.made.append(worker)
        return len(self.made) - 1

    async def prepare(self, shell: int) -> None:
        self.prepared[shell] = asyncio.get_running_loop().create_future()
        await self.prepared[shell]

    async def gone(self, shell: int) -> None:
        self.ends[shell] = asyncio.Event()
        await self.ends[shell].wait()

    def end(self, shell: int) -> None:
        self.ended.append(shell)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def maker() -> Maker:
    return Maker()


async def filled(maker: Maker, count: int = 1) -> Shells:
    """With `count` shells on worker a."""
    shells = Shells(count, maker)
    for number in range(count):
        shells.tend({"a": True}, 0.0)
        await settle()
        maker.prepared[number].set_result(None)
        await settle()
    assert shells.count("a") == count
    return shells


async def test_one_at_a_time_is_made_until_there_are_enough(maker: Maker) -> None:
    shells = Shells(2, maker)
    for made in (1, 1, 1):  # while the first is not ready
        shells.tend({"a": True}, 0.0)
        await settle()
        assert len(maker.made) == made
    maker.prepared[0].set_result(None)
    await settle()
    shells.tend({"a": True}, 0.0)
    await settle()
    maker.prepared[1].set_result(None)
    await settle()
    shells.tend({"a": True}, 0.0)
    await settle()
    assert maker.made == ["a", "a"]
    assert shells.count("a") == 2


async def test_none_is_made_on_a_busy_worker_or_where_none_is_wanted(maker: Maker) -> None:
    shells = Shells(1, maker)
    shells.tend({"a": False}, 0.0)
    Shells(0, maker).tend({"a": True}, 0.0)
    await settle()
    assert maker.made == []


async def test_a_shell_is_taken_once_and_replaced(maker: Maker) -> None:
    shells = await filled(maker)
    assert shells.take("b") is None
    assert shells.take("a") == 0
    assert shells.take("a") is None
    shells.tend({"a": True}, 0.0)
    await settle()
    assert maker.made == ["a", "a"]


async def test_a_worker_that_leaves_keeps_none(maker: Maker) -> None:
    shells = await filled(maker)
    shells.tend({}, 0.0)
    assert maker.ended == [0]
    assert shells.take("a") is None


@pytest.mark.parametrize("prepared", [True, False])
async def test_one_that_is_not_ready_when_its_worker_leaves_is_ended_at_once(maker: Maker, prepared: bool) -> None:
    shells = Shells(1, maker)
    shells.tend({"a": True}, 0.0)
    await settle()
    shells.tend({}, 0.0)
    assert maker.ended == [0]
    if prepared:
        maker.prepared[0].set_result(None)
    else:
        maker.prepared[0].set_exception(OSError("it has ended"))
    await settle()
    assert maker.ended == [0]
    assert shells.count("a") == 0


async def test_after_a_failure_there_is_a_pause(maker: Maker) -> None:
    shells = Shells(1, maker)
    shells.tend({"a": True}, 0.0)
    await settle()
    maker.prepared[0].set_exception(OSError("no memory"))
    await settle()
    assert maker.ended == [0]
    shells.tend({"a": True}, 29.0)
    await settle()
    assert len(maker.made) == 1
    shells.tend({"a": True}, 31.0)
    await settle()
    assert len(maker.made) == 2


async def test_one_that_dies_is_never_given_out(maker: Maker) -> None:
    shells = await filled(maker)
    maker.ends[0].set()
    await settle()
    assert shells.take("a") is None


async def test_the_end_of_a_replica_that_was_a_shell_is_not_ours(maker: Maker) -> None:
    shells = await filled(maker, 2)
    assert shells.take("a") == 0
    maker.ends[0].set()
    await settle()
    assert shells.count("a") == 1


async def test_those_of_a_former_controller_are_kept_up_to_the_number(maker: Maker) -> None:
    shells = Shells(1, maker)
    shells.adopt("a", 7)
    shells.adopt("a", 8)
    assert maker.ended == [8]
    assert shells.take("a") == 7
    await settle()


async def test_at_the_end_none_is_left(maker: Maker) -> None:
    shells = await filled(maker)
    shells.tend({"a": True, "b": True}, 0.0)
    await settle()
    shells.end()
    assert maker.made == ["a", "b"]
    assert maker.ended == [0, 1]


async def test_where_none_can_be_made_there_is_a_pause_too(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(worker: str) -> int:
        maker.made.append(worker)
        raise ValueError("the name is taken")

    monkeypatch.setattr(maker, "make", refuse)
    shells = Shells(1, maker)
    for now in (0.0, 29.0, 31.0):
        shells.tend({"a": True}, now)
    assert maker.made == ["a", "a"]
