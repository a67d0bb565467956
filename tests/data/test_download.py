from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import Result

from toolrec.data.sources.download import Download, fetch
from toolrec.data.sources.registry import REGISTRY
from toolrec.errors import DataError

CONTENT = bytes(range(256)) * 1200
GOOD = Download(file_name="good.zip", md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())


class Handler(BaseHTTPRequestHandler):
    requests: list[str]
    ranges: list[str | None]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        name = self.path.rsplit("/", 1)[-1]
        if name == "absent.zip":
            self.send_error(404)
            return
        if name == "good.zip" and wanted is not None:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:])
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if name == "truncated.zip" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server on loopback: its base URL, and the paths asked for so far."""
    requests: list[str] = []
    handler = type("OwnHandler", (Handler,), {"requests": requests, "ranges": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/base", requests
        http.shutdown()
        thread.join()


def test_good_file_is_fetched_once(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, requests = server
    for _ in range(2):
        path = fetch(GOOD, base_url=url + "/", cache=tmp_path / "cache")
        assert path.read_bytes() == CONTENT
    assert requests == ["/base/good.zip"]


def test_damaged_cache_is_fetched_again(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, requests = server
    fetch(GOOD, base_url=url, cache=tmp_path).write_bytes(b"damaged")
    assert fetch(GOOD, base_url=url, cache=tmp_path).read_bytes() == CONTENT
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.zip", "another checksum than published"),
        ("absent.zip", "the server answers 404"),
    ],
)
def test_bad_downloads_leave_nothing_behind(server: tuple[str, list[str]], tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        fetch(Download(file_name=name, md5="0" * 32), base_url=server[0], cache=tmp_path / "cache")
    assert f"get {server[0]}/{name} by hand and give it with --source" in str(raised.value)
    assert not list(tmp_path.rglob("*.zip*"))


def test_broken_download_goes_on_where_it_stopped(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, requests = server
    with pytest.raises(DataError, match="the connection broke off; the next try goes on"):
        fetch(Download(file_name="truncated.zip", md5=GOOD.md5), base_url=url, cache=tmp_path)
    part = tmp_path / "truncated.zip.part"
    assert CONTENT.startswith(part.read_bytes()) and part.stat().st_size and not (tmp_path / "truncated.zip").exists()
    part.rename(tmp_path / "good.zip.part")
    assert fetch(GOOD, base_url=url, cache=tmp_path).read_bytes() == CONTENT
    assert [child.name for child in tmp_path.iterdir()] == ["good.zip"] and len(requests) == 2


def test_no_network_fails_quickly(tmp_path: Path) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started_s = time.monotonic()
    with pytest.raises(DataError, match="no connection to the server"):
        fetch(GOOD, base_url=f"http://127.0.0.1:{port}", cache=tmp_path)
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if entry.download is not None and entry.download.md5])
def test_prepare_downloads_movielens(
    cli: Callable[..., Result], server: tuple[str, list[str]], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command asks the mirror for the right file, and refuses content that is not what GroupLens publishes."""
    monkeypatch.setenv("TOOLREC_CACHE", str(tmp_path / "cache"))
    result = cli("prepare", name, "--out", tmp_path / "out", "--mirror", server[0])
    assert isinstance(result.exception, DataError) and "another checksum" in str(result.exception)
    assert server[1] == [f"/base/{name}.zip"]
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*.zip*"))
