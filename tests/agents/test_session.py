"""An agent that is no framework's: the session keeps the memory's rules, the limits and the records. No Ray, no extra."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from toolrec.agents.base import ENDED_WITHOUT_LIST, AgentStrategy
from toolrec.data import AttributeSpec, Pool
from toolrec.data.pool import MOVIES
from toolrec.errors import ConfigError, LLMUnavailableError
from toolrec.llm.scripted import ScriptedLLM, calling
from toolrec.records import RankedItem, Round, Trace, UserTask
from toolrec.surrogate import Surrogate, SurrogateConfig
from toolrec.surrogate.session import ToolSession
from toolrec.tools.rank import RankTool
from toolrec.tools.retrieval import RetrievalTool

NUM_ITEMS = 40
TASK = UserTask(user_index=7, user_id="u7", history=(1, 2, 3))
POOL = Pool(
    item_ids=["", *(f"m{i}" for i in range(1, NUM_ITEMS + 1))],
    titles=["", *(f"Film {i}" for i in range(1, NUM_ITEMS + 1))],
    attributes=[AttributeSpec(name="genre", kind="category")],
    values={"genre": ["War"] * NUM_ITEMS},
    domain=MOVIES,
)
RETRIEVE = ("retrieve", {"attribute": "genre", "k": 12})
FINISH = ("finish", {"items": [f"m{i}" for i in range(10, 20)]})


class Upwards:
    """The items in their order, unseen ones only."""

    attributes = ("genre",)

    async def retrieve(self, attribute: str, history: Any, *, k: int) -> list[RankedItem]:
        return [RankedItem(item_index=i, score=1.0) for i in range(1, NUM_ITEMS + 1) if i not in history][:k]


class Plain(AgentStrategy):
    """Asks, and makes the calls of the reply, all at once; what a framework's loop does."""

    async def act(self, session: ToolSession) -> None:
        while True:
            before = len(session.messages)
            await session.ask(self.llm, session.messages, self.parts.schemas)
            calls = session.messages[before].get("tool_calls") or ()
            if not calls:
                return
            import json

            await asyncio.gather(
                *(session.call(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls)
            )


def simulate(llm: Any, *, kind: Callable[..., Any] = Plain, previous: tuple[Round, ...] = (), **settings: Any) -> Trace:
    config = SurrogateConfig(**settings)
    tools = {"retrieve": RetrievalTool(Upwards(), POOL, config), "rank": RankTool(llm, POOL, config)}
    strategy = kind(config=config, pool=POOL, llm=llm, tools=tools)
    return asyncio.run(strategy.run(TASK, previous_rounds=previous))


def script(*replies: Any) -> ScriptedLLM:
    return ScriptedLLM([reply if not isinstance(reply, tuple) else calling(reply, text="so") for reply in replies])


def plain_rounds(trace: Trace) -> list[tuple[Any, ...]]:
    """What of the rounds does not depend on time."""
    return [(r.number, r.thought, r.call, r.observation, r.messages, dict(r.usage), dict(r.counts)) for r in trace.rounds]


def test_rounds_and_lists_are_those_of_the_surrogate():
    replies = (RETRIEVE, ("rank", {"attribute": "mood", "k": 5}), "<m9>\n<m8>\n<m7>\n<m6>\n<m5>", RETRIEVE, FINISH)
    own, other = (simulate(script(*replies), kind=kind) for kind in (Surrogate, Plain))
    assert plain_rounds(own) == plain_rounds(other)
    for name in ("opening", "final_items", "completed_items", "candidates", "ended_by", "error", "usage", "counts"):
        assert getattr(own, name) == getattr(other, name), name
    assert own.ended_by == "finish" and own.final_items == tuple(range(10, 20))


def test_a_list_with_unknown_items_is_refused_with_the_reason():
    trace = simulate(script(RETRIEVE, ("finish", {"items": ["m99", "m5"]}), FINISH))
    assert trace.ended_by == "finish" and trace.counts["reask_list"] == 1
    assert "m99" in trace.rounds[-1].messages[1]["content"] and trace.rounds[-1].messages[1]["role"] == "tool"


def test_an_agent_that_does_not_give_in_ends_as_a_failed_user():
    trace = simulate(script(RETRIEVE, *[("finish", {"items": ["m99"]})] * 9), max_reasks=2)
    assert (trace.ended_by, trace.failure_kind, trace.final_items) == ("invalid_reply", "invalid_reply", ())
    assert trace.counts["reask"] == 3


def test_no_call_is_carried_out_after_the_last_round():
    trace = simulate(script(RETRIEVE, RETRIEVE, FINISH), rounds=1)
    assert trace.ended_by == "forced_finish" and trace.counts["reask_no_rounds"] == 1
    assert [done.call.name for done in trace.rounds] == ["retrieve", "finish"]


def test_calls_made_at_once_are_rounds_one_after_the_other():
    trace = simulate(ScriptedLLM([calling(RETRIEVE, ("retrieve", {"attribute": "none", "k": 3})), calling(FINISH)]))
    assert [(done.number, done.call.attribute) for done in trace.rounds[:2]] == [(1, "genre"), (2, None)]
    messages = [*trace.opening, *(message for done in trace.rounds for message in done.messages)]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert [message.get("tool_call_id") for message in messages[3:5]] == [call["id"] for call in messages[2]["tool_calls"]]


def test_an_agent_that_stops_without_a_list_is_a_failed_user():
    trace = simulate(script(RETRIEVE, "I would watch Film 9."))
    assert (trace.ended_by, trace.error) == ("invalid_reply", ENDED_WITHOUT_LIST)
    assert trace.usage["decide"].num_calls == 2


def test_an_endpoint_that_cannot_be_used_ends_the_user():
    trace = simulate(ScriptedLLM([calling(RETRIEVE), LLMUnavailableError("down")]))
    assert (trace.ended_by, trace.failure_kind) == ("llm_failure", "unavailable")


def test_limits_on_tokens_and_time_hold():
    trace = simulate(script(RETRIEVE, RETRIEVE, FINISH), user_token_budget=20)
    assert (trace.ended_by, trace.failure_kind, len(trace.rounds)) == ("budget", "token_budget", 2)

    class Slow(ScriptedLLM):
        async def complete(self, *args: Any, **how: Any) -> Any:
            await asyncio.sleep(5)

    trace = simulate(Slow([]), user_timeout_s=0.05)
    assert (trace.ended_by, trace.failure_kind) == ("budget", "time_budget")


def test_what_breaks_in_the_agent_is_not_hidden():
    class Broken(AgentStrategy):
        async def act(self, session: ToolSession) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        simulate(script(), kind=Broken)


def test_a_user_goes_on_after_the_rounds_of_a_lost_process():
    whole = simulate(script(RETRIEVE, ("retrieve", {"attribute": "none", "k": 3}), FINISH))
    for kept in (1, 2):
        replies = (RETRIEVE, ("retrieve", {"attribute": "none", "k": 3}), FINISH)[kept:]
        again = simulate(script(*replies), previous=whole.rounds[:kept])
        assert [done.call.name for done in again.rounds] == [done.call.name for done in whole.rounds]
        assert (again.final_items, again.candidates) == (whole.final_items, whole.candidates)
    assert simulate(script(), previous=whole.rounds).final_items == whole.final_items


def test_a_call_whose_answer_was_lost_is_answered():
    both = ScriptedLLM([calling(RETRIEVE, ("retrieve", {"attribute": "none", "k": 3})), calling(FINISH)])
    whole = simulate(both)
    llm = script(FINISH)
    again = simulate(llm, previous=whole.rounds[:1])
    assert again.ended_by == "finish"
    said = llm.calls[0].messages
    assert said[-1]["role"] == "tool" and "make it again" in said[-1]["content"]
    assert {m["tool_call_id"] for m in said if m["role"] == "tool"} == {c["id"] for c in said[2]["tool_calls"]}


def test_what_had_to_be_repaired_is_counted_as_in_the_surrogate():
    """A tool's name with a prefix, arguments in a code fence, K as a text: the same repairs, whoever decides."""
    replies = (("functions.retrieve", '```json\n{"attribute": "genre", "k": "12"}\n```'), FINISH)
    own, other = (simulate(script(*replies), kind=kind) for kind in (Surrogate, Plain))
    assert plain_rounds(own) == plain_rounds(other)
    assert other.ended_by == "finish" and other.counts["repaired_tool_name"] == 1
    assert [kind for kind in other.counts if kind.startswith("repaired_")] == [k for k in own.counts if k.startswith("repaired_")]


def test_replies_that_are_cut_or_refused_are_counted():
    cut = replace(calling(RETRIEVE, text="so"), finish_reason="length")
    trace = simulate(ScriptedLLM([cut, calling(FINISH)]))
    assert trace.ended_by == "finish" and trace.counts["cut_off"] == 1
    refused = replace(calling(text="I cannot help with that."), finish_reason="refusal")
    trace = simulate(ScriptedLLM([calling(RETRIEVE), refused]))
    assert (trace.ended_by, trace.counts["llm_refusal"]) == ("invalid_reply", 1)
    assert "the model refused to answer" in trace.error


def test_a_list_beside_other_calls_is_refused():
    """It cannot know what the other calls bring back."""
    both = calling(RETRIEVE, FINISH)
    own, other = (simulate(ScriptedLLM([both, calling(FINISH)]), kind=kind) for kind in (Surrogate, Plain))
    assert other.counts["reask_finish_beside_calls"] == 1
    assert plain_rounds(own) == plain_rounds(other)


@pytest.mark.parametrize("settings", [{"protocol": "text"}, {"protocol": "json"}, {"finish_policy": "final_rank"}])
def test_what_only_our_own_loop_does_is_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError, match="an agent"):
        simulate(script(), **settings)
