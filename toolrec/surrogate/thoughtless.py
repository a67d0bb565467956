"""The protocols without thoughts: a call alone is asked for, and what else an LLM writes does not enter the conversation.

What a reasoning model thinks apart from its answer is the endpoint's matter; it is neither asked for nor kept out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolrec.grammar import NOT_ACCEPTED_LABEL
from toolrec.records import Completion, Message
from toolrec.surrogate.json_protocol import JsonProtocol
from toolrec.surrogate.protocols import OpenReply, TextProtocol, ToolsProtocol
from toolrec.surrogate.reading.text_actions import find_action

LEFT_OUT = "thought_left_out"
"""Counts replies whose thought was kept out of the conversation."""


class CallsOnly(ToolsProtocol):
    """Native tool calls without a text beside them."""

    def echo(self, completion: Completion, *, messages: Sequence[Message] = ()) -> Message:
        """The calls alone; a reply without calls as it came, for it may hold one."""
        message = super().echo(completion, messages=messages)
        return {**message, "content": ""} if message.get("tool_calls") else message

    def repairs(self, completion: Completion, message: Message) -> list[str]:
        """What the echo repairs, and a text that it leaves out."""
        found = super().repairs(completion, message)
        if message.get("tool_calls") and completion.text.strip():
            found.append(LEFT_OUT)
        return found

    def thought(self, completion: Completion) -> str:
        """None."""
        return ""


class ActionsOnly(TextProtocol):
    """`Action i: …` without a thought above it."""

    def echo(self, completion: Completion, *, messages: Sequence[Message] = ()) -> Message:
        """The reply from its action on; one without an action as it came."""
        message = super().echo(completion, messages=messages)
        action = find_action(message["content"])
        return {**message, "content": message["content"][action.start :]} if action else message

    def repairs(self, completion: Completion, message: Message) -> list[str]:
        """A thought that the echo leaves out."""
        before = super().echo(completion)["content"].removesuffix(message["content"])
        return [LEFT_OUT] if before.strip() else []

    def thought(self, completion: Completion) -> str:
        """None."""
        return ""

    def refusal(self, reply: OpenReply, reason: str, *, number: int) -> Message:
        """The reason and the form that is expected."""
        return {
            "role": "user",
            "content": f"{NOT_ACCEPTED_LABEL} {reason}. Go on with one `Action {number}: …` and nothing else.",
        }


class JsonActionsOnly(JsonProtocol):
    """A JSON object with an action alone."""

    def response_format(self, *, is_last: bool, candidate_ids: Sequence[str]) -> dict[str, Any] | None:
        """The schema without a thought."""
        form = super().response_format(is_last=is_last, candidate_ids=candidate_ids)
        assert form is not None
        schema = form["json_schema"]["schema"]
        del schema["properties"]["thought"]
        schema["required"] = ["action"]
        return form

    def echo(self, completion: Completion, *, messages: Sequence[Message] = ()) -> Message:
        """The object's action; what is no such object as it came."""
        message = super().echo(completion, messages=messages)
        fields = _object_in(message["content"])
        if "action" in fields and len(fields) > 1:
            return {**message, "content": json.dumps({"action": fields["action"]}, ensure_ascii=False)}
        return message

    def repairs(self, completion: Completion, message: Message) -> list[str]:
        """A thought that the echo leaves out."""
        return [LEFT_OUT] if "action" in (said := _object_in(completion.text)) and said.get("thought") else []

    def thought(self, completion: Completion) -> str:
        """None."""
        return ""

    def refusal(self, reply: OpenReply, reason: str, *, number: int) -> Message:
        """The reason and the form that is expected."""
        return {"role": "user", "content": f"{NOT_ACCEPTED_LABEL} {reason}. Answer with one JSON object that holds an action."}


def _object_in(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
