"""Replies of endpoints: from the JSON of a chat completion to a `Completion`, whatever shape it has."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from toolrec.grammar import encodable
from toolrec.records import Completion, LLMToolCall, Usage

_MAX_REASON_CHARACTERS = 100
_THINK = re.compile(r"<(think|thinking|reasoning)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_THINK_END = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)


class UnusableReplyError(Exception):
    """An answer with status 200 that holds no reply; asking again may help."""


def read_completion(data: Any, *, num_attempts: int, usage: Usage | None = None) -> Completion:
    """Reads one chat completion.

    Args:
        data: the decoded JSON.
        num_attempts: HTTP requests that the call took.
        usage: what `read_usage` gave for these data; None to read it here.

    Raises:
        UnusableReplyError: no choices, or a shape that is none of a chat completion.
    """
    choice = _best_choice(data)
    message = _message_of(choice)
    if message is None:
        raise UnusableReplyError("the reply has no message")
    finish_reason = str(choice.get("finish_reason") or "stop")[:_MAX_REASON_CHARACTERS]
    text, reasoning = _split_reasoning(_joined(message.get("content")), message)
    tool_calls = _tool_calls(message.get("tool_calls")) or _tool_calls(message.get("function_call"))
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal and not text and not tool_calls:
        text, finish_reason = refusal, "refusal"
    return Completion(
        text=text,
        tool_calls=tool_calls,
        usage=replace(usage or read_usage(data), num_calls=1, num_attempts=num_attempts),
        finish_reason=finish_reason,
        reasoning=reasoning,
        extra=_unknown(message, _KNOWN_FIELDS) if len(message) > _NUM_PLAIN_FIELDS else {},
    )


_KNOWN_FIELDS = frozenset(
    ("role", "content", "tool_calls", "function_call", "refusal", "annotations", "audio", "name", "tool_call_id")
)
_KNOWN_CALL_FIELDS = frozenset(("id", "type", "function", "index", "name", "arguments"))
_NUM_PLAIN_FIELDS = 2
MAX_EXTRA_CHARACTERS = 200_000
"""Fields that we do not know are kept and sent back up to this size; larger ones are left out."""


def _best_choice(data: Any) -> dict[str, Any]:
    """The first choice, or the first that has a call or a text where that one is empty."""
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnusableReplyError("the reply has no choices")
    if len(choices) > 1:
        for choice in choices:
            message = _message_of(choice) if isinstance(choice, dict) else None
            if message and (message.get("tool_calls") or message.get("content")):
                found: dict[str, Any] = choice
                return found
    first: dict[str, Any] = choices[0]
    return first


def _message_of(choice: dict[str, Any]) -> dict[str, Any] | None:
    """A choice's message; a whole `delta` or the `text` of the older form in its place."""
    for name in ("message", "delta"):
        message = choice.get(name)
        if isinstance(message, dict):
            return message
    text = choice.get("text")
    return {"content": text} if isinstance(text, str) else None


def _unknown(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Fields that we do not know, as they came; none where they are empty or too large."""
    extra = {name: value for name, value in fields.items() if name not in known and value not in (None, "", [], {})}
    if not extra:
        return {}
    try:
        text = json.dumps(extra, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return {}
    if len(text) > MAX_EXTRA_CHARACTERS:
        return {}
    return extra if text.isascii() else dict(json.loads(encodable(text)))


def error_in(data: Any) -> dict[str, Any] | None:
    """The error that an answer with status 200 holds, as OpenAI writes one; None where it holds none.

    At the top, in the first choice, as vLLM's `{"object": "error"}` or as FastAPI's `{"detail": …}`.
    """
    if not isinstance(data, dict):
        return None
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    error = data.get("error") if not first else first.get("error")
    if not error and not first and (data.get("object") == "error" or ("detail" in data and "choices" not in data)):
        error = {**data, "message": data.get("message") or data.get("detail")}
    if not error:
        return None
    return error if isinstance(error, dict) else {"message": error}


def finish_reason_in(data: Any) -> str:
    """The reason why the first choice ended, where there is one."""
    choices = data.get("choices") if isinstance(data, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return str(first.get("finish_reason") or "")[:_MAX_REASON_CHARACTERS] if isinstance(first, dict) else ""


def cut_at(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of the stop texts."""
    ends = [end for end in (text.find(word) for word in stop if word) if end >= 0]
    return text[: min(ends)] if ends else text


def _joined(content: Any) -> str:
    """The text of a content that is a string, a list of parts, or missing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return str(content["text"])
    return ""


def _split_reasoning(content: str, message: dict[str, Any]) -> tuple[str, str]:
    """Text and reasoning apart; an unclosed or unopened `<think>` counts up to the end or from the start."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    parts = [reasoning] if isinstance(reasoning, str) else []
    if "<" not in content:
        return content, "\n".join(parts)
    parts += [found.group(2).strip() for found in _THINK.finditer(content)]
    text = _THINK.sub("", content)
    end = _THINK_END.search(text)
    if end:
        parts.append(text[: end.start()].strip())
        text = text[end.end() :]
    return (text if len(text) == len(content) else text.strip()), "\n".join(part for part in parts if part)


def _tool_calls(raw: Any) -> tuple[LLMToolCall, ...]:
    """All tool calls of the reply; arguments that came decoded are written back as JSON text.

    One alone in place of a list, and name and arguments without `function` around them, are read as well.
    """
    if isinstance(raw, dict):
        raw = [raw]
    if not isinstance(raw, list):
        return ()
    calls = []
    for entry in raw:
        if not isinstance(entry, dict):
            continue
        function = entry.get("function")
        if isinstance(function, str) or (function is None and isinstance(entry.get("name"), str)):
            function = {"name": function or entry["name"], "arguments": entry.get("arguments", entry.get("parameters"))}
        if not isinstance(function, dict):
            continue
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = "{}" if arguments is None else json.dumps(arguments, ensure_ascii=False)
        extra = _unknown(entry, _KNOWN_CALL_FIELDS) if len(entry) > _NUM_CALL_FIELDS else {}
        call_id, name = str(entry.get("id") or ""), str(function.get("name") or "")
        calls.append(LLMToolCall(id=call_id, name=name, arguments=arguments, extra=extra))
    return tuple(calls)


_NUM_CALL_FIELDS = 3


def read_usage(data: Any) -> Usage:
    """Tokens as reported, of whatever shape the rest is; where none are they are 0, and the client counts `usage_missing`.

    What `total_tokens` has beyond prompt and completion is thinking that the completion leaves out, and is paid for.
    """
    raw = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(raw, dict):
        return Usage()
    prompt = _first_count(raw, ("prompt_tokens", "input_tokens"))
    completion = _first_count(raw, ("completion_tokens", "output_tokens"))
    details = raw.get("prompt_tokens_details", raw.get("input_tokens_details"))
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    cached = cached or _first_count(raw, ("prompt_cache_hit_tokens", "cache_read_input_tokens"))
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=min(cached, prompt),
        completion_tokens=max(completion, _count(raw.get("total_tokens")) - prompt),
    )


def _first_count(raw: dict[str, Any], names: Sequence[str]) -> int:
    for name in names:
        if name in raw and (count := _count(raw[name])):
            return count
    return 0


def _count(value: Any) -> int:
    if type(value) is int and 0 <= value < _MAX_COUNT:
        return value
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) <= _MAX_DIGITS else 0
    return int(value) if isinstance(value, (int, float)) and 0 <= value < _MAX_COUNT else 0


_MAX_DIGITS = 12
_MAX_COUNT = 10**_MAX_DIGITS
