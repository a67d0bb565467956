"""`--protocol json`: each reply is one JSON object with a thought and an action, in a form that the endpoint enforces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolrec.errors import ReplyError
from toolrec.grammar import NOT_ACCEPTED_LABEL, encodable
from toolrec.records import Completion, Message, ToolCall
from toolrec.surrogate.parsing import MAX_REPLY_CHARACTERS, cut_observation, parse_plain_reply
from toolrec.surrogate.protocols import EMPTY_REPLY, OpenReply
from toolrec.surrogate.reading.arguments import read_arguments
from toolrec.surrogate.reading.tool_names import known_name

MAX_THOUGHT_CHARACTERS = 400
MAX_LISTED_IDS = 200
"""Candidates whose ids the schema lists, the newest ones; of more than these the schema leaves the ids open."""


class JsonProtocol:
    """Structured outputs: the schema lists tools and attributes, bounds K, and takes the final list from the candidates' ids.

    Args:
        tool_names: of `retrieve` and `rank`, those that there are.
        attributes: what `retrieve` takes.
        max_k: the longest list.
        list_length: length of the final list.
    """

    stop: tuple[str, ...] | None = None

    def __init__(self, *, tool_names: Sequence[str], attributes: Sequence[str], max_k: int, list_length: int) -> None:
        self._allowed = frozenset((*tool_names, "finish"))
        self._list_length = list_length
        k = {"type": "integer", "minimum": 1, "maximum": max_k}
        known = {"type": "string", "enum": list(attributes)}
        free = {"type": "string", "maxLength": 60}
        self._retrieve = _action("retrieve", {"attribute": known, "k": k}) if "retrieve" in tool_names else None
        self._rank = _action("rank", {"attribute": free, "k": k}) if "rank" in tool_names else None

    def schemas(self, *, is_last: bool) -> Sequence[dict[str, Any]] | None:
        """None: no tools are sent along."""
        return None

    def response_format(self, *, is_last: bool, candidate_ids: Sequence[str]) -> dict[str, Any] | None:
        """The schema of the next reply: without candidates there is nothing to rank or to finish with."""
        actions = []
        if self._retrieve is not None and not is_last:
            actions.append(self._retrieve)
        if candidate_ids and self._rank is not None and not is_last:
            actions.append(self._rank)
        if candidate_ids or is_last:
            item: dict[str, Any] = {"type": "string"}
            if self._list_length <= len(candidate_ids) <= MAX_LISTED_IDS:
                item["enum"] = list(candidate_ids)
            length = min(self._list_length, len(candidate_ids) or self._list_length)
            items = {"type": "array", "items": item, "minItems": length, "maxItems": self._list_length}
            actions.append(_action("finish", {"items": items}))
        action = actions[0] if len(actions) == 1 else {"anyOf": actions}
        thought = {"type": "string", "maxLength": MAX_THOUGHT_CHARACTERS}
        schema = _object({"thought": thought, "action": action})
        return {"type": "json_schema", "json_schema": {"name": "decision", "strict": True, "schema": schema}}

    def echo(self, completion: Completion, *, messages: Sequence[Message] = ()) -> Message:
        """The reply as it came."""
        text = encodable(cut_observation(completion.text))
        return {"role": "assistant", "content": text if text.strip() else EMPTY_REPLY, **completion.extra}

    def repairs(self, completion: Completion, message: Message) -> list[str]:
        """None: a reply is echoed as it came."""
        return []

    def thought(self, completion: Completion) -> str:
        """The object's thought, or the reasoning where there is none."""
        fields = _fields(completion.text)
        said = fields.get("thought") if fields else completion.text
        return encodable((said if isinstance(said, str) and said else completion.reasoning)[:MAX_REPLY_CHARACTERS])

    def open_replies(self, message: Message) -> list[OpenReply]:
        """The text."""
        content = message["content"]
        return [OpenReply(text="" if content == EMPTY_REPLY else content)]

    def read(self, reply: OpenReply) -> ToolCall:
        """Reads the object; where the endpoint does not enforce the form, also what else means a call.

        Raises:
            ReplyError: it cannot be read.
        """
        fields = _fields(reply.text)
        action = fields.get("action") if fields else None
        if isinstance(action, dict) and isinstance(action.get("tool"), str):
            name, repairs = known_name(action["tool"], self._allowed)
            call = read_arguments(name, {key: value for key, value in action.items() if key != "tool"})
            return ToolCall(name=name, attribute=call.attribute, k=call.k, items=call.items, repairs=(*repairs, *call.repairs))
        try:
            return parse_plain_reply(reply.text, allowed=self._allowed, list_length=self._list_length, is_cut=reply.is_cut)
        except ReplyError as error:
            if error.kind != "no_action":
                raise
            raise ReplyError("the reply is not one JSON object with `thought` and `action`", kind="no_action") from None

    def answer(self, reply: OpenReply, text: str, *, number: int) -> Message:
        """`Observation i:`, and the observation below it."""
        return {"role": "user", "content": f"Observation {number}:\n{text}"}

    def refusal(self, reply: OpenReply, reason: str, *, number: int) -> Message:
        """The reason and the form that is expected."""
        return {"role": "user", "content": f"{NOT_ACCEPTED_LABEL} {reason}. Answer with one JSON object: thought and action."}


def _fields(text: str) -> dict[str, Any] | None:
    if text.lstrip()[:1] != "{" or len(text) > MAX_REPLY_CHARACTERS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _action(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    return _object({"tool": {"type": "string", "enum": [name]}, **properties})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
