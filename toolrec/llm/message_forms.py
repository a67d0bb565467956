"""Conversations in the form that an endpoint takes: what its refusals teach is applied to every later request.

Templates of models and gateways differ: no system role, user and assistant strictly in turn, no empty content, ids of tool
calls of nine letters and digits, no fields beside the known ones. A form changes what is sent and never the conversation
itself, so that a restored one is asked the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from toolrec.records import Message

_STANDS_FOR_EMPTY = "(no text)"
_KNOWN = frozenset(("role", "content", "tool_calls", "tool_call_id", "name"))
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


def without_unknown_fields(messages: Sequence[Message]) -> list[Message]:
    """Only the fields of OpenAI's own form."""
    return [_plain(message) for message in messages]


def with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Ids of nine letters and digits; the same id becomes the same one."""
    changed = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [{**call, "id": _short_id(call["id"])} for call in message["tool_calls"]]
            message = {**message, "tool_calls": calls}
        elif "tool_call_id" in message:
            message = {**message, "tool_call_id": _short_id(message["tool_call_id"])}
        changed.append(message)
    return changed


def with_content(messages: Sequence[Message]) -> list[Message]:
    """No content is empty."""
    return [message if _has_text(message) else {**message, "content": _STANDS_FOR_EMPTY} for message in messages]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The system message stands above the first user message."""
    rest = [message for message in messages if message["role"] != "system"]
    rules = "\n\n".join(str(message["content"]) for message in messages if message["role"] == "system")
    if not rules:
        return rest
    for number, message in enumerate(rest):
        if message["role"] == "user":
            rest[number] = {**message, "content": f"{rules}\n\n{message['content']}"}
            return rest
    return [{"role": "user", "content": rules}, *rest]


def in_turns(messages: Sequence[Message]) -> list[Message]:
    """User and assistant in turn, in text alone: observations come from the user, calls stand in the assistant's text."""
    turned: list[Message] = []
    for message in messages:
        role, content = message["role"], str(message.get("content") or "")
        if role == "tool":
            role = "user"
        calls = [json.dumps(_outline(call), ensure_ascii=False) for call in message.get("tool_calls") or ()]
        text = "\n".join(part for part in (content, *calls) if part) or _STANDS_FOR_EMPTY
        if turned and turned[-1]["role"] == role:
            turned[-1] = {**turned[-1], "content": f"{turned[-1]['content']}\n\n{text}"}
        else:
            turned.append({"role": role, "content": text})
    return turned


FORMS: dict[str, Callable[[Sequence[Message]], list[Message]]] = {
    "unknown_fields": without_unknown_fields,
    "short_ids": with_short_ids,
    "nonempty_content": with_content,
    "no_system": without_system,
    "turns": in_turns,
}
"""By name, in the order in which they are applied."""

_EXTRA_FIELDS = r"(?:reasoning_content|reasoning_details|reasoning|thinking|extra_content|thought_signature)\b"
_TAUGHT = tuple(
    (name, re.compile("|".join(patterns), re.IGNORECASE))
    for name, patterns in (
        (
            "no_system",
            (
                r"system (?:role|message|prompt)s?\b.{0,40}(?:not|un)[ -]?support",
                r"role ['\"`]?system['\"`]?.{0,40}not",
                r"(?:does not|doesn't) support (?:the )?system",
            ),
        ),
        (
            "turns",
            (
                r"roles? must alternate",
                r"must alternate between",
                r"alternate user/assistant",
                r"(?:unknown|invalid|unsupported) role:? ['\"`]?tool",
                r"role ['\"`]?tool['\"`]? is not",
            ),
        ),
        ("short_ids", (r"tool.?call.?id.{0,80}(?:length of 9|a-z, A-Z, 0-9)", r"must match pattern.{0,40}\{9\}")),
        (
            "nonempty_content",
            (
                r"(?:must be|have) non-?empty",
                r"content.{0,40}(?:must not|cannot|can't|may not) be (?:empty|null)",
                r"empty content",
                r"content is required",
            ),
        ),
        (
            "unknown_fields",
            (
                _EXTRA_FIELDS + r".{0,60}(?:not (?:allowed|permitted|supported)|unsupported|unexpected|unknown|extra inputs)",
                r"(?:unknown|unexpected|unsupported|unrecognized|extra).{0,40}" + _EXTRA_FIELDS,
            ),
        ),
    )
)
"""What refusals say, by the form that meets them; the first that fits counts."""
STATUSES = frozenset((400, 422, 500))
"""llama.cpp answers 500 where a template refuses a conversation."""


def taught_form(reason: str, messages: Sequence[Message], *, known: Collection[str]) -> str | None:
    """The form that a refusal asks for, or None where it asks for none, or for one that is in use already."""
    text = reason[:2000]
    for name, pattern in _TAUGHT:
        if pattern.search(text):
            # A template that wants turns may have no place for a system message and say nothing of it.
            for form in (name, "no_system") if name == "turns" else (name,):
                if form not in known and FORMS[form](messages) != list(messages):
                    return form
    return None


def in_forms(messages: Sequence[Message], names: Collection[str]) -> list[Message]:
    """The conversation in all of these forms."""
    changed = list(messages)
    for name, form in FORMS.items():
        if name in names:
            changed = form(changed)
    return changed


def _plain(message: Message) -> Message:
    plain = {name: value for name, value in message.items() if name in _KNOWN}
    if plain.get("tool_calls"):
        plain["tool_calls"] = [
            {name: value for name, value in call.items() if name in ("id", "type", "function")} for call in plain["tool_calls"]
        ]
    return plain


def _short_id(call_id: str) -> str:
    return call_id if _NINE.fullmatch(call_id) else hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _has_text(message: Message) -> bool:
    content = message.get("content")
    return bool(content.strip() if isinstance(content, str) else content)


def _outline(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments: Any = json.loads(function["arguments"])
    except ValueError:
        arguments = function["arguments"]
    return {"name": function["name"], "arguments": arguments}
