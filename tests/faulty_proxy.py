"""A proxy before an HTTP server that delays, refuses and cuts off what a test says."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = int | float | str | None
"""An HTTP status, seconds of delay, `truncated`, or nothing."""

CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}


class FaultyProxy(ThreadingHTTPServer):
    """Made by `faulty_proxy`; `fault` is asked with the method and the path of each request."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = host, port
        self.fault: Callable[[str, str], Fault] = lambda method, path: None
        self.num_faults = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, self.path)
        self.server.num_faults += fault is not None
        if isinstance(fault, int):
            body = f"<Error><Code>{CODES[fault]}</Code><Message>{CODES[fault]} of the test</Message></Error>".encode()
            self._answer(fault, [("Content-Type", "application/xml")], body)
            return
        if isinstance(fault, float):
            time.sleep(fault)
        connection = http.client.HTTPConnection(*self.server.behind, timeout=60)
        connection.request(self.command, self.path, body=body, headers=dict(self.headers))
        response = connection.getresponse()
        content = response.read()
        headers = [
            (name, value) for name, value in response.getheaders() if name.lower() not in ("transfer-encoding", "connection")
        ]
        connection.close()
        self._answer(response.status, headers, content, is_truncated=fault == "truncated")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, is_truncated: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if is_truncated else content)
        if is_truncated:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def faulty_proxy(host: str, port: int) -> Iterator[FaultyProxy]:
    """The proxy for as long as the block runs."""
    proxy = FaultyProxy(host, port)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
