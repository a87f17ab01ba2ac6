"""Talks to the load generator's process, and ends it."""

import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import msgspec

from benchmarks.serving.load import Job, Outcome


class MeasurementFailed(Exception):
    """The server under test could not be measured."""


class Generator:
    """The process; use it with `with`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.serving.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def measure(self, job: Job) -> Outcome:
        """Do one job; returns when it is done. Raises MeasurementFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise MeasurementFailed(f"the load generator ended with code {self._process.wait()}")
        if line.startswith(b'{"error"'):
            raise MeasurementFailed(msgspec.json.decode(line)["error"])
        return msgspec.json.decode(line, type=Outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def http_request(host: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole POST request; JSON unless the headers say otherwise."""
    all_headers = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in all_headers.items())]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
