"""One evaluation that several tests look at, and the way to make more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Evaluate

from toolrec.cli import run_command
from toolrec.llm.embedded import EmbeddedOptions, EmbeddedServer, run_in_thread


@pytest.fixture(scope="session")
def evaluate(
    shared_application: str, demo_folder: Path, demo_recommenders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Evaluate:
    """Runs `toolrec evaluate` on the small demo with further flags; gives the run folder.

    Unless the flags say otherwise, the tools are those of the shared application and there is one actor.
    """
    cheapest = ["--tools", f"attach:{shared_application}", "--actors", "1"]

    def run(
        *flags: str,
        run_folder: Path | None = None,
        expect: int = 0,
        dataset: Path = demo_folder,
        recommenders: Path = demo_recommenders,
    ) -> Path:
        folder = run_folder or tmp_path_factory.mktemp("runs") / "run"
        command = ["evaluate", str(dataset), "--recommenders", str(recommenders), "--run", str(folder), *cheapest, *flags]
        assert run_command(command) == expect
        return folder

    return run


@pytest.fixture(scope="session")
def everyone(evaluate: Evaluate) -> Path:
    """The run of all users with an application of its own, and several actors."""
    return evaluate("--tools", "deploy", "--actors", "3")


@pytest.fixture
def slow_llm() -> Iterator[EmbeddedServer]:
    """The embedded rules behind a delay, so that something can happen in the middle of a run."""
    server = run_in_thread(EmbeddedOptions(latency_s=0.25))
    yield server
    server.stop()
