"""What tests of several rooms call: the command line in a process, and what a run folder must hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from toolrec.data import Dataset
from toolrec.llm import LLMConfig, OpenAIChat
from toolrec.records import Completion, UserTask
from toolrec.runs.folder import read_rounds, read_users

ROOT = Path(__file__).resolve().parents[1]
Evaluate = Callable[..., Path]


ASK: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
"""A conversation for tests that do not care what is asked."""


async def ask(config: LLMConfig, **how: Any) -> Completion:
    """One call of a client of its own."""
    async with OpenAIChat(config) as llm:
        return await llm.complete(ASK, **how)


def tasks_of(dataset: Dataset, count: int) -> list[UserTask]:
    """The data set's first users."""
    return [
        UserTask(user_index=u, user_id=dataset.user_ids[u], history=tuple(dataset.history(u, "test").tolist()))
        for u in range(1, count + 1)
    ]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def start_cli(*arguments: str, stdout: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, from the checkout; it leads a process group.

    Args:
        stdout: a file for what it says; None for a pipe.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "toolrec", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE if stdout is None else stdout.open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


MARK = "TOOLREC_TEST_MARK"
"""A variable that every process of a command inherits, so that those it leaves behind are found."""


def left_behind(mark: str) -> list[str]:
    """The processes with this mark that are there some time after the command's end; a busy Ray notices a kill late."""
    deadline_s = time.monotonic() + 240
    while (left := _marked(mark)) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return left


def _marked(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:200])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def lists_of(run: Path) -> pd.DataFrame:
    """What must not depend on timing: lists, marks, positions, how it ended."""
    users = read_users(run)
    users["candidates"] = users["candidates"].map(lambda candidates: [tuple(c.values()) for c in candidates])
    for column in ("final_items", "completed_items"):
        users[column] = users[column].map(list)
    return users[["user_index", "user_id", "ended_by", "final_items", "completed_items", "candidates", "num_rounds"]]


def texts_of(run: Path) -> pd.DataFrame:
    """Every message text of every round."""
    return read_rounds(run)[["user_index", "round", "thought", "call", "observation_text", "messages"]]


def same(left: Path, right: Path) -> None:
    """Fails unless two runs hold the same lists and the same texts."""
    assert lists_of(left).to_dict("records") == lists_of(right).to_dict("records")
    assert texts_of(left).to_dict("records") == texts_of(right).to_dict("records")
