"""`toolrec llm check` and `serve`, as a person runs them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from typer.testing import CliRunner, Result

from toolrec.cli.llm import app
from toolrec.errors import ConfigError, LLMRefusedError, LLMUnavailableError, ToolRecError
from toolrec.llm import LLMConfig
from toolrec.llm.embedded import run_in_thread
from toolrec.llm.embedded.policy import LABEL, MODEL_NAME
from toolrec.surrogate.check import check_endpoint, choose_protocol, try_endpoint

KEY = "sk-marker-never-in-any-output"
ACTION = "Thought 1: drama\nAction 1: Retrieve[genre, 5]"
FINISH = "Thought 2: these\nAction 2: Finish[<f14>, <f15>, <f16>]"


def is_second(body: dict[str, Any]) -> bool:
    """Whether a request holds an observation already."""
    return "returned 5 items" in str(body["messages"])


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


async def check(config: LLMConfig, protocols: Any = ("tools", "json", "text")) -> dict[str, Any]:
    report = await check_endpoint(config, protocols=protocols)
    rows = {row.name: row for row in report.rows}
    return {"rows": rows, "protocols": report.protocols, "usage": report.usage}


def test_the_embedded_endpoint_passes_without_any_flag() -> None:
    result = run("check")
    assert result.exit_code == 0, result.output
    assert LABEL in result.output
    assert "Use --protocol tools. These work: tools, json, text." in result.output
    assert "failed" not in result.output


@pytest.mark.parametrize("protocol", ["tools", "json", "text"])
def test_one_protocol_alone(protocol: str, embedded: Any) -> None:
    result = run("check", "--llm-url", embedded.base_url, "--llm-model", MODEL_NAME, "--protocol", protocol)
    assert result.exit_code == 0
    assert f"Use --protocol {protocol}.\n" in result.output


def test_unreachable_address_ends_with_2_and_says_why() -> None:
    result = run("check", "--llm-url", "http://127.0.0.1:1/v1", "--llm-model", "m")
    assert result.exit_code == 2
    assert "connection refused" in result.output
    assert "check --llm-url" in result.output


def test_model_without_address() -> None:
    assert isinstance(run("check", "--llm-model", "gpt-4o").exception, ConfigError)
    assert isinstance(run("check", "--llm-url", "http://127.0.0.1:1/v1").exception, ToolRecError)


def test_wrong_key_is_said_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", KEY)
    with run_in_thread(api_key="another") as server:
        result = run("check", "--llm-url", server.base_url, "--llm-model", MODEL_NAME, "--llm-key-env", "OWN_KEY")
    assert result.exit_code == 2
    assert "check the key in the environment variable OWN_KEY" in result.output
    assert KEY not in result.output


def test_address_without_v1_gets_the_hint(embedded: Any) -> None:
    result = run("check", "--llm-url", embedded.base_url.removesuffix("/v1"), "--llm-model", MODEL_NAME)
    assert result.exit_code == 2
    assert "usually ends in /v1" in result.output


def test_unknown_model_gets_the_hint(embedded: Any) -> None:
    result = run("check", "--llm-url", embedded.base_url, "--llm-model", "gpt-9")
    assert result.exit_code == 2
    assert "check --llm-model" in result.output
    assert MODEL_NAME in result.output


async def test_endpoint_with_text_alone(serve: Any, quick: Any, steps: Any) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        if not body:
            return steps.error(404)
        if "tools" in body:
            return steps.error(400, '"auto" tool choice requires --enable-auto-tool-choice to be set')
        if "response_format" in body:
            return steps.error(400, "response_format is not supported")
        if "stop" in body:
            return steps.reply(
                FINISH if is_second(body) else f"{ACTION}\nObservation 1: made up",
                usage={"prompt_tokens": 10, "completion_tokens": 5},
            )
        return steps.reply("<22>\n<21>")

    server = await serve(step)
    found = await check(quick(server.base_url))
    assert found["protocols"] == ["text"]
    assert found["rows"]["protocol tools"].status == found["rows"]["protocol json"].status == "failed"
    assert "--protocol text" in found["rows"]["protocol tools"].advice
    assert found["rows"]["model"].status == "note"
    assert "not honoured" in found["rows"]["stop texts"].detail
    assert found["usage"].prompt_tokens == 20


async def test_before_a_run_two_turns_are_played(serve: Any, quick: Any, steps: Any) -> None:
    turns: list[bool] = []

    def step(body: dict[str, Any]) -> dict[str, Any]:
        assert [message["role"] for message in body["messages"]][:2] == ["system", "user"]
        if "tools" in body:
            return steps.error(400, "no tool calls here")
        turns.append(is_second(body))
        return steps.reply(FINISH if is_second(body) else ACTION)

    server = await serve(step)
    assert await try_endpoint(quick(server.base_url), "text") is None
    assert turns == [False, True]
    with pytest.raises(LLMRefusedError, match="--protocol text"):
        await try_endpoint(quick(server.base_url), "tools")


async def test_before_a_run_a_second_turn_that_is_refused_is_an_error_and_a_poor_reply_is_none(
    serve: Any, quick: Any, steps: Any
) -> None:
    def refusing(body: dict[str, Any]) -> dict[str, Any]:
        return steps.error(400, "no second turn") if is_second(body) else steps.reply(ACTION)

    server = await serve(refusing)
    with pytest.raises(LLMRefusedError, match="no second turn"):
        await try_endpoint(quick(server.base_url), "text")
    server = await serve(steps.reply("I like films."))
    assert "I like films." in (await try_endpoint(quick(server.base_url), "text") or "")


async def test_endpoint_that_refuses_parameters(serve: Any, quick: Any, steps: Any) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        if not body:
            return {"status": 200, "json": {"data": [{"id": "m"}]}}
        for name in ("max_tokens", "stop", "temperature"):
            if name in body:
                return steps.error(400, f"Unsupported parameter: '{name}' is not supported", param=name)
        if "tools" in body:
            assert body["messages"][0]["role"] == "system"
            call = {"id": "a", "function": {"name": "Retrieve", "arguments": '{"attribute": "genre", "k": 5,}'}}
            finish = {"id": "b", "function": {"name": "finish", "arguments": '{"items": ["f14", "f15", "f16"]}'}}
            message = {"tool_calls": [finish if is_second(body) else call], "reasoning_content": "hm"}
            return steps.reply(None, message=message)
        if is_second(body):
            return steps.reply(FINISH)
        return steps.reply(f"<think>hm</think>{ACTION}" if "Action i" in str(body["messages"]) else "<21>, <22>")

    server = await serve(step)
    found = await check(quick(server.base_url, temperature=0.2), ("tools", "text"))
    assert found["protocols"] == ["tools", "text"]
    assert found["rows"]["parameters"].detail == "refused and left out: max_tokens, stop, temperature"
    assert "with reasoning before them, repaired: json" in found["rows"]["protocol tools"].detail
    assert found["rows"]["model"].status == "ok"


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ({"tool_calls": [{"id": "a", "function": {"name": "search", "arguments": "{}"}}]}, "there is no “search”"),
        ({"tool_calls": [{"id": "a", "function": {"name": "retrieve", "arguments": "genre"}}]}, "not a JSON object"),
        ({"tool_calls": [{"id": "a", "function": {"name": "retrieve", "arguments": "{}"}}]}, "needs `attribute` and `k`"),
        ({"content": "I like films."}, "no tool was called; call one of finish, retrieve; the reply: I like films."),
        ({"content": ""}, "the reply is empty; call a tool; the reply: empty"),
    ],
)
async def test_unusable_protocols_end_without_one(message: Any, detail: str, serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.reply("I like films.", message=message))
    found = await check(quick(server.base_url))
    assert found["protocols"] == []
    assert detail in found["rows"]["protocol tools"].detail
    assert found["rows"]["protocol text"].status == "failed"


async def test_a_second_turn_that_is_refused_fails_the_protocol(serve: Any, quick: Any, steps: Any) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        if "tools" in body and is_second(body):
            return steps.error(400, "tool messages are not taken here")
        call = {"id": "a", "function": {"name": "retrieve", "arguments": '{"attribute": "genre", "k": 5}'}}
        return steps.reply(None, message={"tool_calls": [call]}) if "tools" in body else steps.reply("<21>, <22>")

    server = await serve(step)
    found = await check(quick(server.base_url), ("tools",))
    assert found["protocols"] == []
    assert "tool messages are not taken here" in found["rows"]["protocol tools"].detail


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_list_of_models_that_is_refused_stops_nothing(status: int, serve: Any, quick: Any, steps: Any) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        if not body:
            return steps.error(status, "chat alone for this key")
        return steps.reply("<21>, <22>") if "stop" not in body else steps.reply(FINISH if is_second(body) else ACTION)

    server = await serve(step)
    found = await check(quick(server.base_url), ("text",))
    assert found["protocols"] == ["text"]
    assert found["rows"]["model"].status == "note"


async def test_auto_chooses_the_first_that_works(serve: Any, quick: Any, steps: Any) -> None:
    def step(body: dict[str, Any]) -> dict[str, Any]:
        if "tools" in body:
            return steps.reply("I have no tools.")
        if "response_format" not in body:
            return steps.error(400, "ask for JSON")
        if body["response_format"]["json_schema"].get("strict"):
            return steps.error(400, "response_format: minItems is not supported")
        action = {"tool": "retrieve", "attribute": "genre", "k": 5}
        finish = {"tool": "finish", "items": ["f14", "f15", "f16"]}
        return steps.reply(json.dumps({"thought": "hm", "action": finish if is_second(body) else action}))

    server = await serve(step)
    assert await choose_protocol(quick(server.base_url)) == "json"
    nowhere = await serve(steps.reply("hm"))
    with pytest.raises(LLMUnavailableError, match="no protocol works"):
        await choose_protocol(quick(nowhere.base_url))


@pytest.fixture
def served() -> Iterator[Any]:
    """`toolrec llm serve` in a process of its own: its first line, and the process."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[str, subprocess.Popen[str]]:
        command = [sys.executable, "-m", "toolrec", "llm", "serve", *arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline(), process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_serve_prints_its_address_and_what_it_is(served: Any) -> None:
    line, process = served("--port", "0", "--latency-s", "0.01")
    assert LABEL in line
    url = re.match(r"http://127\.0\.0\.1:\d+/v1", line)
    assert url is not None, line
    assert requests.get(f"{url.group()}/models", timeout=10).ok
    process.send_signal(2)
    assert process.wait(20) in (0, 130)
    assert process.stdout.read() in ("", "interrupted\n")


def test_serve_on_a_taken_port_is_one_clear_line(embedded: Any, served: Any) -> None:
    line, process = served("--port", embedded.base_url.split(":")[2].split("/")[0])
    assert line.startswith("error: cannot listen there: Address already in use")
    assert process.wait(20) == 2
    assert process.stdout.read() == ""


def test_words_alone_load_no_client() -> None:
    heavy = "{'openai', 'uvicorn', 'aiohttp', 'ray', 'torch'}"
    code = f"import sys, toolrec.llm, toolrec.cli.llm; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"


async def test_check_runs_beside_other_loops(embedded: Any) -> None:
    config = LLMConfig(base_url=embedded.base_url, model=MODEL_NAME, api_key_env="")
    failures: list[BaseException] = []

    def other() -> None:
        try:
            assert asyncio.run(check_endpoint(config)).protocols
        except (AssertionError, ToolRecError) as error:
            failures.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    assert (await check(config))["protocols"]
    thread.join(20)
    assert not failures
