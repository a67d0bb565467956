"""Where the client sends to and as whom: settings, keys, addresses that do not answer, the list of models."""

from __future__ import annotations

import copy
import json
import logging
import traceback
from typing import Any

import pytest
from support import ASK, ask

from toolrec.errors import ConfigError, ContextTooLongError, LLMRefusedError, LLMUnavailableError
from toolrec.llm import LLMConfig, OpenAIChat

KEY = "sk-marker-4711-never-shown"


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://127.0.0.1:1/v1", "connection refused"), ("http://no-such-host.invalid/v1", "cannot be resolved")],
)
async def test_unreachable_says_why(url: str, reason: str, quick: Any) -> None:
    with pytest.raises(LLMUnavailableError, match=reason) as caught:
        await ask(quick(url, max_attempts=2))
    assert str(copy.copy(caught.value)) == str(caught.value)


async def test_tls_to_a_plain_port_says_so(embedded: Any, quick: Any) -> None:
    with pytest.raises(LLMUnavailableError, match="TLS connection failed"):
        await ask(quick(embedded.base_url.replace("http://", "https://"), max_attempts=1))


async def test_key_is_sent_and_never_shown(
    serve: Any, quick: Any, steps: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OWN_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    echo = f"Incorrect API key provided: {KEY}. Header was Bearer {KEY}"
    plain = {"status": 403, "raw": f"<html>denied for {KEY}</html>"}
    server = await serve(
        steps.error(401, echo),
        plain,
        steps.error(500, echo),
        steps.error(500, echo),
        steps.error(400, echo, code="context_length_exceeded"),
    )
    config = quick(server.base_url, api_key_env="OWN_KEY", max_attempts=2)
    shown = [repr(config)]
    async with OpenAIChat(config) as llm:
        shown.append(repr(llm))
        for _ in range(4):
            try:
                await llm.complete(ASK)
            except (LLMRefusedError, LLMUnavailableError, ContextTooLongError) as failure:
                assert failure.__context__ is None or KEY not in repr(failure.__context__)
                shown += [
                    "".join(traceback.format_exception(failure)),
                    str(failure),
                    repr(failure),
                    repr(copy.copy(failure)),
                ]
    assert server.headers
    assert all(f"authorization: bearer {KEY}" in head.lower() for head in server.headers)
    assert len(shown) == 2 + 4 * 4
    assert KEY not in "".join(shown) + caplog.text


async def test_no_key_sends_a_placeholder(serve: Any, steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = await serve(steps.reply())
    await ask(LLMConfig(base_url=server.base_url, model="m"))
    assert "authorization: bearer no-key" in server.headers[0].lower()


async def test_environment_of_openai_stays_at_home(serve: Any, quick: Any, steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-marker")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server = await serve(steps.reply())
    await ask(quick(server.base_url))
    assert KEY not in server.headers[0]
    assert "org-marker" not in server.headers[0]


def test_openai_without_a_key_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAIChat(LLMConfig(model="m"))


@pytest.mark.parametrize(
    "settings",
    [
        {"model": ""},
        {"base_url": "127.0.0.1:8000"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http:///v1"},
        {"base_url": "http://host:99999/v1"},
        {"base_url": "http://user:secret-word@host/v1"},
        {"base_url": "http://host/v1?api_key=secret-word"},
        {"base_url": "http://ho st/v1"},
        {"temperature": 3.0},
        {"concurrency": 0},
        {"max_attempts": 0},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"total_timeout_s": float("inf")},
        {"min_wait_s": -1.0},
        {"max_output_tokens": 0},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        LLMConfig(**{"model": "m", **settings})
    assert "secret-word" not in str(caught.value)


def test_key_that_is_no_header_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", "abc\ndef")
    with pytest.raises(ConfigError) as caught:
        LLMConfig(model="m", api_key_env="OWN_KEY").read_key()
    assert "abc" not in str(caught.value)


async def test_list_of_models(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(
        {"status": 200, "json": {"data": [{"id": "a"}, {"id": "b"}]}},
        steps.error(404, "Not Found"),
        {"status": 200, "raw": "no list"},
        steps.error(401, "who are you"),
    )
    async with OpenAIChat(quick(server.base_url)) as llm:
        assert await llm.list_models() == ["a", "b"]
        assert await llm.list_models() is None
        assert await llm.list_models() is None
        with pytest.raises(LLMRefusedError, match="who are you"):
            await llm.list_models()


async def test_the_request_is_plain_json(serve: Any, quick: Any, steps: Any) -> None:
    server = await serve(steps.reply())
    odd = "Amélie \ud83c\udfac \u2028 ‹x›"
    async with OpenAIChat(quick(server.base_url)) as llm:
        await llm.complete([{"role": "user", "content": odd}])
    assert server.requests[0]["messages"] == [json.loads(json.dumps({"role": "user", "content": odd}))]


class TestExtraFieldsAndHeaders:
    async def test_azure_takes_a_query_and_a_header_of_its_own(self, serve: Any, steps: Any, monkeypatch: Any) -> None:
        monkeypatch.setenv("AZURE_HEADERS", "api-key: secret-of-the-test\nx-other: 1")
        server = await serve(steps.reply("fine"))
        config = LLMConfig(
            base_url=f"{server.base_url}/deployments/x?api-version=2026-01-01",
            model="m",
            headers_env="AZURE_HEADERS",
            api_key_env="",
        )
        async with OpenAIChat(config) as llm:
            for _ in range(2):
                assert (await llm.complete(ASK)).text == "fine"
            assert "secret-of-the-test" not in repr(llm)
        for head in server.headers:
            assert head.startswith("POST /v1/deployments/x/chat/completions?api-version=2026-01-01 ")
            assert "api-key: secret-of-the-test" in head and "x-other: 1" in head
        assert "secret-of-the-test" not in json.dumps(config.as_json())

    async def test_a_header_that_an_endpoint_says_back_is_masked(self, serve: Any, steps: Any, monkeypatch: Any) -> None:
        monkeypatch.setenv("AZURE_HEADERS", "api-key: secret-of-the-test")
        server = await serve(steps.error(401, "wrong api-key secret-of-the-test"))
        config = LLMConfig(base_url=server.base_url, model="m", headers_env="AZURE_HEADERS", api_key_env="")
        async with OpenAIChat(config) as llm:
            with pytest.raises(LLMRefusedError) as caught:
                await llm.complete(ASK)
        assert "secret-of-the-test" not in str(caught.value)

    async def test_further_fields_go_into_every_body(self, serve: Any, steps: Any) -> None:
        server = await serve(steps.reply("fine"))
        extra = '{"chat_template_kwargs": {"enable_thinking": false}, "reasoning_effort": "low"}'
        async with OpenAIChat(LLMConfig(base_url=server.base_url, model="m", api_key_env="", extra=extra)) as llm:
            await llm.complete(ASK)
        assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
        assert server.requests[0]["reasoning_effort"] == "low"

    @pytest.mark.parametrize("extra", ["low", "[1]", '{"a": NaN}', '{"model": "other"}', '{"stream": true}', "{"])
    def test_extra_fields_that_are_no_object_or_set_what_we_set(self, extra: str) -> None:
        with pytest.raises(ConfigError, match="--llm-extra"):
            LLMConfig(base_url="http://127.0.0.1:1/v1", model="m", extra=extra)

    @pytest.mark.parametrize("headers", ["", "no colon", "api key: x", "api-key:", "api-key: ä"])
    def test_headers_that_are_none(self, headers: str, monkeypatch: Any) -> None:
        monkeypatch.setenv("AZURE_HEADERS", headers)
        with pytest.raises(ConfigError, match="AZURE_HEADERS") as caught:
            OpenAIChat(LLMConfig(base_url="http://127.0.0.1:1/v1", model="m", headers_env="AZURE_HEADERS", api_key_env=""))
        assert not headers or headers not in str(caught.value)

    def test_a_key_in_the_query_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="a key in its query") as caught:
            LLMConfig(base_url="http://127.0.0.1:1/v1?api_key=sk-of-the-test", model="m")
        assert "sk-of-the-test" not in str(caught.value)
