"""Hundreds of users against an endpoint that fails three times in ten: who ends how, and where each request went."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fault_endpoint import FaultEndpoint, history_of

from toolrec.llm import LLMConfig, OpenAIChat
from toolrec.llm.caller import CALLER, Caller
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.flow.gate import Gate, keep_in_step
from toolrec.llm.flow.governor import Allowance, ClientReport, FlowSettings, FlowSnapshot, Governor
from toolrec.records import FINISHED, Trace, UserTask
from toolrec.simulation.flow.watch import llm_counts

NUM_MEMBERS = 3


def tasks(num: int) -> list[UserTask]:
    """Users no two of whom have the same history."""
    return [
        UserTask(user_index=u, user_id=f"u{u}", history=tuple((u * step + u // 60) % 60 + 1 for step in range(1, 11)))
        for u in range(1, num + 1)
    ]


@dataclass
class Run:
    traces: list[Trace]
    snapshot: FlowSnapshot


def new_governor(settings: FlowSettings | None = None) -> Governor:
    return Governor(settings or FlowSettings(), ceiling=20 * NUM_MEMBERS, clock=time.monotonic)


async def run_users(
    build: Callable,
    endpoint: FaultEndpoint,
    users: list[UserTask],
    *,
    governor: Governor | None = None,
    settings: FlowSettings | None = None,
    **llm,
) -> Run:
    """All users over three members in step with one governor, 20 in flight on each."""
    config = LLMConfig(
        **{
            "base_url": endpoint.base_url,
            "model": MODEL_NAME,
            "api_key_env": "",
            "min_wait_s": 0.01,
            "max_wait_s": 0.05,
            "timeout_s": 10.0,  # what hangs takes it whole; an answer on a busy machine should come within it
            "concurrency": 20 * NUM_MEMBERS,
            **llm,
        }
    )
    governor = governor or new_governor(settings)
    waiting = iter(users)
    traces: list[Trace] = []

    async def member(name: str) -> None:
        gate = Gate(limit=None)

        async def exchange(report: ClientReport) -> Allowance:
            return governor.exchange(name, report)

        in_step = asyncio.create_task(keep_in_step(gate, exchange))
        async with OpenAIChat(config, gate) as client:
            surrogate = build(client)

            async def stream() -> None:
                for user in waiting:
                    CALLER.set(Caller(max_failed_requests=config.user_max_failed_requests))
                    traces.append(await surrogate.run(user))

            await asyncio.gather(*(stream() for _ in range(20)))
        in_step.cancel()
        governor.exchange(name, gate.report())

    await asyncio.gather(*(member(f"m{number}") for number in range(NUM_MEMBERS)))
    traces.sort(key=lambda trace: trace.user_index)
    assert [trace.user_index for trace in traces] == [user.user_index for user in users]
    return Run(traces, governor.snapshot())


def accounted(endpoint: FaultEndpoint, snapshot: FlowSnapshot) -> None:
    """Fails unless the run tells of every request that the endpoint saw, as what it was."""
    told = llm_counts(snapshot)
    assert told["http_requests"] == endpoint.num_requests
    kinds = {kind: count for kind, count in told.items() if kind == "completions" or kind.startswith("failed:")}
    assert kinds == endpoint.counted()


async def test_with_six_attempts_no_user_fails(build):
    with FaultEndpoint(share=0.3, seed=11) as endpoint:
        run = await run_users(build, endpoint, tasks(120), max_attempts=6)
    assert Counter(trace.ended_by in FINISHED for trace in run.traces) == {True: 120}
    assert set(endpoint.counts) == {"good", *endpoint._kinds}, "every kind of fault was met"
    assert max(map(len, endpoint.log.values())) <= 6
    accounted(endpoint, run.snapshot)
    # A user's own attempts are those of its completions: the failed ones that led to one are among them.
    attempts = sum(usage.num_attempts for trace in run.traces for usage in trace.usage.values())
    assert attempts == endpoint.num_requests


async def test_with_two_attempts_exactly_those_fail_whose_attempts_ran_out(build):
    with FaultEndpoint(share=0.3, seed=12) as endpoint:
        users = tasks(120)
        run = await run_users(build, endpoint, users, max_attempts=2)
    failed = {history_of(trace.opening) for trace in run.traces if trace.ended_by == "llm_failure"}
    # A ranking that fails after a first reply is told to the surrogate as a tool's error; the others end their user.
    assert failed == endpoint.out_of_attempts(2) - ranked_on(run.traces)
    assert 5 <= len(failed) <= 60
    assert Counter(trace.ended_by for trace in run.traces if trace.ended_by not in FINISHED) == {"llm_failure": len(failed)}
    assert max(map(len, endpoint.log.values())) <= 2
    accounted(endpoint, run.snapshot)


def ranked_on(traces: list[Trace]) -> set[str]:
    return {history_of(trace.opening) for trace in traces if trace.counts.get("rank_llm_failure") and trace.ended_by in FINISHED}


async def test_what_the_endpoint_takes_at_a_time_is_found(build):
    with FaultEndpoint(latency_s=0.05, most_in_flight=12) as endpoint:
        run = await run_users(build, endpoint, tasks(120), min_wait_s=0.2, max_wait_s=2.0)
    assert all(trace.ended_by in FINISHED for trace in run.traces)
    assert 1 <= run.snapshot.limit < 60
    accounted(endpoint, run.snapshot)


async def test_a_cap_on_requests_in_flight_holds_over_all_members(build):
    with FaultEndpoint(latency_s=0.02) as endpoint:
        run = await run_users(build, endpoint, tasks(60), settings=FlowSettings(llm_concurrency=4))
    assert all(trace.ended_by in FINISHED for trace in run.traces)
    assert endpoint.max_in_flight == 4


async def test_an_outage_costs_time_and_no_user(build):
    with FaultEndpoint(is_down=True) as endpoint:
        governor = new_governor()
        running = asyncio.create_task(run_users(build, endpoint, tasks(80), governor=governor, max_attempts=2))
        while governor.snapshot().outage_s == 0.0:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)  # whoever was asking is told
        num_requests = endpoint.num_requests
        while endpoint.num_requests == num_requests:  # a probe fails
            await asyncio.sleep(0.05)
        endpoint.is_down = False
        run = await running
    assert all(trace.ended_by in FINISHED for trace in run.traces)
    assert run.snapshot.num_outages == 1
    assert run.snapshot.paused_s > 0.0
    assert run.snapshot.outage_s == 0.0
    assert run.snapshot.failures["connection"] < 100
    accounted(endpoint, run.snapshot)


async def test_one_users_failed_requests_are_capped(build):
    with FaultEndpoint(share=0.5, seed=4, kinds=("500",)) as endpoint:
        run = await run_users(build, endpoint, tasks(40), max_attempts=50, user_max_failed_requests=3)
    for trace in run.traces:
        history = history_of(trace.opening)
        num_failed = sum(endpoint.log[key].count("500") for key in endpoint.users[history])
        assert num_failed <= 3
        assert (num_failed == 3) == (trace.ended_by == "llm_failure")
    assert {trace.ended_by for trace in run.traces} >= {"finish", "llm_failure"}


@pytest.mark.parametrize("per_minute", [600])
async def test_requests_a_minute_are_kept(build, per_minute: int):
    with FaultEndpoint() as endpoint:
        started_s = time.monotonic()
        run = await run_users(build, endpoint, tasks(10), settings=FlowSettings(requests_per_minute=per_minute))
        seconds = time.monotonic() - started_s
    assert all(trace.ended_by in FINISHED for trace in run.traces)
    assert endpoint.num_requests <= per_minute / 60 * (seconds + 1) + 1
