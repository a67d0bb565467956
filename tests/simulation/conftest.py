"""One evaluation that several tests look at, and the way to make more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Evaluate

from toolrec.cli import run_command
from toolrec.llm.embedded import EmbeddedOptions, EmbeddedServer, run_in_thread


@pytest.fixture(scope="session")
def evaluate(local_ray: None, demo_folder: Path, demo_recommenders: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Runs `toolrec evaluate` on the small demo with further flags; gives the run folder."""

    def run(*flags: str, run_folder: Path | None = None, expect: int = 0, recommenders: Path = demo_recommenders) -> Path:
        folder = run_folder or tmp_path_factory.mktemp("runs") / "run"
        command = ["evaluate", str(demo_folder), "--recommenders", str(recommenders), "--run", str(folder), *flags]
        assert run_command(command) == expect
        return folder

    return run


@pytest.fixture(scope="session")
def everyone(evaluate: Evaluate) -> Path:
    """The run of all users with the defaults."""
    return evaluate()


@pytest.fixture
def slow_llm() -> Iterator[EmbeddedServer]:
    """The embedded rules behind a delay, so that something can happen in the middle of a run."""
    server = run_in_thread(EmbeddedOptions(latency_s=0.25))
    yield server
    server.stop()
