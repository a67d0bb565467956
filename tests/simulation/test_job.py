"""`ray job submit` on a real head node with token authentication, on loopback."""

from __future__ import annotations

import contextlib
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

import psutil
import pytest
import requests
from support import ROOT, summary_of

from toolrec.connect import BUSY_MACHINE, free_ports
from toolrec.data import load_dataset

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(1200)

RAY = """
from ray.scripts.scripts import main
from toolrec.connect import patient_start
with patient_start():
    main()
"""
"""The command `ray`, which waits longer for its node: another process's tests start Rays at the same time."""


@dataclass(frozen=True, kw_only=True)
class HeadNode:
    """A running head node: its job server's address and the environment with the token."""

    address: str
    gcs_address: str
    environment: dict[str, str]
    process: subprocess.Popen
    folder: Path

    def last_words(self) -> str:
        """Whether the node still runs, and what its processes said last: for the message of a test that failed."""
        logs = self.folder / "session_latest" / "logs"
        names = ("raylet.out", "raylet.err", "gcs_server.out", "dashboard_agent.log", "dashboard.log")
        files = [file for file in (self.folder / "log", *(logs / name for name in names)) if file.is_file()]
        state = "runs" if self.process.poll() is None else f"ended with {self.process.returncode}"
        return "\n".join([f"the node {state}", *(f"--- {f.name}\n{f.read_text(errors='replace')[-2000:]}" for f in files)])


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[HeadNode]]:
    """The head nodes that this file's tests have started; the last one is in use."""
    started: list[HeadNode] = []
    yield started
    for node in started:
        end(node)


@pytest.fixture
def head(nodes: list[HeadNode]) -> HeadNode:
    """A head node that takes jobs: the one in use, or a new one where that has died."""
    if not nodes or nodes[-1].process.poll() is not None:
        nodes.append(start_head())
        wait_for_jobs(nodes[-1])
    return nodes[-1]


def start_head() -> HeadNode:
    gcs, dashboard, client = free_ports(3)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        **BUSY_MACHINE,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    environment.pop("PYTHONPATH", None)
    # Sockets lie below it, and the path of a socket has at most 107 bytes: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="r"))
    flags = {
        "--port": gcs,
        "--dashboard-port": dashboard,
        "--ray-client-server-port": client,
        "--dashboard-agent-listen-port": 0,  # any: a node whose agent finds its port taken ends itself
        "--node-ip-address": "127.0.0.1",
        "--dashboard-host": "127.0.0.1",
        "--num-cpus": 4,
        "--object-store-memory": 200 * 1024**2,
        "--include-dashboard": "true",
        "--temp-dir": folder,
    }
    command = [sys.executable, "-c", RAY, "start", "--head", "--block", *(str(part) for flag in flags.items() for part in flag)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    return HeadNode(
        address=f"http://127.0.0.1:{dashboard}",
        gcs_address=f"127.0.0.1:{gcs}",
        environment=environment,
        process=process,
        folder=folder,
    )


def end(node: HeadNode) -> None:
    """Ends a node with all of its processes; `ray start` alone takes half a minute for it."""
    process = node.process
    family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family[1:], timeout=3)
    for member in (*alive, *family[:1]):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(timeout=120)
    shutil.rmtree(node.folder, ignore_errors=True)


def wait_for_jobs(node: HeadNode) -> None:
    """Waits until the node takes jobs: its job server answers before the agent that starts them is there."""
    deadline_s = time.monotonic() + 300
    headers = {"Authorization": f"Bearer {node.environment['RAY_AUTH_TOKEN']}"}
    while True:
        assert node.process.poll() is None and time.monotonic() < deadline_s, node.last_words()
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            first = requests.post(f"{node.address}/api/jobs/", json={"entrypoint": "true"}, headers=headers, timeout=60)
            if first.ok:
                return
        time.sleep(0.5)


