"""What the client makes of what an answer holds, whatever that is."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest
from support import ASK, ask

from toolrec.errors import LLMRefusedError, LLMUnavailableError, MessagesRefusedError
from toolrec.llm import OpenAIChat
from toolrec.records import Usage
from toolrec.simulation.flow.endpoint_notes import endpoint_notes

TOOLS = [{"type": "function", "function": {"name": "retrieve", "parameters": {"type": "object", "properties": {}}}}]


async def test_stop_is_cut_here_where_the_endpoint_does_not(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.reply("Thought 1: a\nAction 1: Retrieve[none, 5]\nObservation 1: made up", finish_reason="length"))
    async with OpenAIChat(quick(server.base_url)) as llm:
        completion = await llm.complete(ASK, stop=["Observation"])
        assert llm.counts["cut_by_client"] == 1
    assert completion.text == "Thought 1: a\nAction 1: Retrieve[none, 5]\n"
    assert completion.finish_reason == "stop"


async def test_which_model_and_version_answered_is_counted(serve: Any, quick: Any, steps: Any) -> None:
    said: list[dict[str, Any]] = [
        {"model": "m-2026"},
        {"model": "m-2026"},
        {"model": "m-2026", "system_fingerprint": "fp_1"},
        {"model": "n", "system_fingerprint": "fp_1"},
        {"model": None, "system_fingerprint": 7},
    ]
    answers = iter(said)

    def step(body: dict[str, Any]) -> dict[str, Any]:
        reply = steps.reply("hm")
        reply["json"].update(next(answers))
        return reply  # type: ignore[no-any-return]

    server = await serve(step)
    async with OpenAIChat(quick(server.base_url)) as llm:
        for _ in said:
            await llm.complete(ASK)
        counts = {kind: count for kind, count in llm.counts.items() if kind.startswith("reply_model:")}
    assert counts == {
        "reply_model:m-2026": 2,
        "reply_model:m-2026 (fp_1)": 1,
        "reply_model:n (fp_1)": 1,
        "reply_model:not told": 1,
    }
    assert endpoint_notes({"reply_model:m-2026": 9}) == {}
    [note] = endpoint_notes(counts).values()
    assert note.endswith("more than one model or version of it: m-2026 2, m-2026 (fp_1) 1, n (fp_1) 1, not told 1")


async def test_parallel_tool_calls_are_all_passed_on(serve: Any, quick: Any, steps: Any) -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "retrieve", "arguments": '{"k": 5}'}},
        {"type": "function", "function": {"name": "rank", "arguments": {"k": 6}}},
        {"id": "c", "function": {"name": "finish"}},
        "no call",
        {"id": "d"},
    ]
    server = await serve(steps.reply(None, message={"tool_calls": calls}, finish_reason="tool_calls"))
    completion = await ask(quick(server.base_url), tools=TOOLS)
    assert [(c.id, c.name, c.arguments) for c in completion.tool_calls] == [
        ("a", "retrieve", '{"k": 5}'),
        ("", "rank", '{"k": 6}'),
        ("c", "finish", "{}"),
    ]
    assert completion.text == ""
    assert completion.finish_reason == "tool_calls"
    assert server.requests[0]["tools"] == TOOLS


@pytest.mark.parametrize(
    ("content", "message", "text", "reasoning"),
    [
        ("answer", {"reasoning_content": "why"}, "answer", "why"),
        ("answer", {"reasoning": "why"}, "answer", "why"),
        ("<think>why\n</think>\n\nanswer", {}, "answer", "why"),
        ("why</think>answer", {}, "answer", "why"),
        ("<think>never ends", {}, "", "never ends"),
        ("<11>\n<12>", {}, "<11>\n<12>", ""),
        (None, {"reasoning_content": "only thoughts"}, "", "only thoughts"),
        ([{"type": "text", "text": "in "}, {"type": "image"}, {"type": "text", "text": "parts"}], {}, "in parts", ""),
        (None, {}, "", ""),
        ("", {"refusal": "I cannot"}, "I cannot", ""),
    ],
)
async def test_shapes_of_content(
    content: Any, message: dict[str, Any], text: str, reasoning: str, serve: Any, quick: Any, steps: Any
) -> None:
    server = await serve(steps.reply(content, message=message))
    completion = await ask(quick(server.base_url))
    assert (completion.text, completion.reasoning) == (text, reasoning)
    assert completion.finish_reason == ("refusal" if message.get("refusal") else "stop")


async def test_missing_usage_is_zero_and_counted(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.reply())
    async with OpenAIChat(quick(server.base_url)) as llm:
        assert (await llm.complete(ASK)).usage == Usage(num_calls=1, num_attempts=1)
        assert llm.counts["usage_missing"] == 1


async def test_length_and_content_filter(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(
        steps.reply("half", finish_reason="length"),
        steps.reply("", finish_reason="content_filter"),
        steps.error(400, "The response was filtered due to the content management policy", code="content_filter"),
    )
    async with OpenAIChat(quick(server.base_url)) as llm:
        assert (await llm.complete(ASK)).finish_reason == "length"
        for _ in range(2):
            with pytest.raises(MessagesRefusedError, match="filter"):
                await llm.complete(ASK)
    assert len(server.requests) == 3


async def test_an_answer_without_a_reply_is_paid_for(serve: Any, quick: Any, steps: Any) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    empty = {"status": 200, "json": {"choices": [], "usage": usage}}
    filtered = steps.reply("", finish_reason="content_filter", usage=usage)
    server = await serve(empty, steps.error(500), steps.reply(usage={"prompt_tokens": 10, "completion_tokens": 1}), filtered)
    async with OpenAIChat(quick(server.base_url)) as llm:
        paid = Usage(num_calls=1, num_attempts=3, prompt_tokens=110, completion_tokens=8)
        assert (await llm.complete(ASK)).usage == llm.gate.totals.usage == paid
        with pytest.raises(LLMRefusedError, match="filter"):
            await llm.complete(ASK)
        assert llm.gate.totals.usage == paid + Usage(prompt_tokens=100, completion_tokens=7)
        assert llm.counts["usage_missing"] == 0


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_that_unpacks_to_more_than_fits_is_malformed(status: int, serve: Any, quick: Any) -> None:
    large = gzip.compress(b" " * 100_000_000)
    server = await serve({"status": status, "bytes": large, "headers": {"content-encoding": "gzip"}})
    async with OpenAIChat(quick(server.base_url, max_malformed=1)) as llm:
        tracemalloc.start()
        with pytest.raises(LLMUnavailableError, match="larger than 8 MB"):
            await llm.complete(ASK)
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert llm.gate.totals.failures == {"malformed": 1}
    assert most_bytes < 60_000_000


async def test_a_packed_answer_is_read(serve: Any, quick: Any, steps: Any) -> None:
    packed = gzip.compress(json.dumps(steps.reply("fine")["json"]).encode())
    server = await serve({"status": 200, "bytes": packed, "headers": {"content-encoding": "gzip"}})
    assert (await ask(quick(server.base_url))).text == "fine"
