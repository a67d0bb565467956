"""Replies of endpoints: from the JSON of a chat completion to a `Completion`, whatever shape it has."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from toolrec.records import Completion, LLMToolCall, Usage

_MAX_REASON_CHARACTERS = 100
_THINK = re.compile(r"<(think|thinking|reasoning)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_THINK_END = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)


class UnusableReplyError(Exception):
    """An answer with status 200 that holds no reply; asking again may help."""


def read_completion(data: Any, *, num_attempts: int) -> Completion:
    """Reads one chat completion.

    Args:
        data: the decoded JSON.
        num_attempts: HTTP requests that the call took.

    Raises:
        UnusableReplyError: no choices, or a shape that is none of a chat completion.
    """
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnusableReplyError("the reply has no choices")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise UnusableReplyError("the reply has no message")
    finish_reason = str(choices[0].get("finish_reason") or "stop")[:_MAX_REASON_CHARACTERS]
    text, reasoning = _split_reasoning(_joined(message.get("content")), message)
    tool_calls = _tool_calls(message.get("tool_calls"))
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal and not text and not tool_calls:
        text, finish_reason = refusal, "refusal"
    return Completion(
        text=text,
        tool_calls=tool_calls,
        usage=replace(read_usage(data), num_calls=1, num_attempts=num_attempts),
        finish_reason=finish_reason,
        reasoning=reasoning,
    )


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
    """All tool calls of the reply; arguments that came decoded are written back as JSON text."""
    if not isinstance(raw, list):
        return ()
    calls = []
    for number, entry in enumerate(raw, start=1):
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict):
            continue
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = "{}" if arguments is None else json.dumps(arguments, ensure_ascii=False)
        call_id = str(entry.get("id") or f"call_{number}")
        calls.append(LLMToolCall(id=call_id, name=str(function.get("name") or ""), arguments=arguments))
    return tuple(calls)


def read_usage(data: Any) -> Usage:
    """Tokens as reported, of whatever shape the rest is; where none are they are 0, and the client counts `usage_missing`."""
    raw = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(raw, dict):
        return Usage()
    details = raw.get("prompt_tokens_details")
    return Usage(
        prompt_tokens=_count(raw.get("prompt_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
        completion_tokens=_count(raw.get("completion_tokens")),
    )


def _count(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 1e12 else 0
