"""`ray job submit` on a real head node with token authentication, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from support import ROOT, summary_of

from toolrec.connect import free_port
from toolrec.data import Dataset

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(420)


@dataclass(frozen=True, kw_only=True)
class HeadNode:
    """A running head node: its job server's address and the environment with the token."""

    address: str
    environment: dict[str, str]


def distinct_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadNode]:
    gcs, dashboard, client, agent_http, agent_grpc = distinct_ports(5)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    environment.pop("PYTHONPATH", None)
    # Sockets lie below it, and the path of a socket has at most 107 bytes: pytest's own folders are too deep.
    short_folder = tempfile.mkdtemp(prefix="r")
    flags = {
        "--port": gcs,
        "--dashboard-port": dashboard,
        "--ray-client-server-port": client,
        "--dashboard-agent-listen-port": agent_http,
        "--dashboard-agent-grpc-port": agent_grpc,
        "--node-ip-address": "127.0.0.1",
        "--dashboard-host": "127.0.0.1",
        "--num-cpus": 4,
        "--object-store-memory": 200 * 1024**2,
        "--include-dashboard": "true",
        "--temp-dir": short_folder,
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", *(str(part) for flag in flags.items() for part in flag)]
    log = (tmp_path_factory.mktemp("head") / "log").open("w+")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(address, environment["RAY_AUTH_TOKEN"], process, log.name)
        yield HeadNode(address=address, environment=environment)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
        shutil.rmtree(short_folder, ignore_errors=True)


def wait_for(address: str, token: str, process: subprocess.Popen, log: str) -> None:
    deadline_s = time.monotonic() + 90
    while True:
        assert process.poll() is None and time.monotonic() < deadline_s, Path(log).read_text()[-3000:]
        try:
            response = requests.get(f"{address}/api/version", headers={"Authorization": f"Bearer {token}"}, timeout=5)
            if response.ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.5)


def submit(head: HeadNode, *command: str, without_token: bool = False) -> subprocess.CompletedProcess[str]:
    environment = dict(head.environment)
    if without_token:
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    job = [str(BIN / "ray"), "job", "submit", "--address", head.address, "--working-dir", ".", "--", *command]
    return subprocess.run(job, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_a_submitted_evaluation_ends_with_its_run_folder(
    head: HeadNode, demo: Dataset, demo_folder: Path, demo_recommenders: Path, tmp_path: Path
):
    run = tmp_path / "run"
    flags = ["--recommenders", str(demo_recommenders), "--run", str(run), "--users", "60"]
    done = submit(head, "python", "-m", "toolrec", "evaluate", str(demo_folder), *flags)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert summary_of(run)["counts"]["users"] == 60
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["settings"]["dataset_checksum"] == demo.checksum
    assert head.environment["RAY_AUTH_TOKEN"] not in json.dumps(manifest)


def test_relative_paths_are_refused_in_a_job(head: HeadNode):
    done = submit(head, "python", "-m", "toolrec", "evaluate", "data/demo")
    assert done.returncode != 0
    assert "a submitted job needs absolute paths" in done.stdout + done.stderr


def test_a_wrong_token_submits_nothing(head: HeadNode):
    done = submit(head, "python", "-c", "print('ran')", without_token=True)
    assert done.returncode != 0
    assert "ran\n" not in done.stdout
