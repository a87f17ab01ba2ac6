"""The Python client over HTTP: NumPy in, NumPy out, the SLO as keywords, errors as exceptions.

with Client("127.0.0.1:8000") as client:
    result = client.infer("digit-classification:digits", {"image": image}, latency_ms=20, min_accuracy=0.95)
    result.outputs["logits"], result.variant
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from infaas_ray.domain import Array
from infaas_ray.errors import (
    DeadlineExceeded,
    InfaasError,
    InvalidInput,
    NotRunning,
    PayloadTooLarge,
    Unavailable,
    UnknownTarget,
    Unsatisfiable,
    VariantFailed,
)
from infaas_ray.protocol import JSON_LENGTH_HEADER, decode_response, encode_request

_BY_STATUS: dict[int, type[InfaasError]] = {
    400: InvalidInput,
    404: UnknownTarget,
    413: PayloadTooLarge,
    500: VariantFailed,
    504: DeadlineExceeded,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a query came back with. Times in milliseconds; the price is that of 1,000 such rows in US dollars."""

    outputs: Mapping[str, Array]
    variant: str
    replica: str
    accuracy: float
    usd_per_1k: float
    queue_ms: float
    compute_ms: float
    latency_ms: float
    batch_rows: int
    slo_met: bool


class Client:
    """A client of one system. Thread-safe; keeps its connections open until closed.

    `url` may leave out `http://`. `timeout_s` bounds one request, connection included. With `retries`, a query
    refused for lack of capacity is asked again after the time that the server names. `application` says whose the
    queries are, for the accounts, where a query does not say otherwise.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, timeout_s: float = 60.0, retries: int = 0, application: str = ""
    ) -> None:
        self.url = url if "://" in url else f"http://{url}"
        self._retries = retries
        self._application = application
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s)

    def infer(
        self,
        target: str,
        inputs: Mapping[str, Array],
        *,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
        on_miss: str | None = None,
        offline: bool = False,
        application: str | None = None,
        query_id: str | None = None,
    ) -> Result:
        """Ask `target` (a use case, an architecture or a variant); raises the errors of `infaas_ray.errors`."""
        parameters = _parameters(latency_ms, min_accuracy, max_usd_per_1k, on_miss)
        if offline:
            parameters["offline"] = True
        if whose := self._application if application is None else application:
            parameters["application"] = whose
        body, json_bytes = encode_request(inputs, parameters, query_id or uuid.uuid4().hex)
        for attempt in range(self._retries + 1):
            try:
                response = self._post(f"{_path(target)}/infer", body, {JSON_LENGTH_HEADER: str(json_bytes)})
            except Unavailable as error:
                if attempt == self._retries:
                    raise
                time.sleep(error.retry_after_s)
            else:
                head, outputs = decode_response(response.content, response.headers.get(JSON_LENGTH_HEADER))
                return Result(outputs=outputs, **head["parameters"])
        raise AssertionError("the last attempt returns or raises")

    def explain(
        self,
        target: str,
        *,
        rows: int = 1,
        latency_ms: float | None = None,
        min_accuracy: float | None = None,
        max_usd_per_1k: float | None = None,
    ) -> list[dict[str, Any]]:
        """Every candidate for such a query now, and why it would win or lose."""
        content = {"parameters": _parameters(latency_ms, min_accuracy, max_usd_per_1k, None), "rows": rows}
        found: list[dict[str, Any]] = self._checked(
            self._send("POST", f"{_path(target)}/explain", json=content)
        ).json()["candidates"]
        return found

    def metadata(self, target: str) -> dict[str, Any]:
        """Inputs and outputs of a target."""
        found: dict[str, Any] = self._checked(self._send("GET", _path(target))).json()
        return found

    def targets(self) -> list[dict[str, str]]:
        """Everything a query can name, and whether a replica is ready for it."""
        found: list[dict[str, str]] = self._checked(self._send("POST", "/v2/repository/index")).json()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        return self._checked(self._send("POST", path, content=body, headers=dict(headers)))

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **request)
        except httpx.TimeoutException:
            raise DeadlineExceeded(f"{self.url} did not answer within the client's time limit") from None
        except httpx.HTTPError as error:
            raise NotRunning(
                f"nothing answers at {self.url} ({error}); is the system up? see 'infaas status'"
            ) from None

    @staticmethod
    def _checked(response: httpx.Response) -> httpx.Response:
        if response.status_code == 200:
            return response
        raise _error_of(response)


def _path(target: str) -> str:
    return f"/v2/models/{quote(target, safe='')}"


def _parameters(
    latency_ms: float | None, min_accuracy: float | None, max_usd_per_1k: float | None, on_miss: str | None
) -> dict[str, Any]:
    given = {
        "latency_ms": latency_ms,
        "min_accuracy": min_accuracy,
        "max_usd_per_1k": max_usd_per_1k,
        "on_miss": on_miss,
    }
    return {name: value for name, value in given.items() if value is not None}


def _error_of(response: httpx.Response) -> InfaasError:
    """The exception that an answer other than 200 stands for."""
    try:
        content = response.json()
        message = str(content["error"])
    except (ValueError, KeyError, TypeError):
        return InfaasError(f"the server answered {response.status_code}: {response.text[:200]}")
    if response.status_code == 422:
        return Unsatisfiable(message, content.get("reasons"), content.get("nearest"))
    if response.status_code == 503:
        return Unavailable(message, float(content.get("retry_after_s", 1.0)), content.get("reasons"))
    return _BY_STATUS.get(response.status_code, InfaasError)(message)
