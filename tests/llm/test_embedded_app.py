"""The embedded endpoint over HTTP, and what no message may do to it."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec import grammar
from toolrec.errors import ConfigError
from toolrec.llm import LLMConfig, OpenAIChat
from toolrec.llm.embedded import EmbeddedOptions, run_in_thread
from toolrec.llm.embedded.app import MAX_BODY_BYTES, RequestError, answer, build_asgi_app
from toolrec.llm.embedded.policy import MODEL_NAME


def post(url: str, body: Any, **how: Any) -> requests.Response:
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return requests.post(f"{url}/chat/completions", data=data, timeout=60, **how)


def test_models_and_health(embedded: Any) -> None:
    assert [m["id"] for m in requests.get(f"{embedded.base_url}/models", timeout=30).json()["data"]] == [MODEL_NAME]
    health = requests.get(embedded.base_url.removesuffix("/v1") + "/healthz", timeout=30)
    assert health.json() == {"status": "ok", "model": MODEL_NAME}


def test_same_request_same_bytes(embedded: Any, world: Any) -> None:
    request = world.converse(is_native=True).request
    with ThreadPoolExecutor(8) as threads:
        replies = {r.content for r in threads.map(lambda _: post(embedded.base_url, request), range(24))}
    assert len(replies) == 1


def test_usage_is_the_documented_estimate(embedded: Any, world: Any) -> None:
    task = world.task(world.drama_history())
    body = post(embedded.base_url, {"model": MODEL_NAME, "messages": [{"role": "user", "content": task}]}).json()
    content = body["choices"][0]["message"]["content"]
    assert body["usage"] == {
        "prompt_tokens": -(-len(task) // 4),
        "completion_tokens": -(-len(content) // 4),
        "total_tokens": -(-len(task) // 4) + -(-len(content) // 4),
    }


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "x"}]}, 404, "model_not_found"),
        ({"model": MODEL_NAME, "messages": [{"role": "user", "content": "x"}], "stream": True}, 400, "unsupported_value"),
        ({"model": MODEL_NAME, "messages": [{"role": "user", "content": "x"}], "n": 2}, 400, "unsupported_value"),
        ({"model": MODEL_NAME, "messages": []}, 400, "invalid_type"),
        ({"model": MODEL_NAME, "messages": "x"}, 400, "invalid_type"),
        ({"model": MODEL_NAME, "messages": ["x"]}, 400, "invalid_type"),
        ({"model": MODEL_NAME}, 400, "invalid_type"),
        ({"model": MODEL_NAME, "messages": [{"role": "user", "content": "hello"}]}, 400, "prompt_not_understood"),
        ("", 400, None),
        ("{", 400, None),
        ("[]", 400, None),
        (b"\xff\xfe", 400, None),
        ("[" * 100_000, 400, None),
    ],
)
def test_errors_in_openais_form(body: Any, status: int, code: str | None, embedded: Any) -> None:
    response = post(embedded.base_url, body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_paths_and_methods(embedded: Any) -> None:
    root = embedded.base_url.removesuffix("/v1")
    wrong = requests.post(f"{root}/chat/completions", json={}, timeout=30)
    assert wrong.status_code == 404
    assert "/v1" in wrong.json()["error"]["message"]
    assert requests.get(f"{root}/v1/chat/completions", timeout=30).status_code == 405
    assert requests.post(f"{root}/v1/models", timeout=30).status_code == 405


def test_body_beyond_the_bound_is_refused(embedded: Any) -> None:
    def chunks() -> Any:
        for _ in range(MAX_BODY_BYTES // 65_536 + 2):
            yield b" " * 65_536

    responses = []
    for body in (b" " * (MAX_BODY_BYTES + 1), chunks()):
        try:
            responses.append(post(embedded.base_url, body) if isinstance(body, bytes) else requests.post(
                f"{embedded.base_url}/chat/completions", data=body, timeout=60))  # fmt: skip
        except requests.ConnectionError:
            continue  # the endpoint answered and closed while the body was still on its way
        assert responses[-1].status_code == 413
    assert requests.get(f"{embedded.base_url}/models", timeout=30).ok


def test_key_where_one_is_set() -> None:
    marker = "marker-key-0815"
    with run_in_thread(api_key=marker) as server:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": marker}):
            response = requests.get(f"{server.base_url}/models", headers=headers, timeout=30)
            assert response.status_code == 401
            assert marker not in response.text
        assert requests.get(f"{server.base_url}/models", headers={"authorization": f"Bearer {marker}"}, timeout=30).ok


async def test_client_and_endpoint_together(embedded: Any, world: Any) -> None:
    done = world.converse(is_native=True)
    config = LLMConfig(base_url=embedded.base_url, model=MODEL_NAME, api_key_env="", concurrency=8)
    async with OpenAIChat(config) as llm:
        completions = await asyncio.gather(*(llm.complete(done.request["messages"], tools=world.tools) for _ in range(16)))
    assert {json.dumps(json.loads(c.tool_calls[0].arguments)["items"]) for c in completions} == {json.dumps(done.items)}
    assert {c.finish_reason for c in completions} == {"tool_calls"}


def test_latency_holds_replies_back_side_by_side(world: Any) -> None:
    request = {"model": MODEL_NAME, "messages": [{"role": "user", "content": world.task(world.drama_history())}]}
    with run_in_thread(EmbeddedOptions(latency_s=1.0)) as server, ThreadPoolExecutor(8) as threads:
        started_s = time.monotonic()
        assert all(r.ok for r in threads.map(lambda _: post(server.base_url, request), range(8)))
    assert 1.0 <= time.monotonic() - started_s < 8 * 1.0


def test_server_stops_and_its_port_can_be_taken_again() -> None:
    server = run_in_thread()
    port = int(server.base_url.split(":")[2].split("/")[0])
    server.stop()
    assert not server.is_running
    with run_in_thread(port=port) as again:
        assert requests.get(f"{again.base_url}/models", timeout=30).ok


def test_taken_port_is_a_clear_error(embedded: Any) -> None:
    port = int(embedded.base_url.split(":")[2].split("/")[0])
    with pytest.raises(ConfigError, match="cannot listen there: Address already in use"):
        run_in_thread(port=port)


@pytest.mark.parametrize("options", [{"share_typos": 1.5}, {"share_short": -0.1}, {"latency_s": float("nan")}, {"latency_s": -1}])
def test_bad_knobs_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        EmbeddedOptions(**options)  # type: ignore[arg-type]


WORDS = st.sampled_from(
    [
        grammar.HISTORY_HEADING,
        grammar.CANDIDATES_HEADING,
        "Attributes: none, genre, year",
        "Attributes:",
        "Rounds: 7",
        "Rounds left: 0",
        "List length: 10",
        "List length: 0",
        "Rank by: genre",
        "Return: 3",
        "Not accepted: <1>",
        "Error: no",
        "Finish now",
        "1. <1> A | genre: Drama, War | year: 1990 | rating: 4",
        "2. <2> B | genre: | year: nan | score: inf",
        "<3> C | genre: Drama | year: 1991 | score: 1.5",
        "Retrieve[genre, 20] returned 2 items:",
        "Retrieve[none, 1] returned 1 items:",
        "Rank[genre, 2] returned 1 items:",
        "Action 1: Retrieve[genre, 20]",
        "Action 2: Finish[<1>, <3>]",
        "Observation 1:",
    ]
)
TEXT = st.lists(WORDS | st.text(max_size=12), max_size=14).map("\n".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
)
CALL = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["retrieve", "rank", "finish"]) | JSON,
                "arguments": JSON | st.just('{"attribute": "genre"}'),
            }
        )
    }
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]) | JSON, "content": TEXT | JSON},
    optional={"tool_calls": st.lists(CALL | JSON, max_size=2) | JSON},
)
REQUEST = st.fixed_dictionaries(
    {"model": st.just(MODEL_NAME), "messages": st.lists(MESSAGE, min_size=1, max_size=5)},
    optional={"tools": st.lists(CALL | JSON, max_size=3) | JSON, "stop": JSON, "tool_choice": JSON | CALL, "n": JSON},
)
SPOILT = EmbeddedOptions(share_typos=0.3, share_invented=0.3, share_short=0.3, share_malformed=0.3)


@settings(max_examples=300, deadline=None)
@given(REQUEST, st.sampled_from([EmbeddedOptions(), SPOILT]))
def test_any_messages_are_answered_or_refused(request: dict[str, Any], options: EmbeddedOptions) -> None:
    body = json.dumps(request)
    try:
        completion = answer(json.loads(body), options)
    except RequestError as error:
        assert error.status == 400
        return
    assert json.dumps(completion) == json.dumps(answer(json.loads(body), options))
    assert completion["choices"][0]["message"]["role"] == "assistant"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | REQUEST.map(lambda r: json.dumps(r).encode()))
def test_any_body_gives_200_or_400(body: bytes) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    scope = {"type": "http", "path": "/v1/chat/completions", "method": "POST", "headers": []}
    asyncio.run(build_asgi_app()(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] in (200, 400, 404)
    json.loads(sent[1]["body"])
