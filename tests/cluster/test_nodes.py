"""Runs on a real Ray of several nodes, whose nodes come, die and come back in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import ROOT, same, start_cli

from toolrec.llm.embedded import EmbeddedOptions, EmbeddedServer, run_in_thread
from toolrec.runs.folder import read_users

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


class Cluster:
    """`python -m cluster.local`, told what to do through its standard input."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "cluster.local", "--workers", "0"]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        environment.pop("RAY_ADDRESS", None)
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.address = self._line().removeprefix("address ")

    def tell(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._line()

    def stop(self) -> None:
        try:
            self._process.communicate("stop\n", timeout=240)
        finally:
            self._process.kill()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster ended"
        return line


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node of 0 CPUs, as KubeRay's is, and no worker node yet."""
    running = Cluster()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def slow_endpoint() -> Iterator[EmbeddedServer]:
    server = run_in_thread(EmbeddedOptions(latency_s=0.1))
    yield server
    server.stop()


@pytest.fixture
def flags(demo_folder: Path, demo_recommenders: Path, slow_endpoint: EmbeddedServer) -> list[str]:
    llm = ["--llm-url", slow_endpoint.base_url, "--llm-model", "toolrec-rules-1", "--no-llm-check"]
    size = ["--attributes", "genre", "--concurrency", "12"]
    return [str(demo_folder), "--recommenders", str(demo_recommenders), *llm, *size]


def until(happened: Callable[[], bool], run: subprocess.Popen[str], log: Path, timeout_s: float = 400.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not happened():
        assert run.poll() is None and time.monotonic() < deadline_s, log.read_text()[-4000:]
        time.sleep(0.1)


def test_a_cluster_without_a_cpu_is_told_and_the_run_stops_resumably(cluster: Cluster, flags: list[str], tmp_path: Path):
    run = start_cli("evaluate", *flags, "--run", str(tmp_path / "run"), "--address", cluster.address, "--resource-timeout-s", "2")
    output, _ = run.communicate(timeout=600)
    assert run.returncode == 3, output
    [error] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "the tools did not start within 2 s: no replica yet of" in error
    assert "backbone" in error and "no node has a CPU" in error and "--resume" in error
    assert not (tmp_path / "run").exists(), "nothing was simulated"


def test_a_run_waits_for_nodes_loses_all_of_them_and_grows_onto_new_ones(cluster: Cluster, flags: list[str], tmp_path: Path):
    folder, log = tmp_path / "run", tmp_path / "log"
    run = start_cli("evaluate", *flags, "--run", str(folder), "--address", cluster.address, stdout=log)

    until(lambda: "tools: no replica yet of" in log.read_text(), run, log)
    assert "no node has a CPU" in log.read_text()
    first = cluster.tell("add 1").removeprefix("added ")
    until(lambda: len(read_users(folder)) >= 20 if folder.exists() else False, run, log)
    done_on_first = len(read_users(folder))
    cluster.tell(f"kill {first}")
    until(lambda: "no simulation actor is left" in log.read_text(), run, log)
    cluster.tell("add 1")
    cluster.tell("add 1")
    run.wait(timeout=600)

    assert run.returncode == 0, log.read_text()[-4000:]
    users = read_users(folder)
    assert sorted(users["user_index"]) == list(range(1, 151)), "nobody is lost or doubled"
    assert (users["ended_by"] == "finish").all()
    assert done_on_first < 150 and users["attempt"].max() > 1, "users were lost in the middle and went on"

    alone = tmp_path / "alone"
    once = start_cli("evaluate", *flags, "--run", str(alone), "--tools", "local", "--num-cpus", "2")
    output, _ = once.communicate(timeout=600)
    assert once.returncode == 0, output
    same(alone, folder)
