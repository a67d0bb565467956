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

import pytest
from support import MARK, left_behind, same, start_cli
from without_ray import run_without_ray

from toolrec.llm.embedded import EmbeddedServer
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.runs.folder import read_spend, read_users

NUM_USERS = 36
PATIENCE_S = 600.0


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
            time.sleep(0.1)

    def ends(self) -> int:
        """Waits for its end; gives its exit code."""
        self.lines += self.process.communicate(timeout=PATIENCE_S)[0].splitlines(keepends=True)
        return self.process.returncode

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def left_behind(self) -> list[str]:
        return left_behind(self.mark)


Start = Callable[..., Started]


def flags_for(llm: EmbeddedServer) -> list[str]:
    counts = ["--users", str(NUM_USERS), "--concurrency", "9", "--actors", "2", "--attributes", "genre"]
    return ["--llm-url", llm.base_url, "--llm-model", MODEL_NAME, "--no-llm-check", *counts]


@pytest.fixture
def start(demo_folder: Path, demo_recommenders: Path, slow_llm: EmbeddedServer, tmp_path: Path) -> Start:
    def start_run(*flags: str) -> Started:
        run, mark = tmp_path / "run", uuid.uuid4().hex
        where = ["--recommenders", str(demo_recommenders), "--run", str(run), "--resume"]
        process = start_cli("evaluate", str(demo_folder), *where, *flags_for(slow_llm), *flags, **{MARK: mark})
        return Started(run, process, mark)

    return start_run


@pytest.mark.timeout(1800)
def test_signals_end_a_run_of_its_own_ray_cleanly_and_leave_no_process(
    start: Start, demo_folder: Path, demo_recommenders: Path, tmp_path: Path
):
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
    unbroken = run_without_ray(
        demo_folder, demo_recommenders, tmp_path / "unbroken", users=NUM_USERS, **{"tools.attributes": ("genre",)}
    )
    same(started.run, unbroken)
