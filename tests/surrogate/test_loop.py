"""The loop: every way in which a user ends, and what is counted on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict, replace

import pytest

from toolrec.errors import ConfigError, ContextTooLongError, LLMRefusedError, LLMUnavailableError, MessagesRefusedError
from toolrec.llm.base import LLM
from toolrec.llm.scripted import ScriptedLLM, calling
from toolrec.records import Completion, LLMToolCall, Round, Usage
from toolrec.surrogate import Strategy, Surrogate, SurrogateConfig
from toolrec.tools.rank import RankTool
from toolrec.util.deadline import uncounted

GENRE = ("retrieve", {"attribute": "genre", "k": 5})
NONE = ("retrieve", {"attribute": "none", "k": 5})
YEAR = ("retrieve", {"attribute": "release_year", "k": 5})
RANK = ("rank", {"attribute": "mood", "k": 3})
FINISH = ("finish", {"items": ["m11", "m12", "m13"]})
RANKED = "<m13>\n<m12>\n<m11>"


def purposes(trace) -> dict[str, int]:
    return {purpose: usage.num_calls for purpose, usage in trace.usage.items()}


def contents(trace) -> list[str]:
    return [message["content"] for done in trace.rounds for message in done.messages]


async def test_finish(build, task):
    llm = ScriptedLLM([calling(GENRE, text="stories"), calling(RANK), RANKED, calling(FINISH)])
    trace = await build(llm).run(task)
    assert (trace.ended_by, trace.error) == ("finish", None)
    assert trace.final_items == (11, 12, 13)
    # Fused from Retrieve[genre] 11..15 and Rank[mood] 13, 12, 11, behind the list as given.
    assert trace.completed_items == (11, 12, 13, 14, 15)
    assert [done.number for done in trace.rounds] == [1, 2, 3]
    assert [done.call.name for done in trace.rounds] == ["retrieve", "rank", "finish"]
    assert trace.rounds[0].thought == "stories"
    assert {(c.mark, c.round) for c in trace.candidates} == {("Retrieve[genre]", 1), ("Rank[mood]", 2)}
    assert purposes(trace) == {"decide": 3, "rank": 1}
    assert trace.counts == {"memory_exact": 6}
    assert trace.started_s <= trace.ended_s


async def test_forced_finish_after_the_last_round(build, task):
    llm = ScriptedLLM([calling(GENRE), calling(NONE), calling(FINISH)])
    trace = await build(llm, rounds=2).run(task)
    assert trace.ended_by == "forced_finish"
    assert contents(trace)[1].endswith("\nRounds left: 1")
    assert "\nRounds left: 0\nFinish now" in contents(trace)[3]
    assert [tool["function"]["name"] for tool in llm.calls[1].tools] == ["retrieve", "rank", "finish"]
    assert [tool["function"]["name"] for tool in llm.calls[2].tools] == ["finish"]


async def test_a_call_when_no_round_is_left_is_refused(build, task):
    llm = ScriptedLLM([calling(GENRE), calling(NONE), calling(FINISH)])
    trace = await build(llm, rounds=1).run(task)
    assert trace.ended_by == "forced_finish"
    assert trace.counts["reask_no_rounds"] == 1
    assert len(trace.rounds) == 2
    assert purposes(trace) == {"decide": 2, "reask": 1}


async def test_invalid_reply_after_the_re_asks(build, task):
    llm = ScriptedLLM([calling(GENRE), "hm", Completion(text=""), calling(("search", {})), "well"])
    trace = await build(llm, max_reasks=3).run(task)
    assert (trace.ended_by, trace.failure_kind, trace.http_status) == ("invalid_reply", "invalid_reply", None)
    assert "no tool was called" in trace.error
    assert trace.final_items == ()
    assert trace.completed_items == (11, 12, 13, 14, 15)
    assert trace.counts == {
        "reask": 4,
        "reask_no_action": 2,
        "reask_empty": 1,
        "reask_unknown_action": 1,
        "invalid_reply": 1,
    }
    assert purposes(trace) == {"decide": 2, "reask": 3}
    assert trace.rounds[-1].call is None
    assert sum(content.startswith("Not accepted: ") for content in contents(trace)) == 4


async def test_without_re_asks_the_first_unusable_reply_ends_the_user(build, task):
    trace = await build(ScriptedLLM(["hm"]), max_reasks=0).run(task)
    assert (trace.ended_by, purposes(trace)) == ("invalid_reply", {"decide": 1})


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (LLMUnavailableError("gone", http_status=503), "unavailable", 503),
        (LLMUnavailableError("gone"), "unavailable", None),
        (LLMRefusedError("no key", http_status=401), "refused", 401),
        (MessagesRefusedError("filtered", http_status=400), "messages_refused", 400),
        (ContextTooLongError("long", http_status=400), "context_too_long", 400),
    ],
)
async def test_llm_failure_keeps_what_was_done(build, task, error, kind, status):
    trace = await build(ScriptedLLM([calling(GENRE), error])).run(task)
    assert (trace.ended_by, trace.failure_kind, trace.http_status) == ("llm_failure", kind, status)
    assert trace.error == f"{type(error).__name__}: {error}"
    assert trace.completed_items == (11, 12, 13, 14, 15)
    assert trace.counts == {"llm_failure": 1}


async def test_llm_failure_within_a_ranking_ends_the_user_too(build, task):
    trace = await build(ScriptedLLM([calling(GENRE), calling(RANK), LLMUnavailableError("gone")])).run(task)
    assert trace.ended_by == "llm_failure"
    assert purposes(trace) == {"decide": 2}


async def test_a_ranking_that_fails_half_way_keeps_its_usage(build, task):
    llm = ScriptedLLM([calling(GENRE), calling(RANK), "no", LLMUnavailableError("gone"), LLMUnavailableError("gone")])
    trace = await build(llm).run(task)
    assert trace.ended_by == "llm_failure"
    assert purposes(trace) == {"decide": 2, "rank": 1}
    assert trace.counts["rank_llm_failure"] == 1


async def test_llm_failure_after_a_re_ask_keeps_its_usage(build, task):
    trace = await build(ScriptedLLM(["hm", LLMUnavailableError("gone")])).run(task)
    assert (trace.ended_by, purposes(trace)) == ("llm_failure", {"decide": 1})
    assert trace.counts["reask"] == 1


async def test_budget_ends_before_the_next_call(build, task):
    usage = Usage(num_calls=1, num_attempts=1, prompt_tokens=90, completion_tokens=10)
    replies = [Completion(text="", tool_calls=calling(call).tool_calls, usage=usage) for call in (GENRE, NONE, YEAR)]
    trace = await build(ScriptedLLM(replies), user_token_budget=200).run(task)
    assert (trace.ended_by, trace.failure_kind) == ("budget", "token_budget")
    assert "200" in trace.error
    assert purposes(trace) == {"decide": 2}
    assert trace.final_items == () and trace.completed_items


class Hanging:
    """Answers as it is told, and then never again."""

    def __init__(self, *replies: Completion, entered=contextlib.nullcontext) -> None:
        self.replies, self.entered = list(replies), entered

    async def complete(self, messages, *, tools=None, stop=None):
        if self.replies:
            return self.replies.pop(0)
        with self.entered():
            await asyncio.sleep(0.05)
        await asyncio.Event().wait()


async def test_an_llm_that_hangs_ends_its_user_when_the_time_is_up(build, task):
    trace = await build(
        Hanging(calling(GENRE), Completion(text="hm", tool_calls=(), usage=Usage(num_calls=1))), user_timeout_s=0.2
    ).run(task)
    assert trace.ended_by == "budget"
    assert "0.2 seconds" in trace.error
    assert purposes(trace) == {"decide": 1}  # what the broken round had spent is kept
    assert trace.final_items == () and trace.completed_items


async def test_a_tool_that_hangs_ends_its_user_likewise(build, task):
    class Stuck:
        attributes = ("genre",)

        async def retrieve(self, attribute, history, *, k):
            await asyncio.Event().wait()

    trace = await build(ScriptedLLM([calling(GENRE)]), retriever=Stuck(), user_timeout_s=0.1).run(task)
    assert (trace.ended_by, purposes(trace)) == ("budget", {"decide": 1})


async def test_the_seconds_of_earlier_attempts_count(build, task):
    before = await build(Hanging(calling(GENRE)), user_timeout_s=0.1).run(task)
    slow = replace(before.rounds[0], duration_s=3600.0)
    llm = ScriptedLLM([calling(YEAR)])
    trace = await build(llm).run(replace(task, attempt=2), previous_rounds=[slow])
    assert trace.ended_by == "budget"
    assert "3600 seconds" in trace.error
    assert llm.calls == []


async def test_waiting_for_limits_of_our_own_is_not_held_against_a_user(build, task):
    trace = await build(Hanging(entered=uncounted), user_timeout_s=0.01).run(task)
    assert trace.ended_by == "budget"
    assert trace.rounds[0].duration_s < 0.05 <= trace.ended_s - trace.started_s


async def test_cancellation_comes_through_and_completed_rounds_are_told_before(build, task):
    asked_again = asyncio.Event()

    class Waiting:
        async def complete(self, messages, *, tools=None, stop=None):
            if len(messages) > 2:
                asked_again.set()
                await asyncio.Event().wait()
            return calling(GENRE)

    told: list[Round] = []

    async def on_round(done: Round) -> None:
        told.append(done)

    running = asyncio.create_task(build(Waiting()).run(task, on_round=on_round))
    await asyncio.wait_for(asked_again.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [done.number for done in told] == [1]


async def test_unforeseen_errors_come_through(build, task):
    class Broken:
        attributes = ("genre",)

        async def retrieve(self, attribute, history, *, k):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await build(ScriptedLLM([calling(GENRE)]), retriever=Broken()).run(task)


async def test_a_tool_error_is_an_observation_and_costs_a_round(build, task):
    bad = [calling(("retrieve", {"attribute": "director"})), calling(("retrieve", {"attribute": "genre", "k": 99}))]
    trace = await build(ScriptedLLM([*bad, calling(RANK), calling(FINISH)])).run(task)
    assert trace.counts["tool_error"] == 3
    texts = [text for text in contents(trace) if text.startswith("Error: ")]
    assert "none, genre, release_year" in texts[0]
    assert "1 to 50" in texts[1]
    assert "Retrieve first" in texts[2]
    assert texts[2].endswith("\nRounds left: 4")


async def test_a_repeated_call_gets_a_hint_and_is_marked_once(build, task):
    trace = await build(ScriptedLLM([calling(GENRE), calling(GENRE), calling(FINISH)])).run(task)
    assert trace.counts["repeat"] == 1
    assert "\nHint: " in contents(trace)[3]
    assert len(trace.candidates) == 5


class TestFinishLists:
    async def test_refused_entries_are_asked_for_again_with_the_reason(self, build, task):
        bad = ("finish", {"items": ["m11", "m99", "m1", "<m12> Film 13, The (1963)"]})
        trace = await build(ScriptedLLM([calling(GENRE), calling(bad), calling(FINISH)])).run(task)
        assert (trace.ended_by, trace.final_items) == ("finish", (11, 12, 13))
        assert trace.counts["reask_list"] == 1
        assert {k: v for k, v in trace.counts.items() if k.startswith("memory")} == {
            "memory_exact": 4,
            "memory_unknown": 1,
            "memory_seen": 1,
            "memory_mismatch": 1,
        }
        reason = contents(trace)[3]
        assert all(word in reason for word in ("Not accepted: ", "<m99>", "<m1> is in the history", "<m12>"))

    async def test_when_re_asks_are_used_up_refused_slots_stay_empty(self, build, task):
        bad = calling(("finish", {"items": ["m99", "m11"]}))
        trace = await build(ScriptedLLM([calling(GENRE), bad, bad]), max_reasks=1).run(task)
        assert (trace.ended_by, trace.final_items) == ("finish", (0, 11))
        assert trace.completed_items[0] == 11
        assert trace.counts["finish_gave_up"] == 1

    async def test_a_list_without_any_known_item_is_an_invalid_reply(self, build, task):
        bad = calling(("finish", {"items": ["m99"]}))
        trace = await build(ScriptedLLM([calling(GENRE), bad, bad]), max_reasks=1).run(task)
        assert (trace.ended_by, trace.final_items) == ("invalid_reply", ())
        assert trace.completed_items == (11, 12, 13, 14, 15)

    async def test_titles_and_near_titles_are_found(self, build, task):
        finish = calling(("finish", {"items": ["The Film 11", "Film 12 (1962)", "Fiilm 13, The (1963)", "m14"]}))
        trace = await build(ScriptedLLM([finish])).run(task)
        assert trace.final_items == (11, 12, 13, 14)
        assert (trace.counts["memory_title"], trace.counts["memory_near"]) == (2, 1)

    async def test_a_short_list_keeps_its_length_and_a_long_one_is_cut(self, build, task):
        long = calling(("finish", {"items": [f"m{i}" for i in range(20, 40)]}))
        trace = await build(ScriptedLLM([long])).run(task)
        assert trace.final_items == tuple(range(20, 30))
        assert trace.counts["list_cut"] == 1

    async def test_without_the_memory_check_nothing_is_asked_again(self, build, task):
        finish = calling(("finish", {"items": ["m99", "m11", "Film 12, The"]}))
        trace = await build(ScriptedLLM([finish]), memory_check=False).run(task)
        assert (trace.ended_by, trace.final_items) == ("finish", (0, 11, 0))

    async def test_a_plain_list_counts_as_finish(self, build, task):
        llm = ScriptedLLM([calling(GENRE), "I am done.\nMy list:\n1. <m11>\n2. <m12>"])
        trace = await build(llm, list_length=2).run(task)
        assert (trace.ended_by, trace.final_items) == ("finish", (11, 12))
        assert trace.counts["repaired_plain_list"] == 1

    @pytest.mark.parametrize("ids", [("m11", "m40"), ("m11",), ("m1", "m2")])
    async def test_a_plain_list_that_is_short_or_not_of_candidates_is_asked_again(self, build, task, ids):
        prose = "My list:\n" + "\n".join(f"<{item}>" for item in ids)
        trace = await build(ScriptedLLM([calling(GENRE), prose, calling(FINISH)]), list_length=2, mask_seen=False).run(task)
        assert trace.final_items == (11, 12)
        assert trace.counts["reask_no_action"] == 1


class TestRepliesInNeed:
    async def test_what_was_repaired_is_counted_and_echoed_repaired(self, build, task):
        call = LLMToolCall(id="", name="functions.retrieve", arguments="{'attribute': 'genre', 'k': 5,}")
        llm = ScriptedLLM([Completion(text="", tool_calls=(call,)), calling(FINISH)])
        trace = await build(llm).run(task)
        assert {kind: count for kind, count in trace.counts.items() if kind.startswith("repaired")} == {
            "repaired_tool_name": 1,
            "repaired_json": 1,
        }
        echoed = llm.calls[1].messages[2]["tool_calls"][0]
        assert (echoed["function"]["name"], json.loads(echoed["function"]["arguments"])) == ("retrieve", GENRE[1])
        assert len(echoed["id"]) == 9 and echoed["id"].isalnum()

    async def test_fields_that_we_do_not_know_are_sent_back(self, build, task):
        call = replace(calling(GENRE).tool_calls[0], extra={"extra_content": {"signature": "c2ln"}})
        reply = Completion(text="", tool_calls=(call,), extra={"reasoning_content": "hm"})
        llm = ScriptedLLM([reply, calling(FINISH)])
        await build(llm).run(task)
        echoed = llm.calls[1].messages[2]
        assert echoed["reasoning_content"] == "hm"
        assert echoed["tool_calls"][0]["extra_content"] == {"signature": "c2ln"}

    async def test_a_list_that_the_token_limit_has_cut_is_asked_again(self, build, task):
        text = "My list:\n1. <m11>\n2. <m12>"
        llm = ScriptedLLM([calling(GENRE), Completion(text=text, finish_reason="length"), calling(FINISH)])
        trace = await build(llm, list_length=2).run(task)
        assert (trace.counts["cut_off"], trace.counts["reask_cut_off"]) == (1, 1)
        assert "--llm-max-output-tokens" in llm.calls[2].messages[-1]["content"]

    @pytest.mark.parametrize(("finish_reason", "counter"), [("refusal", "llm_refusal"), ("content_filter", "content_filter")])
    async def test_a_refusal_has_a_counter_of_its_own(self, build, task, finish_reason, counter):
        llm = ScriptedLLM([Completion(text="I would rather not", finish_reason=finish_reason)])
        trace = await build(llm, max_reasks=0).run(task)
        assert trace.counts[counter] == 1
        assert "refused" in trace.error or "filter" in trace.error

    @pytest.mark.parametrize(
        "items",
        [
            ["M11", "M12", "M13"],
            ["[m11]", "(m12)", "`m13`"],
            ["m11 - Film 11, The", "m12: Film 12, The (1962)", "m13 Film 13, The (1963)"],
            ["&lt;m11&gt;", "＜m12＞", "<\u200bm13\u200b>"],
            ["id: m11", "item m12", "Film 13, The (m13)"],
            ["m11 m12 m13"],
            [11, 12, 13],
            [1, 2, 3],
        ],
    )
    async def test_ids_in_other_forms(self, build, task, items):
        llm = ScriptedLLM([calling(GENRE), calling(("finish", {"items": items}))])
        trace = await build(llm).run(task)
        assert (trace.ended_by, trace.final_items) == ("finish", (11, 12, 13))
        assert any(kind in trace.counts for kind in ("memory_form", "list_taken_apart", "list_of_digits", "list_of_positions"))

    async def test_numbers_that_could_be_positions_or_ids_are_asked_again(self, build, task):
        many = ("retrieve", {"attribute": "genre", "k": 15})
        llm = ScriptedLLM([calling(many), calling(("finish", {"items": ["11", "12"]})), calling(FINISH)])
        trace = await build(llm).run(task)
        assert trace.final_items == (11, 12, 13) and trace.counts["reask_list"] == 1

    async def test_an_id_in_another_form_with_another_items_title_is_asked_again(self, build, task):
        llm = ScriptedLLM([calling(GENRE), calling(("finish", {"items": ["M11: Film 40, The (1990)"]})), calling(FINISH)])
        trace = await build(llm).run(task)
        assert trace.final_items == (11, 12, 13) and trace.counts["reask_list"] == 1


class TestFinalRank:
    async def test_one_more_ranking_makes_the_list(self, build, task):
        llm = ScriptedLLM([calling(GENRE), calling(FINISH), "<m15>\n<m14>"])
        trace = await build(llm, finish_policy="final_rank").run(task)
        assert (trace.ended_by, trace.final_items) == ("finish", (15, 14))
        assert trace.completed_items[:2] == (15, 14)
        assert purposes(trace) == {"decide": 2, "final_rank": 1}
        assert llm.calls[2].messages[1]["content"].endswith("Rank by: none\nReturn: 5")

    async def test_an_unusable_ranking_leaves_the_list_as_given(self, build, task):
        llm = ScriptedLLM([calling(GENRE), calling(FINISH), "no", "no"])
        trace = await build(llm, finish_policy="final_rank", max_reasks=1).run(task)
        assert trace.final_items == (11, 12, 13)
        assert trace.counts["final_rank_failed"] == 1

    async def test_without_candidates_there_is_nothing_to_rank(self, build, task):
        trace = await build(ScriptedLLM([calling(FINISH)]), finish_policy="final_rank").run(task)
        assert trace.final_items == (11, 12, 13)


class TestParallelCalls:
    @pytest.mark.parametrize("calls", [(GENRE, FINISH), (FINISH, GENRE)])
    async def test_a_finish_beside_other_calls_is_asked_again(self, build, task, calls):
        later = ("finish", {"items": ["m15", "m14"]})
        trace = await build(ScriptedLLM([calling(*calls), calling(later)])).run(task)
        assert [done.call.name for done in trace.rounds] == ["retrieve", "finish"]
        assert trace.final_items == (15, 14)
        assert trace.counts["reask_finish_beside_calls"] == 1

    async def test_ids_of_calls_are_unique_in_a_conversation(self, build, task):
        llm = ScriptedLLM([calling(GENRE), calling(NONE), calling(FINISH)])
        await build(llm).run(task)
        ids = [call["id"] for message in llm.calls[-1].messages for call in message.get("tool_calls", ())]
        assert len(set(ids)) == len(ids) == 2
        assert ids == [message["tool_call_id"] for message in llm.calls[-1].messages if message["role"] == "tool"]

    async def test_each_call_is_a_round_and_has_its_answer(self, build, task):
        llm = ScriptedLLM([calling(GENRE, NONE, YEAR), calling(FINISH)])
        trace = await build(llm).run(task)
        assert [done.observation.mark for done in trace.rounds[:3]] == [
            "Retrieve[genre]",
            "Retrieve[none]",
            "Retrieve[release_year]",
        ]
        assert purposes(trace) == {"decide": 2}
        answers = [m for m in llm.calls[1].messages if m["role"] == "tool"]
        assert [m["tool_call_id"] for m in answers] == ["call_1", "call_2", "call_3"]
        assert [m["content"][-1] for m in answers] == ["6", "5", "4"]

    async def test_calls_beyond_the_rounds_left_are_answered_but_not_carried_out(self, build, task):
        llm = ScriptedLLM([calling(GENRE, NONE, YEAR), calling(FINISH)])
        trace = await build(llm, rounds=2).run(task)
        assert trace.ended_by == "forced_finish"
        assert len(trace.rounds) == 3
        answers = [m for m in llm.calls[1].messages if m["role"] == "tool"]
        assert answers[2]["content"].startswith("Not accepted: no rounds are left")

    async def test_an_unreadable_call_among_them_is_answered_in_its_place(self, build, task):
        llm = ScriptedLLM([calling(GENRE, ("rank", "{broken"), NONE), calling(FINISH)])
        trace = await build(llm).run(task)
        assert trace.ended_by == "finish" and len(trace.rounds) == 3
        answers = [m for m in llm.calls[1].messages if m["role"] == "tool"]
        assert [m["tool_call_id"] for m in answers] == ["call_1", "call_2", "call_3"]
        assert answers[1]["content"].startswith("Not accepted: the arguments are not")

    async def test_replies_are_echoed_as_received(self, build, task):
        reply = calling(GENRE, text="why")
        llm = ScriptedLLM([reply, calling(FINISH)])
        await build(llm).run(task)
        assert llm.calls[1].messages[2] == {
            "role": "assistant",
            "content": "why",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "retrieve", "arguments": reply.tool_calls[0].arguments}}
            ],
        }


class TestTextProtocol:
    async def test_the_conversation_has_the_papers_form(self, build, task):
        llm = ScriptedLLM(
            ["Thought 1: a\nAction 1: Retrieve[genre, 5]\nObservation 1: <m1>", "what?", "Action 2: Finish[<m11>, <m12>]"]
        )
        trace = await build(llm, protocol="text").run(task)
        assert (trace.ended_by, trace.final_items) == ("finish", (11, 12))
        assert llm.calls[0].tools is None and llm.calls[0].stop == ("\nObservation",)
        last = llm.calls[2].messages
        assert [message["role"] for message in last] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert last[2]["content"] == "Thought 1: a\nAction 1: Retrieve[genre, 5]"
        assert last[3]["content"].startswith("Observation 1:\nRetrieve[genre, 5] returned 5 items:\n1. <m11> ")
        assert last[5]["content"].startswith("Not accepted: no action found") and "Thought 2:" in last[5]["content"]
        assert trace.rounds[0].thought == "a"

    async def test_both_protocols_give_the_same_lists(self, build, task):
        native = [
            calling(GENRE),
            calling(RANK),
            RANKED,
            calling(("retrieve", {"attribute": "director", "k": 20})),
            calling(FINISH),
        ]
        text = [
            "Action 1: Retrieve[genre, 5]",
            "Action 2: Rank[mood, 3]",
            RANKED,
            "Action 3: Retrieve[director, 20]",
            "Action 4: Finish[m11, m12, m13]",
        ]
        first = await build(ScriptedLLM(native)).run(task)
        second = await build(ScriptedLLM(text), protocol="text").run(task)
        assert first.final_items == second.final_items
        assert first.completed_items == second.completed_items
        assert first.candidates == second.candidates
        assert first.counts == second.counts
        assert [r.observation.text for r in first.rounds[:3]] == [r.observation.text for r in second.rounds[:3]]


async def test_reasoning_is_the_thought_where_the_reply_has_none(build, task):
    reply = Completion(text="", tool_calls=calling(FINISH).tool_calls, reasoning="because")
    trace = await build(ScriptedLLM([reply])).run(task)
    assert trace.rounds[0].thought == "because"


@pytest.mark.parametrize("protocol", ["tools", "text"])
async def test_half_surrogates_leave_nothing_that_cannot_be_written(build, task, protocol):
    half = "\ud83d"
    script = [
        Completion(text=f"x{half}", reasoning=half),
        calling(("retrieve", json.dumps({"attribute": f"mood{half}"})), text=half),
        calling((f"re{half}", f'{{"k": "{half}"')),
        f"Action 1: Rank[a{half}, 5]",
        calling(("finish", json.dumps({"items": [f"m11{half}", f"<{half}>"]}))),
        f"Action 2: Finish[<m11>, {half}]",
        Completion(text=f"<m11>\n<m12>{half}"),
    ]
    trace = await build(ScriptedLLM(script), protocol=protocol, max_reasks=10).run(task)
    for done in trace.rounds:
        written = json.dumps([done.messages, done.thought, asdict(done)["call"]], ensure_ascii=False)
        assert written.encode()
    assert (trace.error or "").encode() is not None


async def test_a_thought_may_speak_of_observations(build, task):
    llm = ScriptedLLM(["Thought 1: From Observation 0 I know enough.\nAction 1: Finish[<m11>]"])
    trace = await build(llm, protocol="text").run(task)
    assert (trace.ended_by, trace.rounds[0].thought) == ("finish", "From Observation 0 I know enough.")


async def test_rank_may_be_left_out(pool, task, build):
    llm = ScriptedLLM([calling(RANK), calling(FINISH)])
    with_both = build(llm)
    surrogate = Surrogate(config=SurrogateConfig(), pool=pool, llm=llm, tools={"retrieve": with_both._tools["retrieve"]})
    trace = await surrogate.run(task)
    assert trace.counts["reask_unknown_action"] == 1
    assert "Rank[" not in trace.opening[0]["content"]


def test_a_surrogate_needs_a_retrieval_tool(pool):
    llm = ScriptedLLM([])
    for tools in ({}, {"rank": RankTool(llm, pool)}, {"search": RankTool(llm, pool)}):
        with pytest.raises(ConfigError, match="retrieve"):
            Surrogate(config=SurrogateConfig(), pool=pool, llm=llm, tools=tools)


@pytest.mark.parametrize(
    "settings",
    [
        {"protocol": "xml"},
        {"finish_policy": "x"},
        {"rounds": 0},
        {"list_length": 0},
        {"user_token_budget": 0},
        {"user_timeout_s": 0.0},
        {"max_k": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        SurrogateConfig(**settings)


def test_protocols_are_satisfied(build):
    llm = ScriptedLLM([])
    assert isinstance(llm, LLM)
    assert isinstance(build(llm), Strategy)
