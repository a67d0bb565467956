"""Whole runs against an endpoint that fails, is down, comes back, or may not be asked much; and without a governor."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from fault_endpoint import TRANSPORT, FaultEndpoint
from support import Evaluate, lists_of, summary_of, tasks_of

from toolrec.cli import run_command
from toolrec.data import Dataset
from toolrec.llm import LLMConfig
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.records import FINISHED
from toolrec.runs.folder import RunFolder, read_llm_counts, read_users
from toolrec.simulation.actor_pool import ActorPool
from toolrec.simulation.actors import LocalTools, SimulationSpec
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.driver import Driver
from toolrec.simulation.flow.watch import FlowWatch
from toolrec.simulation.monitor.live import RunWatch
from toolrec.surrogate import SurrogateConfig

NUM_USERS = 40


def flags(endpoint: FaultEndpoint, *more: str) -> list[str]:
    return [
        *("--llm-url", endpoint.base_url, "--llm-model", MODEL_NAME, "--llm-key-env", "NO_KEY", "--no-llm-check"),
        *("--users", str(NUM_USERS), "--llm-timeout-s", "8", "--concurrency", "16", *more),
    ]


def once(endpoint: FaultEndpoint, num_requests: int, then: Callable[[], object]) -> threading.Thread:
    """Does something when the endpoint has seen so many requests."""

    def wait() -> None:
        while endpoint.num_requests < num_requests:
            endpoint.has_request.wait()
            endpoint.has_request.clear()
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def accounted(endpoint: FaultEndpoint, run: Path) -> None:
    counts = read_llm_counts(run)
    assert counts["http_requests"] == endpoint.num_requests
    kinds = {kind: count for kind, count in counts.items() if kind == "completions" or kind.startswith("failed:")}
    assert kinds == endpoint.counted()


def test_three_failures_in_ten_fail_no_user_and_are_all_accounted_for(evaluate: Evaluate):
    with FaultEndpoint(share=0.3, seed=21) as endpoint:
        run = evaluate(*flags(endpoint, "--llm-max-attempts", "6"))
    users = read_users(run)
    assert len(users) == NUM_USERS
    assert set(users["ended_by"]) <= FINISHED
    assert sum(endpoint.counts[kind] for kind in TRANSPORT) > 20
    assert max(map(len, endpoint.log.values())) <= 6
    accounted(endpoint, run)
    told = summary_of(run)["protocol"]["llm_events"]
    assert f"http_requests {endpoint.num_requests}" in told


def test_a_dead_endpoint_stops_the_run_and_a_resumed_one_loses_nobody(evaluate: Evaluate, capsys: pytest.CaptureFixture[str]):
    with FaultEndpoint(is_down=True) as endpoint:
        command = flags(endpoint, "--outage-timeout-s", "3")
        run = evaluate(*command, expect=3)
        assert "the LLM endpoint has been down for" in capsys.readouterr().err
        assert not run.exists(), "nothing was simulated: the folder is gone, and --resume begins it anew"
        endpoint.is_down = False
        evaluate(*command, "--resume", run_folder=run)
        assert set(read_users(run)["ended_by"]) <= FINISHED
        assert len(read_users(run)) == NUM_USERS
        assert read_llm_counts(run)["completions"] == endpoint.counts["good"]


def test_users_whose_messages_alone_are_refused_end_a_resumed_run_once_the_endpoint_is_proven(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    with FaultEndpoint(refused=lambda history: len(history) % 5 == 0) as endpoint:
        endpoint.is_undecided = True

        def stop_when_the_others_are_done() -> None:
            while not (run / "users").exists() or len(read_users(run)) + endpoint.counts["undecided"] < NUM_USERS:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=stop_when_the_others_are_done, daemon=True)
        thread.start()
        evaluate(*flags(endpoint, "--llm-timeout-s", "100"), run_folder=run, expect=130)
        thread.join()
        num_refused = endpoint.counts["undecided"]
        assert 0 < num_refused < 20
        endpoint.is_undecided = False

        evaluate(*flags(endpoint), "--resume", run_folder=run, expect=3)
        said = capsys.readouterr().err
        assert f"the LLM endpoint failed for {num_refused} users in a row" in said and "without --no-llm-check" in said
        assert len(read_users(run)) == NUM_USERS - num_refused

        evaluate(*flags(endpoint), "--resume", "--llm-check", run_folder=run)
    failed = read_users(run).query("ended_by == 'llm_failure'")
    assert len(failed) == num_refused and failed["error"].str.contains("HTTP 400: something in the messages").all()
    assert (failed["failure_kind"] == "refused").all() and (failed["http_status"] == 400).all()
    assert len(read_users(run)) == NUM_USERS
    assert not (run / "in_flight.jsonl").exists()


def test_an_endpoint_that_comes_back_costs_no_user(evaluate: Evaluate):
    with FaultEndpoint(is_down=True) as endpoint:
        # 16 first requests come at once, and few more before everyone holds still; what comes after that are probes.
        once(endpoint, 18, lambda: setattr(endpoint, "is_down", False))
        run = evaluate(*flags(endpoint))
    assert set(read_users(run)["ended_by"]) <= FINISHED
    assert len(read_users(run)) == NUM_USERS
    assert endpoint.counts["reset"] >= 18
    accounted(endpoint, run)


def test_limits_are_changed_under_way(evaluate: Evaluate, tmp_path: Path):
    run = tmp_path / "run"
    with FaultEndpoint() as endpoint:
        # At six requests a minute the run would outlast the test's own timeout many times over.
        change = once(endpoint, 1, lambda: run_command(["control", str(run), "--requests-per-minute", "none"]))
        evaluate(*flags(endpoint, "--requests-per-minute", "6"), run_folder=run)
        change.join()
    assert set(read_users(run)["ended_by"]) <= FINISHED
    assert len(read_users(run)) == NUM_USERS


def test_a_lost_governor_changes_no_list(
    demo: Dataset, demo_folder: Path, demo_recommenders: Path, local_ray: None, tmp_path: Path
):
    tasks = tasks_of(demo, 40)
    config = SimulationConfig(concurrency=20, num_actors=2)

    def simulate(name: str, endpoint: FaultEndpoint, *, kill_after: int | None) -> Path:
        spec = SimulationSpec(
            surrogate=SurrogateConfig(),
            llm=LLMConfig(base_url=endpoint.base_url, model=MODEL_NAME, api_key_env=""),
            tools=LocalTools(dataset=str(demo_folder), recommenders=str(demo_recommenders)),
        )
        folder = RunFolder.create(tmp_path / name, {"schema_version": 1, "resume_key": "k", "settings": {}})
        actor_pool = ActorPool(spec, demo.pool, config, embedded=None, rounds_path=folder.rounds_in_flight)
        flow = FlowWatch(actor_pool.governor, config.flow, outage_timeout_s=60.0)

        async def go() -> None:
            driver = Driver(actor_pool, folder, config, RunWatch(num_users=len(tasks)), flow)
            await driver.run(tasks)
            await driver.rest()
            last = await flow.last()
            assert last.num_requests == endpoint.num_requests
            assert last.num_calls == endpoint.num_requests

        if kill_after is not None:
            once(endpoint, kill_after, lambda: ray.kill(actor_pool.governor, no_restart=False))
        try:
            asyncio.run(go())
        finally:
            actor_pool.stop()
            folder.close()
        return tmp_path / name

    with FaultEndpoint(latency_s=0.1) as endpoint:
        unbroken = lists_of(simulate("unbroken", endpoint, kill_after=None)).to_dict("records")
    with FaultEndpoint(latency_s=0.1) as endpoint:
        broken = lists_of(simulate("broken", endpoint, kill_after=40)).to_dict("records")
    assert broken == unbroken
