"""Users that talk to the real embedded endpoint over HTTP, in both protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from toolrec.llm import LLMConfig, OpenAIChat
from toolrec.llm.embedded.options import EmbeddedOptions
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.embedded.server import run_in_thread
from toolrec.records import FINISHED, Round, Trace, UserTask

PROTOCOLS = ("tools", "text")


@contextmanager
def endpoint(**options) -> Iterator[LLMConfig]:
    with run_in_thread(EmbeddedOptions(**options)) as server:
        yield LLMConfig(base_url=server.base_url, model=MODEL_NAME)


@pytest.fixture(scope="module")
def plain() -> Iterator[LLMConfig]:
    with endpoint() as config:
        yield config


def tasks(num: int) -> list[UserTask]:
    return [
        UserTask(user_index=u, user_id=f"u{u}", history=tuple(range(u, 61, 5 + u % 3))[-15:], ratings=None)
        for u in range(1, num + 1)
    ]


async def run_all(build, config: LLMConfig, users: list[UserTask], **settings) -> list[Trace]:
    llm = OpenAIChat(config)
    try:
        surrogate = build(llm, **settings)
        return list(await asyncio.gather(*(surrogate.run(user) for user in users)))
    finally:
        await llm.aclose()


def timeless(trace: Trace) -> Trace:
    rounds = tuple(replace(done, duration_s=0.0) for done in trace.rounds)
    return replace(trace, rounds=rounds, started_s=0.0, ended_s=0.0)


async def test_both_protocols_explore_finish_and_give_the_same_lists(build, plain):
    users = tasks(8)
    native, text = [await run_all(build, plain, users, protocol=protocol) for protocol in PROTOCOLS]
    for trace, other in zip(native, text, strict=True):
        assert trace.ended_by == "finish"
        assert len(trace.final_items) == 10 and all(trace.final_items)
        assert not set(trace.final_items) & set(users[trace.user_index - 1].history)
        assert set(trace.final_items) <= {c.item_index for c in trace.candidates}
        assert sum(done.call.name != "finish" for done in trace.rounds) >= 3
        assert {done.call.mark for done in trace.rounds} >= {"Retrieve[none]", "Retrieve[genre]"}
        assert "reask" not in trace.counts and "tool_error" not in trace.counts and "repeat" not in trace.counts
        assert trace.usage["decide"].prompt_tokens > 0
        assert (trace.final_items, trace.completed_items, trace.candidates, trace.counts) == (
            other.final_items,
            other.completed_items,
            other.candidates,
            other.counts,
        )


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_forced_finish_is_understood(build, plain, protocol):
    for trace in await run_all(build, plain, tasks(3), protocol=protocol, rounds=1):
        assert trace.ended_by == "forced_finish"
        assert len(trace.rounds) == 2
        assert len(trace.final_items) == 10 and all(trace.final_items)
        assert "reask" not in trace.counts


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_final_rank_is_understood(build, plain, protocol):
    for trace in await run_all(build, plain, tasks(3), protocol=protocol, finish_policy="final_rank"):
        assert trace.ended_by == "finish"
        assert trace.usage["final_rank"].num_calls == 1
        assert len(trace.final_items) == 10
        assert "rank_reask" not in trace.counts


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_cut_at_any_round_the_trace_is_the_same(build, plain, protocol):
    (user,) = tasks(1)
    (whole,) = await run_all(build, plain, [user], protocol=protocol)
    llm = OpenAIChat(plain)
    surrogate = build(llm, protocol=protocol)
    told: list[Round] = []

    async def on_round(done: Round) -> None:
        told.append(done)

    for cut in range(len(whole.rounds) + 1):
        told.clear()
        resumed = await surrogate.run(user, previous_rounds=whole.rounds[:cut], on_round=on_round)
        assert timeless(resumed) == timeless(whole)
        assert len(told) == len(whole.rounds) - cut
    await llm.aclose()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_faults_are_repaired_asked_again_or_left_empty_but_never_believed(build, protocol):
    with endpoint(share_typos=0.5, share_invented=0.3, share_short=0.2, share_malformed=0.3, seed=3) as config:
        traces = await run_all(build, config, tasks(25), protocol=protocol)
        assert [timeless(t) for t in await run_all(build, config, tasks(25), protocol=protocol)] == [timeless(t) for t in traces]
    counts = {kind for trace in traces for kind in trace.counts}
    assert {"reask", "reask_list", "memory_unknown", "memory_exact"} <= counts
    assert sum(trace.ended_by in FINISHED for trace in traces) >= 20
    for trace in traces:
        for items in (trace.final_items, trace.completed_items):
            known = [item for item in items if item]
            assert all(1 <= item <= 60 for item in known) and len(set(known)) == len(known)
        assert trace.ended_by in (*FINISHED, "invalid_reply")


async def test_misspelt_titles_are_repaired_by_memory(build, named_pool):
    with endpoint(share_typos=1.0) as config:
        traces = await run_all(build, config, tasks(20), pool=named_pool)
    with endpoint() as config:
        clean = await run_all(build, config, tasks(20), pool=named_pool)
    assert sum(trace.counts.get("memory_near", 0) for trace in traces) >= 10
    assert all(trace.ended_by == "finish" for trace in traces)
    assert [trace.final_items for trace in traces] == [trace.final_items for trace in clean]


async def test_an_endpoint_that_is_gone_ends_the_user(build, task):
    with endpoint() as config:
        gone = config.replaced(max_attempts=2, min_wait_s=0.0, max_wait_s=0.01)
    (trace,) = await run_all(build, gone, [task])
    assert trace.ended_by == "llm_failure"
    assert trace.error and "LLMUnavailableError" in trace.error
