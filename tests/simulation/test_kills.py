"""Processes of every kind are killed at several moments: the users and their lists are those of the unbroken run.

`make test` kills one of each kind in a single run; `make test-all` also kills each kind by itself, actors three times and
Serve's processes, which take long to start, once; and pairs of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from support import lists_of, tasks_of, texts_of

from toolrec.data import Dataset
from toolrec.llm import LLMConfig
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.recommenders import recommenders_manifest
from toolrec.runs.folder import RunFolder, read_rounds, read_spend, read_users
from toolrec.simulation.actor_pool import ActorPool
from toolrec.simulation.actors import SimulationSpec
from toolrec.simulation.config import SimulationConfig, ToolsSettings
from toolrec.simulation.driver import Driver
from toolrec.simulation.monitor.live import RunWatch
from toolrec.simulation.tool_deployment import ToolsRequest, tools_for
from toolrec.surrogate import SurrogateConfig
from toolrec.tools.remote import ServedTools

NUM_USERS = 36
CONCURRENCY = 12
EARLY, MIDDLE, LATE = 0, 14, 33
"""Users that are finished when a process is killed."""
TITLES = {
    "tool replica": "ray::ServeReplica:kills:",
    "Serve controller": "ray::ServeController",
    "Serve proxy": "ray::ProxyActor",
    "simulation actor": "ray::Simulation",
    "memory actor": "ray::SharedMemory",
    "governor": "ray::FlowGovernor",
    "endpoint actor": "ray::EmbeddedEndpoint",
}
"""How the processes of each kind begin their titles."""
OF_SERVE = ("tool replica", "Serve controller", "Serve proxy")


Blow = tuple[int, tuple[str, ...]]
"""How many users have ended when processes are killed, and their kinds."""

PAIRS = [("simulation actor", "memory actor"), ("tool replica", "endpoint actor"), ("Serve controller", "tool replica")]


def processes(kind: str) -> list[psutil.Process]:
    """The processes of a kind that run in this session's Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(TITLES[kind]):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def kill(kind: str) -> list[psutil.Process]:
    """Kills one process of a kind, and all of them where they are tool replicas: one may stand idle."""
    found = processes(kind)
    deadline_s = time.monotonic() + 240
    while not found and time.monotonic() < deadline_s:  # the one before was killed a moment ago
        time.sleep(0.1)
        found = processes(kind)
    assert found, f"no process to kill: {kind}"
    killed = found if kind == "tool replica" else found[:1]
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    return killed


class Strikes(RunWatch):
    """Watches a run, and kills whenever as many users have ended as a blow says."""

    def __init__(self, blows: Sequence[Blow]) -> None:
        super().__init__(num_users=NUM_USERS)
        self.to_come = sorted(blows)
        self.killed: list[psutil.Process] = []
        self.num_ended = 0

    def user_ended(self, kind: str) -> None:
        super().user_ended(kind)
        self.num_ended += 1
        self.look()

    def look(self) -> None:
        if self.to_come and self.num_ended >= self.to_come[0][0]:
            _, kinds = self.to_come.pop(0)
            for kind in kinds:
                self.killed += kill(kind)


@pytest.fixture(scope="module")
def tools(local_ray: None, demo: Dataset, demo_folder: Path, demo_recommenders: Path) -> Iterator[ServedTools]:
    request = ToolsRequest(
        tools=ToolsSettings(attributes=("genre",)),  # each replica more is another process to start again
        dataset=str(demo_folder),
        recommenders=str(demo_recommenders),
        dataset_checksum=demo.checksum,
        recommenders_checksum=recommenders_manifest(demo_recommenders)["checksum"],
        app_name="kills",
    )
    with tools_for(request, on_own_ray=False) as served:
        yield served


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def simulate(tools: ServedTools, demo: Dataset) -> Callable[..., Path]:
    """Simulates the users on actors of their own, under `blows`."""
    spec = SimulationSpec(
        surrogate=SurrogateConfig(), llm=LLMConfig(base_url="http://127.0.0.1/v1", model=MODEL_NAME, api_key_env=""), tools=tools
    )
    config = SimulationConfig(concurrency=CONCURRENCY, num_actors=2, block_users=5)
    tasks = tasks_of(demo, NUM_USERS)

    def run(path: Path, blows: Sequence[Blow] = ()) -> Path:
        folder = RunFolder.create(path, {"schema_version": 1, "resume_key": "k", "settings": {}})
        actor_pool = ActorPool(
            spec, demo.pool, config, embedded=EmbeddedOptions(latency_s=0.05), rounds_path=folder.rounds_in_flight
        )
        strikes = Strikes(blows)

        async def go() -> None:
            driving = asyncio.create_task(Driver(actor_pool, folder, config, strikes).run(tasks))
            while not driving.done() and await actor_pool.memory.num_users.remote() < CONCURRENCY // 2:
                await asyncio.sleep(0.01)
            strikes.look()  # the rounds of the first users are in memory
            await driving

        try:
            asyncio.run(go())
        finally:
            actor_pool.stop()
            folder.close()
        assert not strikes.to_come
        assert bool(strikes.killed) == bool(blows)
        deadline_s = time.monotonic() + 30.0  # one that was killed last may need a moment to give its memory back
        while (alive := [process for process in strikes.killed if is_alive(process)]) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert not alive
        return path

    return run


@pytest.fixture(scope="module")
def unbroken(simulate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("kills") / "unbroken")


def assert_same(run: Path, unbroken: Path) -> None:
    """The same users, each once, with the same lists and texts, and every round's spend journalled."""
    assert read_users(run)["user_index"].tolist() == list(range(1, NUM_USERS + 1))
    assert lists_of(run).to_dict("records") == lists_of(unbroken).to_dict("records")
    assert texts_of(run).to_dict("records") == texts_of(unbroken).to_dict("records")
    journalled = {(entry["user_index"], entry["round"]) for entry in read_spend(run)}
    rounds = read_rounds(run, columns=["user_index", "round"])
    assert {(user, number) for user, number in rounds.itertuples(index=False) if number > 0} <= journalled


def test_one_process_of_each_kind_killed_during_one_run_changes_no_list(
    simulate: Callable[..., Path], unbroken: Path, tmp_path: Path
):
    blows = [(LATE * place // (len(TITLES) - 1), (kind,)) for place, kind in enumerate(TITLES)]
    assert_same(simulate(tmp_path / "run", blows), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TITLES)
def test_a_kind_killed_by_itself_changes_no_list(simulate: Callable[..., Path], unbroken: Path, tmp_path: Path, kind: str):
    moments = (MIDDLE,) if kind in OF_SERVE else (EARLY, MIDDLE, LATE)
    run = simulate(tmp_path / "run", [(moment, (kind,)) for moment in moments])
    assert_same(run, unbroken)
    attempts = read_users(run)["attempt"]
    if kind == "simulation actor":
        assert attempts.max() >= 2
    else:
        assert attempts.max() == 1  # nobody had to begin again


@pytest.mark.slow
@pytest.mark.parametrize("kinds", PAIRS, ids=" and ".join)
def test_two_kinds_killed_at_once_change_no_list(
    simulate: Callable[..., Path], unbroken: Path, tmp_path: Path, kinds: tuple[str, ...]
):
    assert_same(simulate(tmp_path / "run", [(MIDDLE, kinds)]), unbroken)
