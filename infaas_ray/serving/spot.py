"""The notice that a spot machine is about to be taken away, from the instance metadata of EC2.

EC2 announces an interruption two minutes ahead under `spot/instance-action`, 404 until then; its guide says to look
every 5 seconds. Version 2 of the service wants a session token first. Source: "Spot Instance interruption notices",
Amazon EC2 User Guide.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
import msgspec

PERIOD_S = 5.0
_ATTEMPTS = 3
_TOKEN_S = 21600
_TIMEOUT_S = 2.0


class Notice(msgspec.Struct, frozen=True):
    """What is about to happen (terminate, stop, hibernate), and when."""

    action: str
    time: datetime

    def within_s(self, now: datetime) -> float:
        """Seconds left, never negative."""
        when = self.time if self.time.tzinfo is not None else self.time.replace(tzinfo=UTC)
        return max(0.0, (when - now).total_seconds())


class Metadata:
    """The metadata service at a base URL, such as http://169.254.169.254."""

    def __init__(self, base_url: str) -> None:
        # trust_env: a proxy of the environment must not come between a machine and itself.
        self._http = httpx.AsyncClient(base_url=base_url, timeout=_TIMEOUT_S, trust_env=False)
        self._token = ""

    async def notice(self) -> Notice | None:
        """The notice, or None where there is none. Raises httpx.HTTPError where the service does not answer."""
        if not self._token:
            await self._renew_token()
        reply = await self._get()
        if reply.status_code == httpx.codes.UNAUTHORIZED:  # the token has expired
            await self._renew_token()
            reply = await self._get()
        if reply.status_code == httpx.codes.NOT_FOUND:
            return None
        reply.raise_for_status()
        try:
            return msgspec.json.decode(reply.content, type=Notice)
        except msgspec.MsgspecError as error:
            raise httpx.DecodingError(f"this is not a notice: {error}") from None

    async def _get(self) -> httpx.Response:
        headers = {"X-aws-ec2-metadata-token": self._token}
        return await self._http.get("/latest/meta-data/spot/instance-action", headers=headers)

    async def _renew_token(self) -> None:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
        reply = await self._http.put("/latest/api/token", headers=headers)
        reply.raise_for_status()
        self._token = reply.text

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def watch(base_url: str, tell: Callable[[float], Awaitable[None]], period_s: float = PERIOD_S) -> bool:
    """Look until a notice comes and `tell` the seconds left; then True.

    False where no such service answers at the beginning: this is no machine of EC2. One that falls silent later is
    asked on.
    """
    metadata = Metadata(base_url)
    try:
        failures, answered = 0, False
        while True:
            try:
                notice = await metadata.notice()
                answered = True
            except httpx.HTTPError:
                notice, failures = None, failures + 1
                if not answered and failures >= _ATTEMPTS:
                    return False
            if notice is not None:
                await tell(notice.within_s(datetime.now(UTC)))
                return True
            await asyncio.sleep(period_s)
    finally:
        await metadata.close()
