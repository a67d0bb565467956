"""A key reaches no file, log or output: what searches this session finds what there is, and no endpoint gets a key stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from key_marker import MARKER, VARIABLES, files_with
from support import ROOT, start_cli

from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.app import answer
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.runs.folder import read_rounds, read_users

LEAKS = (
    "(tmp_path / 'a.txt').write_text(key)",
    "(tmp_path / key).mkdir()",
    "pandas.DataFrame({'text': [key] * 1000}).to_parquet(tmp_path / 'a.parquet', compression='zstd')",
    "(pathlib.Path(os.environ['RAY_TMPDIR']) / 'a.log').write_text(f'x {key} y')",
    "print(key)",
    "sys.stderr.write(key)",
    "raise ValueError(key)",
)


def test_a_session_that_leaves_the_key_anywhere_fails_and_names_each_place(tmp_path: Path):
    process = inner_session(tmp_path, LEAKS)
    assert process.returncode == 1, process.stdout
    assert process.stdout.count("KEY FOUND in ") == len(LEAKS), process.stdout


def test_a_session_that_leaves_it_nowhere_passes(tmp_path: Path):
    process = inner_session(tmp_path, ["(tmp_path / 'a.txt').write_text(str(len(key)))"])
    assert process.returncode == 0, process.stdout
    assert "KEY FOUND" not in process.stdout


def inner_session(folder: Path, statements: Any) -> subprocess.CompletedProcess[str]:
    """A session of its own under the same hooks, with a marker of its own: this one's must not be found here."""
    lines = ["import os, pathlib, sys, pandas"]
    for number, statement in enumerate(statements):
        lines += [f"def test_{number}(tmp_path):", "    key = os.environ['OPENAI_API_KEY']", f"    {statement}"]
    test = folder / "test_inner.py"
    test.write_text("\n".join(lines))
    flags = ["-p", "key_marker", "-p", "no:cacheprovider", "-q", f"--basetemp={folder / 'inner'}", f"--rootdir={folder}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *flags, str(test)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "TOOLREC_TEST_MARKER": "sk-inner-0123456789abcdef"},
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_the_variables_hold_the_marker_and_parquet_is_looked_into(tmp_path: Path):
    assert all(os.environ[name] == MARKER for name in VARIABLES)
    pd.DataFrame({"text": ["another-marker"] * 1000}).to_parquet(tmp_path / "a.parquet", compression="zstd")
    assert b"another-marker" * 2 not in (tmp_path / "a.parquet").read_bytes()
    assert list(files_with("another-marker", [tmp_path])) == [tmp_path / "a.parquet"]


class Parrot(BaseHTTPRequestHandler):
    """The embedded rules behind an endpoint that says the key back: in errors, and in every part of its replies."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self._send(500, {"error": {"message": self._heard}})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.num_requests += 1
        if self.server.is_broken:
            self._send(400, {"error": {"message": "x" * 280 + self._heard, "code": self._heard, "param": self._heard}})
        elif self.server.num_requests % 9 == 0:
            self._send(500, f"<html>{'x' * 490}{self._heard}</html>")
        else:
            self._send(200, self._reply(request))

    @property
    def _heard(self) -> str:
        return f"you sent {self.headers['authorization']}"

    def _reply(self, request: Any) -> Any:
        completion = answer(request, EmbeddedOptions())
        message = completion["choices"][0]["message"]
        if message.get("tool_calls"):
            message["content"] = self._heard
            message["tool_calls"][0]["id"] = self._heard
            if self.server.num_requests % 7 == 0:
                message["tool_calls"][0]["function"]["name"] = self._heard
            elif self.server.num_requests % 5 == 0:
                message["tool_calls"][0]["function"]["arguments"] = json.dumps({"attribute": self._heard, "k": 3})
        message["reasoning_content"] = self._heard
        completion["choices"][0]["finish_reason"] = self._heard
        completion["model"] = self._heard
        return completion

    def _send(self, status: int, body: Any) -> None:
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.send_header("x-heard", self._heard)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def parrot() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    server.num_requests, server.is_broken = 0, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("is_broken", [False, True])
def test_an_endpoint_that_says_the_key_back_gets_it_stored_nowhere(
    parrot: Any, is_broken: bool, demo_folder: Path, demo_recommenders: Path, ray_address: str, tmp_path: Path
):
    parrot.is_broken = is_broken
    url = f"http://127.0.0.1:{parrot.server_address[1]}/v1"
    command = [
        "--verbose",
        "evaluate",
        str(demo_folder),
        "--recommenders",
        str(demo_recommenders),
        "--run",
        str(tmp_path / "run"),
    ]
    command += [
        "--llm-url",
        url,
        "--llm-model",
        MODEL_NAME,
        "--users",
        "6",
        "--tools",
        "local",
        "--actors",
        "1",
        "--address",
        ray_address,
        "--no-llm-check",
    ]
    process = start_cli(*command)
    said, _ = process.communicate(timeout=800)
    assert process.returncode == (3 if is_broken else 0), said
    assert MARKER not in said
    assert parrot.num_requests >= 6
    if is_broken:
        assert "you sent Bear" in said
    else:
        texts = str(read_users(tmp_path / "run").to_dict()) + str(read_rounds(tmp_path / "run").to_dict())
        assert "you sent Bearer ***" in texts
    assert list(files_with(MARKER, [tmp_path, Path(os.environ["RAY_TMPDIR"])])) == []
