"""What goes over the wire below the client: the first request as the OpenAI client has it, all others like it."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from support import ASK

from toolrec.errors import LLMRefusedError, LLMUnavailableError
from toolrec.llm import LLMConfig, OpenAIChat
from toolrec.llm.connections import Connections

ELSEWHERE = LLMConfig(base_url="http://llm.example.test:8080/v1", model="m", api_key_env="", max_attempts=1)


def fields(head: str) -> dict[str, str]:
    """The header fields of a request, but for those of its body."""
    pairs = (line.partition(": ") for line in head.strip().split("\r\n")[1:])
    return {name.lower(): value for name, _, value in pairs if name.lower() != "content-length"}


async def test_later_requests_have_the_headers_of_the_first(serve: Any, quick: Any, steps: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_KEY", "sk-of-the-test")
    server = await serve(steps.reply())
    async with OpenAIChat(quick(server.base_url, api_key_env="SOME_KEY")) as llm:
        for text in ("a", "bb", "ccc"):
            await llm.complete([{"role": "user", "content": text}])
    first, *later = [fields(head) for head in server.headers]
    assert later == [first, first]
    assert first["authorization"] == "Bearer sk-of-the-test"
    assert first["content-type"] == "application/json"
    assert first["user-agent"].startswith("AsyncOpenAI/Python ")
    assert [request["messages"][0]["content"] for request in server.requests] == ["a", "bb", "ccc"]


async def test_the_first_answer_may_be_an_error(serve: Any, quick: Any, steps: Any):
    server = await serve(steps.error(503), steps.error(429), steps.reply("fine"))
    async with OpenAIChat(quick(server.base_url)) as llm:
        assert (await llm.complete(ASK)).text == "fine"
        assert dict(llm.gate.totals.failures) == {"503": 1, "429": 1}


async def test_what_is_prepared_shows_no_key(serve: Any, quick: Any, steps: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_KEY", "sk-of-the-test")
    server = await serve(steps.reply())
    async with OpenAIChat(quick(server.base_url, api_key_env="SOME_KEY")) as llm:
        await llm.complete(ASK)
        prepared = llm._http.prepared
        assert prepared is not None
        assert prepared.headers["authorization"] == "Bearer sk-of-the-test"
        assert "sk-of-the-test" not in repr(prepared)


@pytest_asyncio.fixture
async def connections() -> AsyncIterator[Connections]:
    async with Connections(limit=4, timeout_s=5.0, is_tls=False) as made:
        yield made


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_to_another_origin_gets_no_key(status: int, serve: Any, quick: Any, steps: Any, monkeypatch: Any):
    monkeypatch.setenv("SOME_KEY", "sk-of-the-test")
    elsewhere = await serve(steps.reply("from elsewhere"))
    moved = {"status": status, "json": {}, "headers": {"location": f"{elsewhere.base_url}/chat/completions"}}
    server = await serve(moved)
    async with OpenAIChat(quick(server.base_url, api_key_env="SOME_KEY")) as llm:
        for _ in range(2):
            assert (await llm.complete(ASK)).text == "from elsewhere"
    assert "authorization" in fields(server.headers[-1])
    assert all("authorization" not in fields(head) and "sk-of-the-test" not in head for head in elsewhere.headers)
    assert [request["messages"] for request in elsewhere.requests] == [ASK, ASK]


@pytest.mark.parametrize("scheme", ["", "http://"])
async def test_a_proxy_of_the_environment_is_used_for_other_hosts(scheme: str, serve: Any, steps: Any, monkeypatch: Any):
    proxy = await serve(steps.reply("through the proxy"))
    monkeypatch.setenv("http_proxy", scheme + proxy.base_url.removeprefix("http://").removesuffix("/v1"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with OpenAIChat(ELSEWHERE) as llm:
        for _ in range(2):
            assert (await llm.complete(ASK)).text == "through the proxy"
    assert all(head.startswith("POST http://llm.example.test:8080/v1/chat/completions ") for head in proxy.headers)
    monkeypatch.setenv("no_proxy", "llm.example.test:8080")
    async with OpenAIChat(ELSEWHERE) as direct:
        with pytest.raises(LLMUnavailableError, match="cannot be resolved"):
            await direct.complete(ASK)


async def test_a_proxys_password_is_in_no_error(serve: Any, steps: Any, monkeypatch: Any):
    proxy = await serve(steps.error(407, "who are you"))
    monkeypatch.setenv("https_proxy", proxy.base_url.replace("http://", "http://somebody:pass-of-the-test@").removesuffix("/v1"))
    config = ELSEWHERE.replaced(base_url="https://llm.example.test/v1")
    async with OpenAIChat(config) as llm:
        with pytest.raises(LLMUnavailableError, match="407") as caught:
            await llm.complete(ASK)
    assert "pass-of-the-test" not in "".join(traceback.format_exception(caught.value))


async def test_a_header_that_is_no_ascii_costs_nothing(serve: Any, quick: Any, steps: Any):
    server = await serve({**steps.reply("fine"), "headers": {"x-region": "Zürich"}})
    async with OpenAIChat(quick(server.base_url, max_attempts=1)) as llm:
        for _ in range(2):
            assert (await llm.complete(ASK)).text == "fine"


async def test_a_redirect_without_an_address_is_final(serve: Any, quick: Any):
    server = await serve({"status": 300, "json": {}})
    async with OpenAIChat(quick(server.base_url)) as llm:
        for _ in range(2):
            with pytest.raises(LLMRefusedError, match="HTTP 300"):
                await llm.complete(ASK)
    assert len(server.requests) == 2


async def test_a_local_endpoint_is_asked_without_a_proxy(serve: Any, quick: Any, steps: Any, monkeypatch: Any):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = await serve(steps.reply("direct"))
    async with OpenAIChat(quick(server.base_url)) as llm:
        assert (await llm.complete(ASK)).text == "direct"


async def test_connections_are_used_again_and_closed_at_the_end(serve: Any, quick: Any, steps: Any):
    server = await serve(steps.reply())
    async with OpenAIChat(quick(server.base_url, concurrency=2)) as llm:
        for _ in range(3):
            await asyncio.gather(*(llm.complete(ASK) for _ in range(2)))
        session = llm._http._session
        assert session is not None and not session.closed
    assert session.closed
    gc.collect()  # an unclosed connection would warn here


async def test_a_get_is_no_pattern_for_posts(serve: Any, connections: Connections):
    server = await serve({"status": 200, "json": {"data": []}})
    response = await connections.get(f"{server.base_url}/models")
    assert response.json() == {"data": []}
    assert connections.prepared is None
