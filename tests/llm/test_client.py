"""Calls against a real server that fails by script: attempts, time, refusals, outages."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from support import ASK, Clock, ask

from toolrec.errors import ContextTooLongError, LLMRefusedError, LLMUnavailableError
from toolrec.llm import LLM, OpenAIChat
from toolrec.llm.flow.gate import Gate
from toolrec.llm.flow.governor import FlowSettings, Governor
from toolrec.records import Completion, Usage

TOOLS = [{"type": "function", "function": {"name": "retrieve", "parameters": {"type": "object", "properties": {}}}}]


def test_is_an_llm(quick: Any) -> None:
    assert isinstance(OpenAIChat(quick("http://127.0.0.1:1/v1")), LLM)


async def test_plain_reply_and_usage(serve: Any, quick: Any, steps: Any) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 64}}
    server = await serve(steps.reply("hi", usage=usage))
    completion = await ask(quick(server.base_url, temperature=0.5, seed=3, max_output_tokens=99), stop=["Observation"])
    assert completion.text == "hi"
    assert completion.usage == Usage(num_calls=1, num_attempts=1, prompt_tokens=100, cached_tokens=64, completion_tokens=7)
    sent = server.requests[0]
    assert sent == {"model": "m", "messages": ASK, "stop": ["Observation"], "temperature": 0.5, "seed": 3, "max_tokens": 99}
    assert "POST /v1/chat/completions " in server.headers[0]


@pytest.mark.parametrize(
    "fault",
    [
        "429",
        "408",
        "409",
        "500",
        "503",
        "529",
        "reset",
        "close",
        "truncate",
        "no_json",
        "html",
        "empty_choices",
        "null_choices",
        "no_message",
        "error_in_200",
        "empty_body",
        "list_body",
        "deep_body",
    ],
)
async def test_passing_fault_costs_one_more_attempt(fault: str, serve: Any, quick: Any, steps: Any) -> None:
    step: dict[str, Any]
    if fault.isdigit():
        step = steps.error(int(fault))
    elif fault in ("reset", "close"):
        step = {"fault": fault}
    elif fault == "truncate":
        step = {**steps.reply("half of this"), "fault": "truncate"}
    else:
        raw = {
            "no_json": '{"choices": [',
            "html": "<html><body>ok</body></html>",
            "empty_choices": '{"choices": []}',
            "null_choices": '{"choices": null}',
            "no_message": '{"choices": [{"index": 0}]}',
            "error_in_200": '{"error": {"message": "overloaded", "code": 503}}',
            "empty_body": "",
            "list_body": "[]",
            "deep_body": "[" * 100_000,
        }[fault]
        step = {"status": 200, "raw": raw}
    server = await serve(step, step, steps.reply("after all"))
    completion = await ask(quick(server.base_url))
    assert completion.text == "after all"
    assert len(server.requests) == 3
    assert completion.usage.num_attempts == 3
    assert completion.usage.num_calls == 1


@pytest.mark.parametrize("fault", ["429", "500", "reset", "empty_choices"])
async def test_attempts_are_capped(fault: str, serve: Any, quick: Any, steps: Any) -> None:
    step = {"429": steps.error(429), "500": steps.error(500), "reset": {"fault": "reset"}}.get(
        fault, {"status": 200, "raw": '{"choices": []}'}
    )
    server = await serve(step)
    with pytest.raises(LLMUnavailableError, match="after 4 attempts"):
        await ask(quick(server.base_url, max_attempts=4))
    assert len(server.requests) == 4


async def test_total_time_is_capped(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(500))
    config = quick(server.base_url, max_attempts=1000, total_timeout_s=0.3, min_wait_s=0.05, max_wait_s=0.05)
    started_s = time.monotonic()
    with pytest.raises(LLMUnavailableError, match="HTTP 500") as caught:
        await ask(config)
    assert caught.value.http_status == 500
    assert time.monotonic() - started_s < 10  # a thousand attempts would take 25 s and more
    assert 2 <= len(server.requests) < 100


async def test_a_call_that_ends_while_it_waits_has_the_status_of_the_answer_before(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(503), {"fault": "hang"})
    config = quick(server.base_url, max_attempts=1000, total_timeout_s=0.6, timeout_s=30, min_wait_s=0.01, max_wait_s=0.01)
    with pytest.raises(LLMUnavailableError, match=r"the total time of 0\.6 s is over; before that: HTTP 503") as caught:
        await ask(config)
    assert caught.value.http_status == 503


async def test_hanging_endpoint_is_left_after_the_timeout(serve: Any, quick: Any) -> None:
    server = await serve({"fault": "hang"})
    started_s = time.monotonic()
    with pytest.raises(LLMUnavailableError, match=r"no answer within 0\.15 s"):
        await ask(quick(server.base_url, timeout_s=0.15, max_attempts=2))
    assert len(server.requests) == 2
    assert time.monotonic() - started_s >= 0.3


async def test_dribbling_endpoint_does_not_outlive_the_timeout(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve({**steps.reply(), "delay_s": 0.4})
    with pytest.raises(LLMUnavailableError, match=r"the total time of 0\.2 s is over"):
        await ask(quick(server.base_url, timeout_s=5.0, total_timeout_s=0.2))
    assert len(server.requests) == 1


async def test_retry_after_is_honoured(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(429, retry_after="0.25"), steps.reply())
    started_s = time.monotonic()
    completion = await ask(quick(server.base_url))
    assert time.monotonic() - started_s >= 0.25
    assert completion.usage.num_attempts == 2


async def test_retry_after_beyond_the_total_time_is_not_waited_for(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(429, "slow down", retry_after="3600"))
    started_s = time.monotonic()
    with pytest.raises(LLMRefusedError, match=r"slow down; it asks to wait 3,600 s; go on later with --resume"):
        await ask(quick(server.base_url))
    assert time.monotonic() - started_s < 60  # not the hour that was asked for
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422])
async def test_final_answer_is_not_asked_again(status: int, serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(status, "because I say so"))
    with pytest.raises(LLMRefusedError, match=f"HTTP {status}: because I say so") as caught:
        await ask(quick(server.base_url))
    assert caught.value.http_status == status
    assert len(server.requests) == 1


async def test_exhausted_quota_is_final_although_it_is_a_429(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(429, "You exceeded your quota", code="insufficient_quota"))
    with pytest.raises(LLMRefusedError, match="no credit"):
        await ask(quick(server.base_url))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("context_length_exceeded", "too long"),
        (None, "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"),
        (None, "the request exceeds the available context size, try increasing it"),
        (None, "prompt is too long: 210000 tokens > 200000 maximum"),
    ],
)
async def test_context_too_long(code: str | None, message: str, serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(400, message, code=code))
    with pytest.raises(ContextTooLongError) as caught:
        await ask(quick(server.base_url))
    assert caught.value.http_status == 400
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("parameter", "message", "param"),
    [
        ("temperature", "Unsupported value: 'temperature' does not support 0.5 with this model.", "temperature"),
        ("temperature", "temperature is not supported by this model", None),
        ("stop", "Unsupported parameter: 'stop' is not supported with this model.", "stop"),
        ("seed", "Unrecognized request argument supplied: seed", None),
        ("parallel_tool_calls", "Unknown parameter: 'parallel_tool_calls'.", None),
    ],
)
async def test_refused_parameter_is_dropped_and_remembered(
    parameter: str, message: str, param: str | None, serve: Any, quick: Any, steps: Any
) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        return steps.error(400, message, param=param) if parameter in body else steps.reply()

    server = await serve(step)
    config = quick(server.base_url, temperature=0.5, seed=1, parallel_tool_calls=False, max_attempts=1)
    async with OpenAIChat(config) as llm:
        first = await llm.complete(ASK, tools=TOOLS, stop=["Observation"])
        second = await llm.complete(ASK, tools=TOOLS, stop=["Observation"])
        assert llm.refused_parameters == {parameter}
        assert llm.counts[f"parameter_refused:{parameter}"] == 1
    assert (first.usage.num_attempts, second.usage.num_attempts) == (2, 1)
    others = {"temperature", "seed", "stop", "parallel_tool_calls", "max_tokens"} - {parameter}
    assert others <= set(server.requests[-1])


async def test_token_limit_goes_under_its_other_name(serve: Any, quick: Any, steps: Any) -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."

    def step(body: dict[str, Any]) -> dict[str, Any]:
        return (
            steps.error(400, message, code="unsupported_parameter", param="max_tokens") if "max_tokens" in body else steps.reply()
        )

    server = await serve(step)
    async with OpenAIChat(quick(server.base_url, max_output_tokens=50)) as llm:
        for _ in range(2):
            await llm.complete(ASK)
    assert [("max_tokens" in sent, sent.get("max_completion_tokens")) for sent in server.requests] == [
        (True, None),
        (False, 50),
        (False, 50),
    ]


async def test_endpoint_that_refuses_everything_gets_the_bare_request(serve: Any, quick: Any, steps: Any) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        extra = [name for name in body if name not in ("model", "messages")]
        if extra:
            detail = [{"loc": ["body", extra[0]], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]
            return {"status": 422, "json": {"detail": detail}}
        return steps.reply()

    server = await serve(step)
    completion = await ask(quick(server.base_url, temperature=0.1, seed=1), stop=["x"])
    # max_tokens, max_completion_tokens, temperature, stop and seed, one after another, and then the bare request
    assert completion.usage.num_attempts == 5 + 1
    assert set(server.requests[-1]) == {"model", "messages"}


async def test_refused_parameter_of_many_calls_at_once_is_counted_once(serve: Any, quick: Any, steps: Any) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        refused = steps.error(400, "no", code="unsupported_value", param="temperature")
        return {**(refused if "temperature" in body else steps.reply()), "delay_s": 0.02}

    server = await serve(step)
    async with OpenAIChat(quick(server.base_url, temperature=0.5)) as llm:
        completions = await asyncio.gather(*(llm.complete(ASK) for _ in range(8)))
        assert llm.counts["parameter_refused:temperature"] == 1
    assert [c.usage.num_attempts for c in completions] == [2] * 8


async def test_concurrency_is_kept(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve({**steps.reply(), "delay_s": 0.02})
    async with OpenAIChat(quick(server.base_url, concurrency=3)) as llm:
        await asyncio.gather(*(llm.complete(ASK) for _ in range(12)))
    assert server.max_in_flight == 3


async def in_step(llm: OpenAIChat, governor: Governor, clock: Clock) -> asyncio.Task[Completion]:
    """A call that has ended, of a client that kept in step with the governor."""
    call = asyncio.create_task(llm.complete(ASK))
    async with asyncio.timeout(20):
        while not call.done():
            clock.now_s += 60.0 if governor.snapshot().num_outages else 0.1  # the next probe is always due
            llm.gate.apply(governor.exchange("a", llm.gate.report()))
            await asyncio.sleep(0.001)
    return call


async def test_a_call_that_always_fails_is_no_outage_of_the_whole_run(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.error(500, "poisoned"))
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=1, clock=clock)
    async with OpenAIChat(quick(server.base_url, max_attempts=7), Gate(limit=None)) as llm:
        call = await in_step(llm, governor, clock)
        with pytest.raises(LLMUnavailableError, match="after 7 attempts"):
            await call
    assert len(server.requests) == 7
    assert governor.snapshot().num_outages == 1


@pytest.mark.parametrize("fault", ["503", "reset"])
async def test_an_endpoint_that_answers_nobody_is_not_held_against_a_call(fault: str, serve: Any, quick: Any, steps: Any) -> None:
    step = {"fault": "reset"} if fault == "reset" else steps.error(int(fault))
    server = await serve(*([step] * 9), steps.reply("back"))
    clock = Clock()
    governor = Governor(FlowSettings(), ceiling=1, clock=clock)
    async with OpenAIChat(quick(server.base_url, max_attempts=6), Gate(limit=None)) as llm:
        call = await in_step(llm, governor, clock)
        assert (await call).text == "back"


async def test_cancelling_a_call_frees_its_place(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve({"fault": "hang"}, steps.reply("next"))
    async with OpenAIChat(quick(server.base_url, concurrency=1)) as llm:
        task = asyncio.create_task(llm.complete(ASK))
        await asyncio.wait_for(server.has_request.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await llm.complete(ASK)).text == "next"
