"""Users whose replies were stored: the same lists and texts, at no cost, faults and token budgets included."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from toolrec.llm import LLM, LLMConfig, OpenAIChat
from toolrec.llm.call_site import CALL_SITE, CallSite, begin_next_round
from toolrec.llm.embedded import EmbeddedOptions, run_in_thread
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.stores.cache import ReplyCache
from toolrec.llm.stores.recording import Recorder, Recording, RecordingHeader, begin_recording, end_recording
from toolrec.llm.stores.storing import StoringLLM, parameters_of
from toolrec.records import Round, Trace, Usage, UserTask

FAULTY = EmbeddedOptions(share_malformed=0.2, share_invented=0.2, share_short=0.2, seed=3)
SETTINGS = [
    {"protocol": "tools", "finish_policy": "final_rank"},
    {"protocol": "text"},
    {"protocol": "tools", "user_token_budget": 4_000},
]


@pytest.fixture(scope="module")
def faulty() -> Iterator[LLMConfig]:
    with run_in_thread(FAULTY) as server:
        yield LLMConfig(base_url=server.base_url, model=MODEL_NAME)


def tasks(num: int) -> list[UserTask]:
    return [
        UserTask(user_index=u, user_id=f"u{u}", history=tuple(range(u, 61, 5 + u % 3))[-15:], ratings=None)
        for u in range(1, num + 1)
    ]


async def run_all(build, llm: LLM, *, at_once: int, **settings) -> list[Trace]:
    surrogate = build(llm, **settings)
    slots = asyncio.Semaphore(at_once)

    async def on_round(_: Round) -> None:
        begin_next_round()

    async def one(task: UserTask) -> Trace:
        async with slots:
            CALL_SITE.set(CallSite(user_id=task.user_id, attempt=1, round=1))
            trace: Trace = await surrogate.run(task, on_round=on_round)
            return trace

    return list(await asyncio.gather(*(asyncio.create_task(one(task)) for task in tasks(12))))


def without_cost(trace: Trace) -> Trace:
    rounds = tuple(replace(done, duration_s=0.0, usage={}, observation=_free(done)) for done in trace.rounds)
    return replace(trace, rounds=rounds, usage={}, started_s=0.0, ended_s=0.0)


def _free(done: Round):
    return None if done.observation is None else replace(done.observation, usage={})


def total(traces: list[Trace]) -> Usage:
    return sum((used for trace in traces for used in trace.usage.values()), Usage())


@pytest.mark.parametrize("settings", SETTINGS)
async def test_a_replay_comes_to_the_same_in_another_order(build, faulty: LLMConfig, tmp_path: Path, settings):
    begin_recording(tmp_path, RecordingHeader(model=MODEL_NAME, parameters=parameters_of(faulty), settings={}), is_resumed=False)
    async with OpenAIChat(faulty) as client:
        recorded = await run_all(build, StoringLLM(Recorder(tmp_path), client, faulty), at_once=12, **settings)
    end_recording(tmp_path)
    replayed = await run_all(build, StoringLLM(Recording(tmp_path), None, faulty), at_once=2, **settings)
    assert [without_cost(trace) for trace in replayed] == [without_cost(trace) for trace in recorded]
    assert {trace.ended_by for trace in recorded} == ({"budget"} if "user_token_budget" in settings else {"finish"})
    paid, saved = total(recorded), total(replayed)
    assert saved == Usage(
        num_calls=paid.num_calls,
        num_stored_replies=paid.num_calls,
        saved_prompt_tokens=paid.prompt_tokens,
        saved_completion_tokens=paid.completion_tokens,
        saved_cached_tokens=paid.cached_tokens,
    )
    if "user_token_budget" not in settings:
        assert sum(trace.counts.get("reask", 0) for trace in recorded) > 0


@pytest.mark.parametrize("settings", SETTINGS[:2])
async def test_with_a_cache_nobody_is_asked_twice(build, faulty: LLMConfig, tmp_path: Path, settings):
    runs = []
    for _ in range(2):
        cache = ReplyCache(tmp_path, endpoint="e")
        async with OpenAIChat(faulty) as client:
            runs.append(await run_all(build, StoringLLM(cache, client, faulty), at_once=4, **settings))
        cache.close()
    assert [without_cost(trace) for trace in runs[0]] == [without_cost(trace) for trace in runs[1]]
    assert total(runs[0]).num_attempts > 0
    assert (total(runs[1]).num_attempts, total(runs[1]).prompt_tokens) == (0, 0)
