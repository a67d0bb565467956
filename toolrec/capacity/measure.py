"""Measures what a user costs: a real run with a Ray of its own and deployed tools, whose processes are watched from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from toolrec.capacity.costs import DRIVER, GOVERNOR, KINDS, MEMORY, REST, SIMULATION, TOOLS, Costs
from toolrec.capacity.processes import Watched
from toolrec.errors import RunFailedError
from toolrec.runs.folder import read_users
from toolrec.runs.rows import sum_of_usage

SAMPLE_S = 0.5
CONCURRENCY = 256

_TITLES = {
    "ray::Simulation": SIMULATION,
    "ray::ServeReplica": TOOLS,
    "ray::SharedMemory": MEMORY,
    "ray::FlowGovernor": GOVERNOR,
}
_ENDPOINT = "ray::EmbeddedEndpoint"


def measure(dataset: Path, recommenders: Path | None = None, *, num_users: int) -> Costs:
    """Runs `toolrec evaluate` over some users with the embedded rules as the LLM, and watches it.

    What the embedded endpoint takes is left out: a real one runs elsewhere.

    Args:
        dataset: data set folder.
        recommenders: their folder; None for recommenders/NAME.
        num_users: users to simulate, at most those of the data set.

    Raises:
        RunFailedError: the run did not end well.
    """
    with tempfile.TemporaryDirectory(prefix="toolrec-measure-") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "toolrec", "evaluate", str(dataset), "--run", str(run), "--users", str(num_users)]
        command += ["--concurrency", str(CONCURRENCY), "--tools", "deploy"]
        if recommenders is not None:
            command += ["--recommenders", str(recommenders)]
        # The endpoint is the embedded one, whatever the environment names.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOOLREC_LLM_")}
        begun_s = time.time()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        watched = Watched(process.pid, memory_every=4)
        try:
            while process.poll() is None:
                watched.sample()
                time.sleep(SAMPLE_S)
        finally:
            process.terminate()
            process.wait()
        if process.returncode != 0:
            raise RunFailedError("the measured run failed; its own message is above", value=f"exit code {process.returncode}")
        ended_s = time.time()
        size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
        return costs_of(read_users(run), watched, begun_s=begun_s, ended_s=ended_s, run_bytes=size, source=_source(dataset))


def costs_of(users: pd.DataFrame, watched: Watched, *, begun_s: float, ended_s: float, run_bytes: int, source: str) -> Costs:
    """The means of a run from its users and its watched processes; times are seconds since the epoch."""
    first_s, last_s = float(users["started_s"].min()), float(users["ended_s"].max())
    cpu_s = dict.fromkeys(KINDS, 0.0)
    for name, seconds in watched.cpu_between(first_s, last_s).items():
        if not name.startswith(_ENDPOINT):
            cpu_s[kind_of(name)] += seconds / len(users)
    sizes: dict[str, list[int]] = {kind: [] for kind in KINDS}
    deployments = set()
    for name, of_name in watched.peak_bytes_by_name().items():
        if not name.startswith(_ENDPOINT):
            sizes[kind_of(name)] += of_name
        if name.startswith("ray::ServeReplica") and not name.endswith((":ingress", ":rank")):
            deployments.add(name)
    # Of Ray and Serve there is a set of processes, not one of a kind.
    process_bytes = {kind: float(sum(of) if kind == REST else sum(of) / max(1, len(of))) for kind, of in sizes.items()}
    return Costs(
        source=source,
        cpu_s=cpu_s,
        process_bytes=process_bytes,
        disk_bytes=run_bytes / len(users),
        start_s=first_s - begun_s,
        scoring_s=(ended_s - last_s) / len(users),
        num_deployments=max(1, len(deployments)),
        **_requests_and_tokens(users),
    )


def with_requests_of(costs: Costs, users: pd.DataFrame) -> Costs:
    """The same costs with the requests, tool calls and tokens of another run's users."""
    return replace(costs, **_requests_and_tokens(users))


def _requests_and_tokens(users: pd.DataFrame) -> dict[str, Any]:
    total = sum_of_usage(part for row in users["usage"] for part in row)
    return {
        "requests": total.num_calls / len(users),
        "tool_calls": float(users["num_tool_calls"].mean()),
        "prompt_tokens": (total.prompt_tokens + total.saved_prompt_tokens) / len(users),
        "completion_tokens": (total.completion_tokens + total.saved_completion_tokens) / len(users),
    }


def kind_of(name: str) -> str:
    """The kind of a process, from its name as `processes.readable` gives it."""
    for title, kind in _TITLES.items():
        if name.startswith(title):
            return kind
    return DRIVER if name.endswith("-m toolrec") else REST


def _source(dataset: Path) -> str:
    return f"{dataset.name}, embedded rules, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}"
