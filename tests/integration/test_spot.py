"""The notice of a spot machine's end, asked from a service like EC2's over HTTP."""

import asyncio

from infaas_ray.serving.spot import watch
from tests.integration.conftest import free_port
from tests.integration.metadata_server import metadata_server


async def _told(url: str, during: list[object]) -> tuple[bool, list[float]]:
    told: list[float] = []

    async def tell(within_s: float) -> None:
        told.append(within_s)

    task = asyncio.create_task(watch(url, tell, period_s=0.02))
    for step in during:
        await asyncio.sleep(0.1)
        step()  # type: ignore[operator]
    return await asyncio.wait_for(task, 10), told


async def test_the_notice_is_told_once_with_the_seconds_left() -> None:
    with metadata_server() as server:
        found, told = await _told(server.url, [lambda: server.give_notice(120)])
        assert found
        assert len(told) == 1
        assert 115 < told[0] <= 120
        assert server.asked > 1


async def test_an_expired_token_is_renewed() -> None:
    with metadata_server() as server:

        def expire() -> None:
            server.forget_tokens()

        async def later() -> None:
            await asyncio.sleep(0.3)
            server.give_notice(60)

        notice = asyncio.create_task(later())
        found, told = await _told(server.url, [expire])
        await notice
        assert found
        assert len(told) == 1


async def test_a_machine_without_the_service_is_not_watched() -> None:
    assert await _told(f"http://127.0.0.1:{free_port()}", []) == (False, [])


async def test_a_notice_whose_time_has_passed_leaves_no_time() -> None:
    with metadata_server() as server:
        found, told = await _told(server.url, [lambda: server.give_notice(-5)])
        assert (found, told) == (True, [0.0])