def submit(head: HeadNode, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`toolrec submit` from the checkout; the token is in the environment, unless another one is given."""
    return run(head, "-m", "toolrec", "submit", "--address", head.address, *command, **environment)


def run(head: HeadNode, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in {**head.environment, **environment}.items() if value}
    call = [sys.executable, *arguments]
    return subprocess.run(call, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=900, check=False)


def said(done: subprocess.CompletedProcess[str], head: HeadNode) -> str:
    return f"{done.stdout[-4000:]}{done.stderr[-2000:]}\n{head.last_words()}"


def test_from_raw_data_to_figures_by_jobs(head: HeadNode, tmp_path: Path):
    data, recommenders, out = (tmp_path / name for name in ("data", "recommenders", "run"))
    prepare = ["data", "prepare", "demo", "--users", "60", "--items", "120", "--seed", "3", "--out", str(data)]
    train = ["train", str(data), "--out", str(recommenders), "--epochs", "1", "--attributes", "genre", "--no-fusions"]
    # Tools on Serve across nodes are tested in `tests/cluster/test_nodes.py`.
    evaluate = ["evaluate", str(data), "--recommenders", str(recommenders), "--run", str(out), "--tools", "local"]
    for command in (prepare, train, evaluate):
        done = submit(head, *command)
        assert done.returncode == 0, said(done, head)
    assert f"on the cluster: {out}" in done.stderr
    assert "run folder:" in done.stdout, "the job's log is followed to its end"
    assert "joining Ray" in done.stdout and "starting Ray" not in done.stdout
    assert summary_of(out)["counts"]["users"] == 60
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["dataset_checksum"] == load_dataset(data).checksum
    assert head.environment["RAY_AUTH_TOKEN"] not in json.dumps(manifest) + done.stdout + done.stderr


def test_a_job_that_fails_ends_with_its_exit_code_and_its_last_lines(head: HeadNode, tmp_path: Path):
    paths = ["--run", str(tmp_path / "run"), "--recommenders", str(tmp_path / "recommenders")]
    done = submit(head, "evaluate", str(tmp_path / "nothing"), *paths)
    assert done.returncode == 2, said(done, head)
    assert f"error: no such data set folder; got: {tmp_path / 'nothing'}" in done.stdout
    assert "the job ended with exit code 2" in done.stderr


def test_rays_own_command_takes_the_runtime_environment(head: HeadNode):
    job = [str(BIN / "ray"), "job", "submit", "--address", head.address, "--working-dir", "."]
    job += ["--runtime-env", "cluster/runtime-env.yaml", "--", "python", "-m", "toolrec", "evaluate", "/nowhere/demo"]
    done = subprocess.run(job, cwd=ROOT, env=head.environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode != 0
    assert "a submitted job needs absolute paths" in done.stdout + done.stderr, said(done, head)
    assert "give a path that every node sees as --recommenders" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"RAY_AUTH_TOKEN": secrets.token_hex(32)}, "the cluster refuses this token"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "disabled"}, "the cluster asks for a token"),
    ],
)
def test_without_the_token_nothing_is_sent(environment: dict[str, str], sentence: str, head: HeadNode, tmp_path: Path):
    command = ["evaluate", "/shared/data", "--run", "/shared/run", "--recommenders", "/shared/recommenders"]
    done = submit(head, *command, HOME=str(tmp_path), **environment)
    assert done.returncode == 2, said(done, head)
    [line] = done.stderr.splitlines()
    assert sentence in line and "RAY_AUTH_TOKEN" in line


def test_a_driver_without_the_token_does_not_join(head: HeadNode, demo_folder: Path, demo_recommenders: Path, tmp_path: Path):
    flags = ["--recommenders", str(demo_recommenders), "--run", str(tmp_path / "run"), "--address", head.gcs_address]
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "HOME": str(tmp_path)}
    done = run(head, "-m", "toolrec", "evaluate", str(demo_folder), *flags, **token)
    assert done.returncode == 2, said(done, head)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "RAY_AUTH_TOKEN" in line and head.gcs_address in line
    assert not (tmp_path / "run").exists()
