"""A stand-in for the instance metadata service of EC2, version 2: tokens, and a notice once one is given."""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class MetadataServer:
    """`give_notice` reaches those machines that asked for their token before it."""

    def __init__(self) -> None:
        self._tokens: set[str] = set()
        self._warned: set[str] = set()
        self._notice = ""
        self.asked = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def give_notice(self, within_s: float) -> None:
        when = datetime.now(UTC) + timedelta(seconds=within_s)
        self._notice = json.dumps({"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")})
        self._warned = set(self._tokens)

    def forget_tokens(self) -> None:
        """As if they had expired."""
        self._tokens.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                if self.path != "/latest/api/token" or "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                    self._reply(400, "")
                    return
                token = secrets.token_hex(8)
                service._tokens.add(token)
                self._reply(200, token)

            def do_GET(self) -> None:
                token = self.headers.get("X-aws-ec2-metadata-token")
                service.asked += 1
                if token not in service._tokens:
                    self._reply(401, "")
                elif self.path == "/latest/meta-data/spot/instance-action" and token in service._warned:
                    self._reply(200, service._notice)
                else:
                    self._reply(404, "")

            def _reply(self, status: int, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def metadata_server() -> Iterator[MetadataServer]:
    server = MetadataServer()
    try:
        yield server
    finally:
        server.close()
