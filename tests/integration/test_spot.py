"""The notice of a spot machine's end, asked from a service like EC2's over HTTP."""

import asyncio
from collections.abc import Callable

from infaas_ray.serving.spot import watch
from tests.integration.conftest import free_port
from tests.integration.metadata_server import metadata_server


async def _told(url: str, steps: list[Callable[[], None]], asked: Callable[[], int] = int) -> tuple[bool, list[float]]:
    """What is told while each step is taken after the service was asked twice more, as `asked` counts."""
    told: list[float] = []

    async def tell(within_s: float) -> None:
        told.append(within_s)

    task = asyncio.create_task(watch(url, tell, period_s=0.02))
    for step in steps:
        twice = asked() + 2  # the first may be refused for an old token
        for _ in range(3000):
            if asked() >= twice:
                break
            await asyncio.sleep(0.01)
        step()
    return await asyncio.wait_for(task, 30), told


async def test_the_notice_is_told_once_with_the_seconds_left() -> None:
    with metadata_server() as server:
        found, told = await _told(server.url, [lambda: server.give_notice(120)], lambda: server.asked)
        assert found
        assert len(told) == 1
        assert 115 < told[0] <= 120
        assert server.asked > 1


async def test_an_expired_token_is_renewed() -> None:
    with metadata_server() as server:
        steps = [server.forget_tokens, lambda: server.give_notice(60)]
        found, told = await _told(server.url, steps, lambda: server.asked)
        assert found
        assert len(told) == 1


async def test_a_machine_without_the_service_is_not_watched() -> None:
    assert await _told(f"http://127.0.0.1:{free_port()}", []) == (False, [])


async def test_a_notice_whose_time_has_passed_leaves_no_time() -> None:
    with metadata_server() as server:
        found, told = await _told(server.url, [lambda: server.give_notice(-5)], lambda: server.asked)
        assert (found, told) == (True, [0.0])
