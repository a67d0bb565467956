"""Conversations and rank prompts that do not fit the model: shortened once, and said so."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from toolrec.errors import ContextTooLongError
from toolrec.llm.scripted import ScriptedLLM, calling
from toolrec.records import Round
from toolrec.surrogate.shortening import NOTE, without_earlier_lists

GENRE = ("retrieve", {"attribute": "genre", "k": 5})
NONE = ("retrieve", {"attribute": "none", "k": 4})
RANK = ("rank", {"attribute": "mood", "k": 3})
FINISH = ("finish", {"items": ["m11", "m12", "m13"]})
TOO_LONG = ContextTooLongError("8192 tokens")


async def test_earlier_lists_give_way_to_a_note_and_the_latest_stays(build, task):
    llm = ScriptedLLM([calling(GENRE), calling(NONE), TOO_LONG, calling(FINISH)])
    trace = await build(llm).run(task)
    assert (trace.ended_by, trace.final_items[:3]) == ("finish", (11, 12, 13))
    assert trace.counts["context_shortened"] == 1
    asked, again = llm.calls[2].messages, llm.calls[3].messages
    assert len(asked) == len(again)
    changed = [number for number, (one, other) in enumerate(zip(asked, again, strict=True)) if one != other]
    assert changed == [3]
    assert again[3]["content"].split("\n") == ["Retrieve[genre, 5] returned 5 items:", NOTE.format(count=5), "Rounds left: 6"]
    assert again[3]["tool_call_id"] == asked[3]["tool_call_id"]
    assert again[5]["content"].startswith("Retrieve[none, 4] returned 4 items:\n1. <m5>")


@pytest.mark.parametrize("protocol", ["tools", "text"])
async def test_the_conversation_itself_stays_whole(build, task, protocol: str):
    def say(call):
        text = f"Thought 1: x\nAction 1: Retrieve[{call[1]['attribute']}, {call[1]['k']}]"
        return calling(call) if protocol == "tools" else text

    last = calling(FINISH) if protocol == "tools" else "Thought 3: x\nAction 3: Finish[<m11>, <m12>, <m13>]"
    short = await build(ScriptedLLM([say(GENRE), say(NONE), TOO_LONG, last]), protocol=protocol).run(task)
    whole = await build(ScriptedLLM([say(GENRE), say(NONE), last]), protocol=protocol).run(task)
    assert short.counts["context_shortened"] == 1
    assert [done.messages for done in short.rounds] == [done.messages for done in whole.rounds]
    assert short.final_items == whole.final_items


async def test_a_restored_user_is_asked_the_same(build, task):
    rounds: list[Round] = []

    async def keep(done: Round) -> None:
        rounds.append(done)

    live = ScriptedLLM([calling(GENRE), calling(NONE), TOO_LONG, calling(FINISH)])
    await build(live).run(task, on_round=keep)
    again = ScriptedLLM([TOO_LONG, calling(FINISH)])
    await build(again).run(replace(task, attempt=2), previous_rounds=rounds[:2])
    assert [call.messages for call in again.calls] == [call.messages for call in live.calls[2:]]


async def test_a_second_time_is_final(build, task):
    trace = await build(ScriptedLLM([calling(GENRE), calling(NONE), TOO_LONG, TOO_LONG])).run(task)
    assert (trace.ended_by, trace.counts["context_shortened"]) == ("llm_failure", 1)
    assert "8192 tokens" in trace.error


async def test_where_there_is_nothing_to_leave_out_it_is_final_at_once(build, task):
    llm = ScriptedLLM([calling(GENRE), TOO_LONG])
    trace = await build(llm).run(task)
    assert (trace.ended_by, len(llm.calls)) == ("llm_failure", 2)
    assert "context_shortened" not in trace.counts


async def test_a_rank_prompt_shows_half_of_the_candidates(build, task):
    llm = ScriptedLLM([calling(GENRE), calling(NONE), calling(RANK), TOO_LONG, "<m5>\n<m6>\n<m7>", calling(FINISH)])
    trace = await build(llm).run(task)
    assert trace.ended_by == "finish"
    assert trace.counts["context_shortened"] == 1
    full, half = (llm.calls[number].messages[1]["content"] for number in (3, 4))
    assert full.count("| genre:") - half.count("| genre:") == (5 + 4) - (5 + 4) // 2


async def test_a_rank_prompt_is_halved_once(build, task):
    llm = ScriptedLLM([calling(GENRE), calling(RANK), TOO_LONG, TOO_LONG])
    trace = await build(llm).run(task)
    assert trace.ended_by == "llm_failure"
    assert len(llm.calls) == 4


def test_messages_are_not_changed_in_place():
    lists = [{"role": "user", "content": f"Observation {n}:\nhead\n1. <a> A\n2. <b> B\nRounds left: {n}"} for n in (1, 2)]
    before = copy.deepcopy(lists)
    shorter = without_earlier_lists(lists, num_opening=0)
    assert lists == before
    assert shorter == [{"role": "user", "content": f"Observation 1:\nhead\n{NOTE.format(count=2)}\nRounds left: 1"}, lists[1]]
    assert without_earlier_lists(lists, num_opening=1) is None
