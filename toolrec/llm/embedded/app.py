"""The endpoint itself: a plain ASGI application that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from toolrec.grammar import PLAN_LABEL
from toolrec.llm.embedded.options import EmbeddedOptions
from toolrec.llm.embedded.policy import LABEL, MODEL_NAME, decide, order
from toolrec.llm.embedded.reading import ForeignPromptError, RankRequest, read_prompt
from toolrec.llm.embedded.speaking import malform, spoil, write_message

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 4 * 1024 * 1024
CHARACTERS_PER_TOKEN = 4
"""The token estimate of `usage`: characters of contents, tool calls and tool schemas, divided by this and rounded up."""

UNDERSTOOD = (
    f"{MODEL_NAME} answers by rules ({LABEL}) and understands three prompts: a surrogate's task with the headings "
    "'History (oldest first):', 'Attributes:', 'Rounds:' and 'List length:', the same with a line "
    f"{PLAN_LABEL!r} for a plan, and a rank prompt with 'History (oldest first):', "
    "'Candidates:', 'Rank by:' and 'Return:'"
)
Headers = list[tuple[bytes, bytes]]


class RequestError(Exception):
    """A request that is answered with an error in OpenAI's form."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def build_asgi_app(options: EmbeddedOptions | None = None, *, api_key: str | None = None) -> ASGIApp:
    """The application: `POST /v1/chat/completions`, `GET /v1/models`, `GET /healthz`.

    Args:
        api_key: the only key taken, for tests; None takes any.
    """
    chosen = options or EmbeddedOptions()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, body = 200, await _route(scope, receive, chosen, api_key)
        except RequestError as error:
            status, body = error.status, error.body
        reply = json.dumps(body).encode()
        headers: Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(reply)).encode())]
        if status == 413:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    return app


def answer(request: Mapping[str, Any], options: EmbeddedOptions) -> dict[str, Any]:
    """The chat completion that answers a request; the same request always gets the same one.

    Raises:
        RequestError: another model, streaming, or a prompt outside the grammar.
    """
    _check(request)
    try:
        prompt = read_prompt(request)
    except ForeignPromptError as error:
        raise RequestError(400, f"{UNDERSTOOD}. Here {error}.", code="prompt_not_understood", param="messages") from None
    if isinstance(prompt, RankRequest):
        decision, number, is_native = order(prompt), 1, False
    else:
        decision, number, is_native = decide(prompt), prompt.number, prompt.is_native
    is_malformed = False
    if options.has_faults:
        decision, is_malformed = spoil(decision, options, request["messages"])
    message, finish_reason = write_message(decision, number=number, is_native=is_native, stop=_stop(request))
    if is_malformed:
        message = malform(message)
    return _completion(request, message, finish_reason)


async def _route(scope: Scope, receive: Receive, options: EmbeddedOptions, api_key: str | None) -> dict[str, Any]:
    path, method = scope["path"].rstrip("/"), scope["method"]
    if path == "/healthz":
        return {"status": "ok", "model": MODEL_NAME}
    if path not in ("/v1/models", "/v1/chat/completions"):
        raise RequestError(404, f"no such path: {path[:200]}; the base URL ends in /v1")
    expected = "GET" if path == "/v1/models" else "POST"
    if method != expected:
        raise RequestError(405, f"{path} takes {expected}")
    headers = dict(scope["headers"])
    if api_key is not None and headers.get(b"authorization") != f"Bearer {api_key}".encode():
        raise RequestError(401, "the key in the Authorization header is not known here", code="invalid_api_key")
    if path == "/v1/models":
        return {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "toolrec"}]}
    request = _decoded(await _body(headers, receive))
    completion = answer(request, options)
    if options.latency_s > 0:
        await asyncio.sleep(options.latency_s)
    return completion


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    too_large = RequestError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and len(declared) < 20 and int(declared) > MAX_BODY_BYTES:
        raise too_large
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise RequestError(400, "the request broke off")
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise too_large
        if not event.get("more_body"):
            return b"".join(parts)


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is no valid JSON") from None
    if not isinstance(request, dict):
        raise RequestError(400, "the body must be a JSON object")
    return request


def _check(request: Mapping[str, Any]) -> None:
    if request.get("model") != MODEL_NAME:
        message = f"the model {str(request.get('model'))[:100]!r} does not exist; known: {MODEL_NAME}"
        raise RequestError(404, message, code="model_not_found", param="model")
    if request.get("stream"):
        raise RequestError(400, "streaming is not offered", code="unsupported_value", param="stream")
    if request.get("n") not in (None, 1):
        raise RequestError(400, "one choice is given", code="unsupported_value", param="n")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise RequestError(400, "messages must be a list of objects", code="invalid_type", param="messages")


def _stop(request: Mapping[str, Any]) -> Sequence[str]:
    stop = request.get("stop")
    words = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    return [word for word in words if isinstance(word, str)]


def _completion(request: Mapping[str, Any], message: dict[str, Any], finish_reason: str) -> dict[str, Any]:
    text = json.dumps(message)
    prompt_tokens = _tokens(_length(request["messages"]) + (len(json.dumps(request["tools"])) if request.get("tools") else 0))
    completion_tokens = _tokens(_length([message]))
    return {
        "id": "chatcmpl-" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        "object": "chat.completion",
        "created": 0,
        "model": MODEL_NAME,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _length(messages: Sequence[Mapping[str, Any]]) -> int:
    """Characters of the messages' contents and tool calls."""
    total = 0
    for message in messages:
        content = message.get("content")
        total += len(content) if isinstance(content, str) else len(json.dumps(content)) if content else 0
        if message.get("tool_calls"):
            total += len(json.dumps(message["tool_calls"]))
    return total


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
