"""A run of its own Ray is asked to stop, or killed, again and again: nothing is lost, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from support import Evaluate, same, start_cli

from toolrec.llm.embedded import EmbeddedServer
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.simulation.run_folder import read_spend, read_users

NUM_USERS = 36
PATIENCE_S = 280.0
MARK = "TOOLREC_TEST_MARK"


@dataclass
class Started:
    """A run in a process of its own; every process that it starts inherits its mark."""

    run: Path
    process: subprocess.Popen[str]
    mark: str
    lines: list[str] = field(default_factory=list)

    def says(self, words: str) -> None:
        """Waits until it has said something."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError("".join(self.lines))

    def has_finished(self, num_users: int) -> None:
        """Waits until so many users are committed."""
        self.until(lambda: len(list((self.run / "users").glob("*.parquet"))) > 0 and len(read_users(self.run)) >= num_users)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.process.kill()
                raise AssertionError("".join(self.lines) + self.process.communicate()[0])
            time.sleep(0.02)

    def ends(self) -> int:
        """Waits for its end; gives its exit code."""
        self.lines += self.process.communicate(timeout=PATIENCE_S)[0].splitlines(keepends=True)
        return self.process.returncode

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def left_behind(self) -> list[str]:
        """The processes that are left of it some seconds after its end."""
        deadline_s = time.monotonic() + 20
        while (left := self._processes()) and time.monotonic() < deadline_s:
            time.sleep(0.2)
        return left

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


Start = Callable[..., Started]


def flags_for(llm: EmbeddedServer) -> list[str]:
    counts = ["--users", str(NUM_USERS), "--concurrency", "9", "--actors", "2"]
    return ["--llm-url", llm.base_url, "--llm-model", MODEL_NAME, "--no-llm-check", *counts]


@pytest.fixture
def start(demo_folder: Path, demo_recommenders: Path, slow_llm: EmbeddedServer, tmp_path: Path) -> Start:
    def start_run(*flags: str) -> Started:
        run, mark = tmp_path / "run", uuid.uuid4().hex
        where = ["--recommenders", str(demo_recommenders), "--run", str(run), "--resume"]
        process = start_cli("evaluate", str(demo_folder), *where, *flags_for(slow_llm), *flags, **{MARK: mark})
        return Started(run, process, mark)

    return start_run


@pytest.fixture
def unbroken(evaluate: Evaluate, slow_llm: EmbeddedServer) -> Path:
    return evaluate(*flags_for(slow_llm), "--tools", "local")


@pytest.mark.timeout(900)
def test_signals_end_a_run_of_its_own_ray_cleanly_and_leave_no_process(start: Start, unbroken: Path):
    # Ctrl-C on a terminal reaches every process of the group.
    started = start("--tools", "local")
    started.has_finished(1)
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.ends() == 130, started.said
    assert "Traceback" not in started.said
    assert f"--run {started.run} --resume goes on" in started.said
    assert started.left_behind() == []
    finished = len(read_users(started.run))
    assert 0 < finished < NUM_USERS
    assert f"{finished} of {NUM_USERS} users are done" in started.said
    # Those in flight have spent something, and that is known.
    assert {entry["user_index"] for entry in read_spend(started.run)} > set(read_users(started.run)["user_index"])

    # A scheduler's SIGTERM reaches the process alone.
    started = start("--tools", "deploy")
    started.has_finished(finished + 1)
    os.kill(started.process.pid, signal.SIGTERM)
    assert started.ends() == 130, started.said
    assert "Traceback" not in started.said
    assert started.left_behind() == []

    # The second one ends it at once.
    started = start("--tools", "local")
    started.says("simulating")
    os.kill(started.process.pid, signal.SIGINT)
    started.says("stopping")
    time.sleep(0.6)  # an echo of the first would be taken for it
    os.kill(started.process.pid, signal.SIGINT)
    assert started.ends() == 130, started.said
    assert started.left_behind() == []

    # Killed, it leaves nothing either.
    started = start("--tools", "local")
    started.says("simulating")
    os.kill(started.process.pid, signal.SIGKILL)
    assert started.ends() == -signal.SIGKILL
    assert started.left_behind() == []

    started = start("--tools", "local")
    assert started.ends() == 0, started.said
    assert started.left_behind() == []
    same(started.run, unbroken)
