"""The package's strategies with a scripted LLM: what each asks, how each ends, and that each goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from toolrec.data import Pool
from toolrec.data.obscure import obscured
from toolrec.data.pool import MOVIES
from toolrec.errors import ConfigError, LLMUnavailableError
from toolrec.grammar import lines_after
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.app import answer
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.llm.scripted import ScriptedLLM, calling
from toolrec.records import Completion, LLMToolCall, Message, Round, Trace, Usage
from toolrec.surrogate import Strategy, SurrogateConfig
from toolrec.surrogate.strategies import STRATEGIES, check_strategy, load_strategy, settings_of, takes_protocol
from toolrec.tools.rank import RankTool
from toolrec.tools.retrieval import RetrievalTool

BY_RULES = [name for name in STRATEGIES if name != "zero-shot"]
FIVE = {"candidates": 5, "list_length": 3}


@pytest.fixture
def make(pool, build):
    """Builds a strategy by name over the shifted lists of `conftest`."""
    retriever = type(build(ScriptedLLM([]))._tools["retrieve"]._retriever)  # the test's own retriever

    def make_strategy(name: str, llm, *, pool=pool, **settings) -> Strategy:
        config = SurrogateConfig(strategy=name, **settings)
        tools = {
            "retrieve": RetrievalTool(retriever=retriever(), pool=pool, config=config),
            "rank": RankTool(llm=llm, pool=pool, config=config),
        }
        return load_strategy(name)(config=config, pool=pool, llm=llm, tools=tools)

    return make_strategy


def shown_candidates(messages: Sequence[Message]) -> list[str]:
    return [line.item_id for line in lines_after("Candidates:", messages[-1]["content"])]


def rules(messages: Sequence[Message]) -> Completion:
    """What the embedded rules answer, without HTTP."""
    return rules_with(None)(messages)


def rules_with(tools) -> Callable[[Sequence[Message]], Completion]:
    def reply(messages: Sequence[Message]) -> Completion:
        request = {"model": MODEL_NAME, "messages": list(messages), **({"tools": list(tools)} if tools else {})}
        message = answer(request, EmbeddedOptions())["choices"][0]["message"]
        calls = tuple(
            LLMToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
            for call in message.get("tool_calls", ())
        )
        return Completion(text=message["content"], tool_calls=calls)

    return reply


class RulesLLM:
    """The embedded rules as an LLM in the process."""

    async def complete(self, messages, *, tools=None, stop=None, response_format=None) -> Completion:
        completion = rules_with(tools)(messages)
        return replace(completion, usage=Usage(num_calls=1, num_attempts=1, prompt_tokens=100, completion_tokens=10))


async def test_llmrank_ranks_shuffled_candidates_and_takes_the_mean_position(make, task):
    """m1 to m4 are the history, so that the plain list is m5 to m9."""
    rankings = ["m5 m6 m7 m8 m9", "m7 m5 m6 m9 m8", "m7 m6 m5 m8 m9"]
    llm = ScriptedLLM(["\n".join(f"<{item}>" for item in ranking.split()) for ranking in rankings])
    trace = await make("llmrank", llm, **FIVE).run(task)
    assert [done.call.name for done in trace.rounds] == ["retrieve", "rank", "rank", "rank", "finish"]
    # Sums of positions: m5 1 + 2 + 3 = 6, m6 2 + 3 + 2 = 7, m7 3 + 1 + 1 = 5.
    assert trace.final_items == (7, 5, 6)
    assert (trace.ended_by, trace.strategy) == ("finish", "llmrank")
    orders = [shown_candidates(call.messages) for call in llm.calls]
    assert {tuple(sorted(order)) for order in orders} == {("m5", "m6", "m7", "m8", "m9")}
    assert len({tuple(order) for order in orders}) > 1
    assert "turned to last: <m4>" in llm.calls[0].messages[1]["content"]
    assert all(len(call.messages) == 2 and call.tools is None for call in llm.calls)  # each a request of its own


async def test_llmrank_puts_what_a_ranking_leaves_out_behind(make, task):
    llm = ScriptedLLM(["<m9>\n<m8>", "<m9>\n<m5>"])
    trace = await make("llmrank", llm, bootstraps=2, **FIVE).run(task)
    # m9 1 + 1, m5 6 + 2, m8 2 + 6: equal, and m5 was fetched first.
    assert trace.final_items == (9, 5, 8)


async def test_an_item_that_is_no_candidate_is_asked_for_again(make, task):
    llm = ScriptedLLM(["<m40>\n<m5>\n<m6>", "<m6>\n<m5>\n<m7>"])
    trace = await make("chat-rec", llm, **FIVE).run(task)
    assert trace.final_items == (6, 5, 7)
    assert trace.counts["reask_list"] == 1
    assert "not one of the candidates" in llm.calls[1].messages[-1]["content"]
    assert {purpose: used.num_calls for purpose, used in trace.usage.items()} == {"decide": 1, "reask": 1}


async def test_after_the_re_asks_the_refused_slot_stays_empty(make, task):
    trace = await make("chat-rec", ScriptedLLM(["<m40>\n<m5>"] * 3), max_reasks=2, **FIVE).run(task)
    assert trace.final_items == (0, 5)
    assert trace.completed_items == (5, 6, 7)
    assert trace.counts["finish_gave_up"] == 1


@pytest.mark.parametrize("name", ["llmrank", "chat-rec"])
async def test_no_list_at_all_is_an_invalid_reply(make, task, name):
    trace = await make(name, ScriptedLLM(["", "I cannot say.", ""]), max_reasks=2, **FIVE).run(task)
    assert (trace.ended_by, trace.final_items) == ("invalid_reply", ())
    assert trace.error == "the reply is empty"


@pytest.mark.parametrize("name", ["llmrank", "chat-rec"])
async def test_limits_and_failures_end_a_user(make, task, name):
    trace = await make(name, ScriptedLLM([]), user_token_budget=1, **FIVE).run(task)
    assert trace.ended_by == "llm_failure"  # nothing is spent before the first reply, which the script does not have
    trace = await make(name, ScriptedLLM([LLMUnavailableError("gone")]), **FIVE).run(task)
    assert (trace.ended_by, trace.failure_kind) == ("llm_failure", "unavailable")
    trace = await make(name, ScriptedLLM(["<m40>"] * 9), user_token_budget=10, **FIVE).run(task)
    assert trace.ended_by == "budget"


async def test_chat_rec_shows_the_whole_histories_profile_and_the_recommenders_order(make, task):
    llm = ScriptedLLM(["<m5>\n<m6>\n<m7>"])
    await make("chat-rec", llm, prompt_history_length=2, **FIVE).run(task)
    prompt = llm.calls[0].messages[-1]["content"]
    assert shown_candidates(llm.calls[0].messages) == ["m5", "m6", "m7", "m8", "m9"]
    assert [line.item_id for line in lines_after("History (oldest first):", prompt)] == ["m3", "m4"]
    # Ratings 5, 3, 2, 4.5; of the two genres the first goes round through four, the second is Drama for items 1 to 4.
    assert f"- mean rating: {(5 + 3 + 2 + 4.5) / 4:.1f}" in prompt
    assert "- rated highest: <m1> Film 1, The (1951); <m4>" in prompt
    assert "- genre: Drama 100%; Comedy 25%; War 25%; Crime 25%" in prompt
    assert "- release_year: median 1952, the middle half 1952 to 1954" in prompt


async def test_rank_only_begins_with_the_plain_list(make, task):
    llm = ScriptedLLM([calling(("rank", {"attribute": "mood", "k": 2})), "<m8>\n<m5>", calling(("finish", {"items": ["m8"]}))])
    trace = await make("rank-only", llm, **FIVE).run(task)
    assert [done.call.mark for done in trace.rounds[:2]] == ["Retrieve[none]", "Rank[mood]"]
    assert (trace.final_items, trace.ended_by) == ((8,), "finish")
    assert [tool["function"]["name"] for tool in llm.calls[0].tools] == ["rank", "finish"]
    system, _, given = llm.calls[0].messages
    assert "Retrieve[" not in system["content"] and "given the 5 movies" in system["content"]
    assert given["content"].startswith("Retrieve[none, 5] returned 5 items:") and given["content"].endswith("Rounds left: 6")


async def test_retrieval_only_offers_no_ranking(make, task):
    llm = ScriptedLLM([calling(("rank", {"attribute": "mood", "k": 2})), calling(("finish", {"items": ["m8"]}))])
    trace = await make("retrieval-only", llm).run(task)
    assert trace.counts["reask_unknown_action"] == 1
    assert "Rank[" not in trace.opening[0]["content"]


@pytest.mark.parametrize(("attribute", "other"), [("genre", "none"), ("none", "genre")])
async def test_one_tool_has_no_other(make, task, attribute, other):
    calls = [("retrieve", {"attribute": name, "k": 5}) for name in (other, attribute)]
    llm = ScriptedLLM([calling(calls[0]), calling(calls[1]), calling(("finish", {"items": ["m11"]}))])
    trace = await make("one-tool", llm, only_attribute=attribute).run(task)
    assert trace.counts["tool_error"] == 1
    assert {candidate.mark for candidate in trace.candidates} == {f"Retrieve[{attribute}]"}
    enum = llm.calls[0].tools[0]["function"]["parameters"]["properties"]["attribute"]["enum"]
    assert enum == [attribute]
    assert f"Attributes: {attribute}\n" in trace.opening[1]["content"]
    assert f"\n  {other}:" not in trace.opening[0]["content"]


PLAN = """I would do this:
1. Retrieve[genre, 5]
2. **Rank[mood, 2]**
- Retrieve[nothing, 5]
Finish[<m1>]
Retrieve[none, 5]"""


async def test_plan_once_carries_its_plan_out_and_then_asks_for_the_list(make, task):
    llm = ScriptedLLM([PLAN, "<m12>\n<m11>", "Thought: good.\nAction: Finish[<m12>, <m11>, <m13>]"])
    trace = await make("plan-once", llm, list_length=3).run(task)
    assert [done.call.name for done in trace.rounds] == ["retrieve", "rank", "retrieve", "finish"]
    assert (trace.final_items, trace.ended_by, trace.counts["tool_error"]) == ((12, 11, 13), "finish", 1)
    planned, _, finishing = llm.calls  # the one in the middle is the rank tool's own
    assert "Calls in the plan, at most: 7\n" in planned.messages[1]["content"]
    observations = [message["content"] for message in finishing.messages[3:]]
    assert [text.partition("\n")[0] for text in observations] == [f"Observation {number}:" for number in (1, 2, 3)]
    assert "\nRounds left: 1" in observations[1] and "Rounds left: 0\nFinish now" in observations[2]


async def test_a_plan_is_asked_for_again_and_cut_at_the_rounds(make, task):
    llm = ScriptedLLM(["Let me see.", PLAN, "<m12>\n<m11>", "<m12>\n<m11>\n<m13>"])
    strategy = make("plan-once", llm, list_length=3, rounds=2)
    trace = await strategy.run(task)
    assert [done.call.name for done in trace.rounds] == ["retrieve", "rank", "finish"]
    assert (trace.counts["plan_cut"], trace.counts["reask_no_action"]) == (1, 1)
    rest = ScriptedLLM(["<m12>\n<m11>", "<m12>\n<m11>\n<m13>"])
    resumed = await make("plan-once", rest, list_length=3, rounds=2).run(task, previous_rounds=trace.rounds[:1])
    assert timeless(resumed) == timeless(trace)


TITLES = """Here are four:
1. The Wedding of Lantern Harbour (1968)
2. The Robery of Velvet Underpass (1960)
3. Casablanca (1942)
4. Robbery of Winter Orchard, The (1951)"""


async def test_zero_shot_matches_titles_and_counts_what_is_invented(make, task, named_pool):
    """Item i is `events[i % 9] of places[i % 6], The (1950 + i)`: items 18, 10 with a slip, none, and 1 of the history."""
    llm = ScriptedLLM([TITLES])
    trace = await make("zero-shot", llm, pool=named_pool, list_length=4).run(task)
    assert trace.final_items == (18, 10, 0, 0)
    counts = {"memory_title": 1, "memory_near": 1, "memory_unknown": 1, "memory_seen": 1, "invented_titles": 1}
    assert trace.counts == counts
    assert trace.ended_by == "finish" and len(llm.calls) == 1 and trace.candidates == ()
    prompt = llm.calls[0].messages[1]["content"]
    assert "<m" not in prompt and "4. " in prompt and "| rating: 4.5" in prompt


async def test_zero_shot_asks_again_where_there_is_no_list(make, task, named_pool):
    trace = await make("zero-shot", ScriptedLLM(["", TITLES]), pool=named_pool, list_length=4).run(task)
    assert (trace.ended_by, trace.counts["reask_empty"]) == ("finish", 1)


@pytest.mark.parametrize("protocol", ["tools", "text", "json"])
async def test_no_cot_asks_for_no_thought_and_keeps_none(make, task, protocol):
    call, finish = {"attribute": "genre", "k": 5}, {"items": ["m11", "m12", "m13"]}
    script = {
        "tools": [calling(("retrieve", call), text="a thought"), calling(("finish", finish), text="another")],
        "text": ["Thought 1: a thought\nAction 1: Retrieve[genre, 5]", "A thought\nAction 2: Finish[<m11>, <m12>, <m13>]"],
        "json": [
            json.dumps({"thought": "a thought", "action": {"tool": "retrieve", **call}}),
            json.dumps({"thought": "a thought", "action": {"tool": "finish", **finish}}),
        ],
    }[protocol]
    llm = ScriptedLLM(script)
    trace = await make("no-cot", llm, protocol=protocol).run(task)
    assert trace.final_items == (11, 12, 13)
    assert trace.counts["repaired_thought_left_out"] == 2
    conversation = json.dumps([done.messages for done in trace.rounds])
    assert "hought" not in conversation
    system = trace.opening[0]["content"]
    assert "Thought" not in system and "you think" not in system
    assert trace.opening[1]["content"].count("Thoughts: none") == 1
    if protocol == "json":
        assert list(llm.calls[0].response_format["json_schema"]["schema"]["properties"]) == ["action"]


@pytest.mark.parametrize("protocol", ["tools", "json"])
@pytest.mark.parametrize("name", BY_RULES)
async def test_the_embedded_rules_answer_every_strategy(make, task, name, protocol):
    trace = await make(name, RulesLLM(), protocol=protocol).run(task)
    assert trace.ended_by == "finish", trace.error
    assert len(trace.final_items) == 10 and all(trace.final_items) and len(set(trace.final_items)) == 10
    assert not set(trace.final_items) & set(task.history)
    assert "reask" not in trace.counts and "tool_error" not in trace.counts


@pytest.mark.parametrize("name", ["toolrec", "chat-rec"])
async def test_obscured_names_change_no_list_of_rules_that_know_none(make, task, pool, name):
    """And no real name is in any message: what the LLM is told is the obscured pool alone."""
    other = obscured(pool, "both")
    plain, hidden = [await make(name, RulesLLM(), pool=one).run(task) for one in (pool, other)]
    assert hidden.final_items == plain.final_items
    told = json.dumps([hidden.opening, *(done.messages for done in hidden.rounds)])
    assert "Movie " in told and not any(f"<{item_id}>" in told for item_id in pool.item_ids[1:])
    assert not any(title in told for title in pool.titles[1:])


@pytest.mark.parametrize("name", BY_RULES)
async def test_a_user_goes_on_after_any_round(make, task, name):
    strategy = make(name, RulesLLM(), protocol="text")
    told: list[Round] = []

    async def on_round(done: Round) -> None:
        told.append(done)

    whole = await strategy.run(task, on_round=on_round)
    assert tuple(told) == whole.rounds
    for cut in range(len(told) + 1):
        resumed = await strategy.run(task, previous_rounds=whole.rounds[:cut])
        assert timeless(resumed) == timeless(whole)


def timeless(trace: Trace) -> Trace:
    rounds = tuple(replace(done, duration_s=0.0) for done in trace.rounds)
    return replace(trace, rounds=rounds, started_s=0.0, ended_s=0.0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_a_strategy_and_says_where_it_is_from(make, name):
    strategy = make(name, ScriptedLLM([]))
    assert isinstance(strategy, Strategy)
    assert name == "toolrec" or "Source:" in type(strategy).__doc__


def test_an_unknown_strategy_names_those_that_there_are():
    with pytest.raises(ConfigError, match="llmrank, chat-rec") as raised:
        load_strategy("lmrank")
    assert raised.value.hint == "did you mean llmrank?"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "one-tool", "only_attribute": "mood"}, "one-tool has no such tool"),
        ({"strategy": "rank-only", "rounds": 1}, "takes one round"),
        ({"strategy": "llmrank", "finish_policy": "final_rank"}, "gives its own final list"),
        ({"strategy": "nowhere:Thing"}, "no strategy here"),
        ({"strategy": "zero-shot", "memory_check": False}, "only memory reads"),
        ({"strategy": "zero-shot", "obscure": "both"}, "--obscure takes away"),
        ({"strategy": "plan-once", "finish_policy": "final_rank"}, "gives its own final list"),
    ],
)
def test_what_would_only_fail_is_refused_before_the_run(pool, settings, words):
    with pytest.raises(ConfigError, match=words):
        check_strategy(SurrogateConfig(**settings), pool=pool, attributes=("genre",), model="gpt-next")


def test_zero_shot_needs_an_llm_and_titles(pool):
    untitled = Pool(item_ids=["", "a", "b"], titles=["", "a", ""], attributes=[], values={}, domain=MOVIES)
    config = SurrogateConfig(strategy="zero-shot")
    check_strategy(config, pool=pool, attributes=(), model="gpt-next")
    with pytest.raises(ConfigError, match="the embedded rules know no titles"):
        check_strategy(config, pool=pool, attributes=(), model=MODEL_NAME)
    with pytest.raises(ConfigError, match="have none"):
        check_strategy(config, pool=untitled, attributes=(), model="gpt-next")


async def test_the_rules_plan_what_tells_most(make, task):
    trace = await make("plan-once", RulesLLM()).run(task)
    assert trace.rounds[0].messages[0]["content"].splitlines()[0] == "Retrieve[none, 20]"
    assert {done.call.mark for done in trace.rounds[:3]} == {"Retrieve[none]", "Retrieve[genre]", "Retrieve[release_year]"}


def test_the_protocol_names_what_a_strategy_reads():
    assert takes_protocol("no-cot") and not takes_protocol("llmrank")
    assert settings_of("llmrank") == {"candidates", "bootstraps"}
    assert settings_of("toolrec") == frozenset()


async def test_what_the_client_counts_is_counted_once(make, task):
    told = Completion(text="<m6>\n<m5>\n<m7>", counts={"injected": 2})
    trace = await make("chat-rec", ScriptedLLM([told]), **FIVE).run(task)
    assert trace.counts["injected"] == 2
