"""In the middle of a run: the driver is killed, Ctrl-C on a Ray of somebody else, one user fails; and what is resumed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from fault_endpoint import FaultEndpoint
from support import Evaluate, same, start_cli, summary_of, tasks_of

from toolrec.connect import free_port
from toolrec.data import Dataset
from toolrec.errors import StorageError
from toolrec.llm import LLMConfig
from toolrec.llm.embedded import EmbeddedServer
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.records import Round, Usage
from toolrec.runs.folder import RunFolder, read_spend, read_users
from toolrec.runs.round_codec import encode_round
from toolrec.simulation import actor_pool as actor_pool_module
from toolrec.simulation.actor_pool import ActorPool
from toolrec.simulation.actors import LocalTools, SimulationSpec
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.driver import Driver
from toolrec.simulation.flow.budget_watch import spent_so_far
from toolrec.simulation.monitor.live import RunWatch
from toolrec.surrogate import SurrogateConfig


def wait_for_users(run: Path, process: subprocess.Popen[str]) -> None:
    """Waits until the first users of a run are committed."""
    deadline_s = time.monotonic() + 400
    while not list((run / "users").glob("part-*.parquet")):
        if process.poll() is not None or time.monotonic() > deadline_s:
            process.kill()
            raise AssertionError(process.communicate()[0])
        time.sleep(0.05)


def flags_for(llm: EmbeddedServer | FaultEndpoint) -> list[str]:
    return ["--llm-url", llm.base_url, "--llm-model", MODEL_NAME, "--no-llm-check", "--users", "60", "--concurrency", "12"]


def spec_for(llm: EmbeddedServer, dataset: Path, recommenders: Path) -> SimulationSpec:
    return SimulationSpec(
        surrogate=SurrogateConfig(),
        llm=LLMConfig(base_url=llm.base_url, model=MODEL_NAME),
        tools=LocalTools(dataset=str(dataset), recommenders=str(recommenders)),
    )


def test_a_killed_run_resumes_to_the_lists_of_an_unbroken_one(
    evaluate: Evaluate, demo_folder: Path, demo_recommenders: Path, slow_llm: EmbeddedServer, ray_address: str, tmp_path: Path
):
    run = tmp_path / "run"
    flags = [*flags_for(slow_llm), "--attributes", "genre"]
    where = ["--recommenders", str(demo_recommenders), "--run", str(run), "--address", ray_address]
    process = start_cli("evaluate", str(demo_folder), *where, *flags, "--tools", "deploy", "--actors", "2")
    wait_for_users(run, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(read_users(run))
    assert 0 < done < 60
    # Leftovers of a kill between the two files of a block, and in the middle of a file.
    (run / "rounds" / "part-000999.parquet").write_bytes(b"half")
    (run / "users" / ".part-000999.parquet.x.tmp").write_bytes(b"half")

    # Its application was left behind too: it is replaced by one of the same name.
    evaluate("--resume", *flags, "--tools", "deploy", run_folder=run)
    assert len(read_users(run)) == 60
    same(run, evaluate(*flags))
    assert summary_of(run)["counts"]["users"] == 60


@pytest.mark.timeout(1200)
def test_a_driver_killed_early_in_the_middle_and_near_the_end_pays_no_round_twice(
    evaluate: Evaluate, demo_folder: Path, demo_recommenders: Path, ray_address: str, tmp_path: Path
):
    stuck: set[str] = set()

    def is_stuck(history: str) -> bool:
        if len(history) % 5:
            return False
        stuck.add(history)
        return True

    with FaultEndpoint(latency_s=0.25, refused=is_stuck) as endpoint:
        endpoint.is_undecided = True  # some users never end, so that there is a moment near the end
        flags = [*flags_for(endpoint), "--users", "24", "--actors", "1"]
        command = ["evaluate", str(demo_folder), "--recommenders", str(demo_recommenders), "--address", ray_address]
        kill_and_resume(evaluate, endpoint, stuck, tmp_path / "run", flags, command)


def kill_and_resume(
    evaluate: Evaluate, endpoint: FaultEndpoint, stuck: set[str], run: Path, flags: list[str], command: list[str]
) -> None:
    num_users = 24
    command = [*command, "--run", str(run), *flags, "--tools", "attach:shared", "--resume"]

    def num_done() -> int:
        return len(read_users(run)) if (run / "users").exists() else 0

    def kill_when(condition: Callable[[], bool]) -> None:
        process = start_cli(*command)
        deadline_s = time.monotonic() + 400
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline_s:
                process.kill()
                raise AssertionError(process.communicate()[0])
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    held = run / "in_flight.jsonl"
    kill_when(lambda: held.exists() and held.read_bytes().count(b'"number":1,') >= 3)
    assert num_done() == 0
    kill_when(lambda: num_done() >= 4)
    middle = num_done()
    kill_when(lambda: num_done() + len(stuck) == num_users)
    assert 0 < middle < num_done() < num_users

    endpoint.refused = lambda history: False
    evaluate(*flags, "--resume", run_folder=run)
    unbroken = evaluate(*flags)
    same(run, unbroken)
    assert not held.exists()
    assert (read_users(run)["attempt"] >= 2).sum() > 0
    assert spent_so_far(run) == spent_so_far(unbroken)
    paid = [(entry["user_index"], entry["round"], entry["purpose"]) for entry in read_spend(run)]
    assert len(set(paid)) == len(paid)
    assert summary_of(run)["counts"] == summary_of(unbroken)["counts"]


def test_ctrl_c_keeps_what_is_finished(
    demo_folder: Path, demo_recommenders: Path, ray_address: str, slow_llm: EmbeddedServer, tmp_path: Path
):
    run = tmp_path / "run"
    flags = ["--recommenders", str(demo_recommenders), *flags_for(slow_llm), "--run", str(run), "--tools", "local"]
    process = start_cli("evaluate", str(demo_folder), *flags, "--actors", "1", "--address", ray_address)
    wait_for_users(run, process)
    before = len(read_users(run))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert before <= len(read_users(run)) < 60


def test_resuming_with_other_settings_is_refused(evaluate: Evaluate, everyone: Path, capsys: pytest.CaptureFixture[str]):
    evaluate("--resume", "--rounds", "3", run_folder=everyone, expect=2)
    assert "surrogate.rounds was 7, now 3" in capsys.readouterr().err


def test_resuming_a_finished_run_makes_the_figures_again_and_takes_in_what_a_kill_left(evaluate: Evaluate):
    run = evaluate("--users", "10")
    before = summary_of(run)
    # A driver that was killed between its last block and the end.
    left, usage = run / "in_flight.jsonl", {"decide": Usage(num_calls=1, num_attempts=1, prompt_tokens=1_000_000)}
    lost = Round(number=1, thought="", call=None, observation=None, messages=(), usage=usage, counts={}, duration_s=0.1)
    left.write_bytes(b"[%d,9,%b]\n" % (read_users(run)["user_index"][0], encode_round(lost)))
    evaluate("--users", "10", "--resume", run_folder=run)
    assert summary_of(run)["surrogate"] == before["surrogate"]
    assert not left.exists()
    assert spent_so_far(run).prompt_tokens == before["tokens"]["total"]["prompt_tokens"] + 1_000_000
    assert sum(entry["prompt_tokens"] == 1_000_000 for entry in read_spend(run)) == 1


def test_one_failing_user_stops_no_other(
    demo: Dataset, demo_folder: Path, demo_recommenders: Path, slow_llm: EmbeddedServer, local_ray: None, tmp_path: Path
):
    spec = spec_for(slow_llm, demo_folder, demo_recommenders)
    tasks = tasks_of(demo, 40)
    tasks[7] = replace(tasks[7], history=(10**6,))  # an item that no pool has: a fault of ours, not of the LLM's
    config = SimulationConfig(concurrency=20, num_actors=2)
    folder = RunFolder.create(tmp_path / "run", {"schema_version": 1, "resume_key": "k", "settings": {}})
    actor_pool = ActorPool(spec, demo.pool, config, embedded=None)
    try:
        asyncio.run(Driver(actor_pool, folder, config, RunWatch(num_users=len(tasks))).run(tasks))
    finally:
        actor_pool.stop()
        folder.close()
    users = read_users(tmp_path / "run").set_index("user_index")
    assert len(users) == 40
    assert users.loc[8, "ended_by"] == "cancelled"
    assert "IndexError" in users.loc[8, "error"]
    assert (users.loc[8, "ended_by"], users.loc[8, "failure_kind"]) == ("cancelled", "internal_error")
    assert (users.drop(index=8)["ended_by"] == "finish").all()


def test_a_shared_memory_that_cannot_use_its_file_says_so_at_the_start_and_in_the_middle(
    demo: Dataset, demo_folder: Path, demo_recommenders: Path, slow_llm: EmbeddedServer, local_ray: None, tmp_path: Path
):
    spec = spec_for(slow_llm, demo_folder, demo_recommenders)
    config = SimulationConfig(concurrency=4, num_actors=1, block_users=2)
    tasks = tasks_of(demo, 100)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the rounds in flight cannot be kept") as caught:
        ActorPool(spec, demo.pool, config, embedded=None, rounds_path=tmp_path / "file" / "in_flight.jsonl")
    assert str(tmp_path / "file") in str(caught.value) and "Traceback" not in str(caught.value)

    folder = RunFolder.create(tmp_path / "run", {"schema_version": 1, "resume_key": "k", "settings": {}})
    actor_pool = ActorPool(spec, demo.pool, config, embedded=None, rounds_path=folder.rounds_in_flight)

    async def go() -> None:
        driving = asyncio.create_task(Driver(actor_pool, folder, config, RunWatch(num_users=len(tasks))).run(tasks))
        while not driving.done() and not (folder.path / "users").exists():
            await asyncio.sleep(0.05)
        folder.rounds_in_flight.unlink()
        folder.rounds_in_flight.mkdir()
        ray.kill(actor_pool.memory, no_restart=False)
        async with asyncio.timeout(60):
            await driving

    try:
        with pytest.raises(BaseExceptionGroup) as group:
            asyncio.run(go())
    finally:
        actor_pool.stop()
        folder.close()
    ours = group.value.subgroup(StorageError)
    assert ours is not None and "Is a directory" in repr(ours) and "Traceback" not in repr(ours)
    assert 0 < len(read_users(folder.path)) < 100


def test_an_endpoint_whose_port_another_took_gets_the_next_one(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as quicker:
        quicker.bind(("127.0.0.1", 0))
        quicker.listen()
        ports = [quicker.getsockname()[1], free_port()]
        task = SimpleNamespace(remote=lambda: ray.put(ports.pop(0)))
        monkeypatch.setattr(actor_pool_module, "free_port_task", SimpleNamespace(options=lambda **_: task))
        run = evaluate("--users", "5")
    assert not ports
    assert set(read_users(run)["ended_by"]) == {"finish"}
