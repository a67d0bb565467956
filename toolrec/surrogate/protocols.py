"""The two forms of a conversation: native tool calls, and the paper's `Thought i: … Action i: …`.

A reply is echoed into the conversation as one assistant message. What it leaves open (one call after another, or its
text) is read back from that message, so that a conversation restored from its messages goes on as the live one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from toolrec.grammar import NOT_ACCEPTED_LABEL, encodable
from toolrec.records import Completion, Message, ToolCall
from toolrec.surrogate.parsing import (
    MAX_REPLY_CHARACTERS,
    NOT_JSON,
    cut_observation,
    is_object,
    json_repairs,
    parse_plain_reply,
    parse_text_reply,
    parse_tool_call,
    thought_of,
    valid_arguments,
)
from toolrec.surrogate.reading.tool_names import bare_name

MAX_CALLS = 32
"""Calls of one reply that are kept: each would be a round of its own, and no user has as many."""
MAX_NAME_CHARACTERS = 200
_NOT_JSON = f'{{"{NOT_JSON}"'
EMPTY_REPLY = "(empty reply)"
"""Stands for a reply without content: endpoints refuse an empty assistant message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReply:
    """A part of a reply that waits for its answer: a native call (`call_id`, `name`, `arguments`) or a text.

    `is_cut`: the reply ended at the limit of output tokens within this part. `has_other_calls`: a finish came in one reply with
    other calls, whose observations its list cannot know.
    """

    text: str = ""
    call_id: str | None = None
    name: str = ""
    arguments: str = ""
    is_cut: bool = False
    has_other_calls: bool = False


class ReadsMessages(Protocol):
    """What is read back from a conversation's own messages."""

    def open_replies(self, message: Message) -> list[OpenReply]:
        """What an assistant message leaves to be answered, in order."""
        ...


class ReplyProtocolRules(Protocol):
    """How replies are asked for, echoed, read and answered."""

    stop: tuple[str, ...] | None

    def schemas(self, *, is_last: bool) -> Sequence[dict[str, Any]] | None:
        """Tool schemas to send along; only `finish` when no round is left."""
        ...

    def response_format(self, *, is_last: bool, candidate_ids: Sequence[str]) -> dict[str, Any] | None:
        """The JSON schema that the reply must have, or None."""
        ...

    def echo(self, completion: Completion, *, messages: Sequence[Message] = ()) -> Message:
        """The reply as an assistant message of the conversation."""
        ...

    def repairs(self, completion: Completion, message: Message) -> list[str]:
        """What the echo repairs, by kind, a kind for each time; `read` tells the rest."""
        ...

    def thought(self, completion: Completion) -> str:
        """What the LLM thought before it acted."""
        ...

    def open_replies(self, message: Message) -> list[OpenReply]:
        """What an assistant message leaves to be answered, in order; never nothing."""
        ...

    def read(self, reply: OpenReply) -> ToolCall:
        """Reads an action.

        Raises:
            ReplyError: it cannot be read.
        """
        ...

    def answer(self, reply: OpenReply, text: str, *, number: int) -> Message:
        """The observation of decision `number`."""
        ...

    def refusal(self, reply: OpenReply, reason: str, *, number: int) -> Message:
        """Asks again with the reason."""
        ...


class ToolsProtocol:
    """Native tool calls; a plain reply with an action or a list in it is read as well.

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
        finish = _schema(
            "finish",
            f"Ends with the final list: {list_length} items that the user will choose from next, best first.",
            {
                "items": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Item ids as they stand between the angle brackets, best first.",
                }
            },
            required=["items"],
        )
        k = {"type": "integer", "minimum": 1, "maximum": max_k, "description": "Length of the list."}
        known = {"type": "string", "enum": list(attributes), "description": "`none` is the plain recommender."}
        free = {"type": "string", "description": "Any attribute that you know about."}
        schemas = {
            "retrieve": _schema(
                "retrieve",
                "Retrieves the K items that suit the user best by the attribute.",
                {"attribute": known, "k": k},
                required=["attribute", "k"],
            ),
            "rank": _schema(
                "rank",
                "Ranks all items retrieved so far by the attribute and returns the first K.",
                {"attribute": free, "k": k},
                required=["attribute", "k"],
            ),
        }
        self._all = [*(schemas[name] for name in tool_names), finish]
        self._last = [finish]

    def schemas(self, *, is_last: bool) -> Sequence[dict[str, Any]] | None:
        """All tools, or only `finish` when no round is left."""
        return self._last if is_last else self._all

    def response_format(self, *, is_last: bool, candidate_ids: Sequence[str]) -> dict[str, Any] | None:
        """None: the tools' schemas say it."""
        return None

    def echo(self, completion: Completion, *, messages: Sequence[Message] = ()) -> Message:
        """The reply as received, within bounds; names and arguments that need it are repaired, ids made unique.

        Arguments that are no JSON are wrapped. Of several calls, one that the limit of output tokens has cut is left out.
        """
        text = encodable(completion.text[:MAX_REPLY_CHARACTERS])
        if not completion.tool_calls:
            return {"role": "assistant", "content": text if text.strip() else EMPTY_REPLY, **completion.extra}
        calls: list[dict[str, Any]] = []
        num_characters = 0
        used = _call_ids(messages)
        for number, call in enumerate(completion.tool_calls[:MAX_CALLS], start=1):
            arguments = valid_arguments(call.arguments)
            num_characters += len(arguments)
            if calls and num_characters > MAX_REPLY_CHARACTERS:
                break
            known_id = encodable(call.id) if 0 < len(call.id) <= MAX_NAME_CHARACTERS else ""
            if not known_id or known_id in used:
                known_id = f"call{len(messages) % 1000:03d}{number:02d}"
            used.add(known_id)
            function = {"name": self._name(call.name), "arguments": arguments}
            calls.append({"id": known_id, "type": "function", "function": function, **call.extra})
        if len(calls) > 1 and completion.finish_reason == "length" and calls[-1]["function"]["arguments"].startswith(_NOT_JSON):
            calls.pop()
        return {"role": "assistant", "content": text, "tool_calls": calls, **completion.extra}

    def repairs(self, completion: Completion, message: Message) -> list[str]:
        """What the echo repairs, by kind."""
        found: list[str] = []
        for call, echoed in zip(completion.tool_calls, message.get("tool_calls") or (), strict=False):
            name, arguments = echoed["function"]["name"], echoed["function"]["arguments"]
            if name != call.name and call.name.strip().casefold() not in self._allowed and name in self._allowed:
                found.append("tool_name")
            if arguments != call.arguments and not is_object(call.arguments):
                found.extend(json_repairs(call.arguments))
        return found

    def _name(self, name: str) -> str:
        if name in self._allowed:
            return name
        bare = bare_name(name)
        return bare if bare in self._allowed else encodable(name[:MAX_NAME_CHARACTERS])

    def thought(self, completion: Completion) -> str:
        """The text beside the calls, or the reasoning where there is none."""
        text = completion.text[:MAX_REPLY_CHARACTERS]
        return _thought(text if completion.tool_calls else thought_of(text), completion)

    def open_replies(self, message: Message) -> list[OpenReply]:
        """Every call, or the plain text."""
        calls = message.get("tool_calls")
        if not calls:
            content = message["content"]
            return [OpenReply(text="" if content == EMPTY_REPLY else content)]
        is_mixed = len(calls) > 1 and any(_is_finish(call) for call in calls) and not all(map(_is_finish, calls))
        return [
            OpenReply(
                call_id=call["id"],
                name=call["function"]["name"],
                arguments=call["function"]["arguments"],
                has_other_calls=is_mixed and _is_finish(call),
            )
            for call in calls
        ]

    def read(self, reply: OpenReply) -> ToolCall:
        """Reads a call, or what a plain reply means.

        Raises:
            ReplyError: it cannot be read.
        """
        if reply.call_id is None:
            return parse_plain_reply(reply.text, allowed=self._allowed, list_length=self._list_length, is_cut=reply.is_cut)
        return parse_tool_call(reply.name, reply.arguments, call_id=reply.call_id, allowed=self._allowed, is_cut=reply.is_cut)

    def answer(self, reply: OpenReply, text: str, *, number: int) -> Message:
        """A `tool` message; a plain reply has no call to answer, so its observation comes from the user."""
        if reply.call_id is None:
            return {"role": "user", "content": text}
        return {"role": "tool", "tool_call_id": reply.call_id, "content": text}

    def refusal(self, reply: OpenReply, reason: str, *, number: int) -> Message:
        """The reason in the place of the observation."""
        return self.answer(reply, f"{NOT_ACCEPTED_LABEL} {reason}.", number=number)


class TextProtocol:
    """`Thought i: … Action i: Retrieve[genre, 20]`, answered by `Observation i: …`.

    Args:
        tool_names: of `retrieve` and `rank`, those that there are.

    Source: paper section 3.2 (after ReAct); the reply is cut at an `Observation` that the LLM makes up. Only at the
    start of a line: thoughts speak of observations, and titles may have the word.
    """

    stop: tuple[str, ...] | None = ("\nObservation",)

    def __init__(self, *, tool_names: Sequence[str]) -> None:
        self._allowed = frozenset((*tool_names, "finish"))

    def schemas(self, *, is_last: bool) -> Sequence[dict[str, Any]] | None:
        """None: nothing is sent along."""
        return None

    def response_format(self, *, is_last: bool, candidate_ids: Sequence[str]) -> dict[str, Any] | None:
        """None: text has no schema."""
        return None

    def echo(self, completion: Completion, *, messages: Sequence[Message] = ()) -> Message:
        """The reply up to an observation of its own making."""
        text = encodable(cut_observation(completion.text))
        return {"role": "assistant", "content": text if text.strip() else EMPTY_REPLY, **completion.extra}

    def repairs(self, completion: Completion, message: Message) -> list[str]:
        """None: a text is echoed as it came."""
        return []

    def thought(self, completion: Completion) -> str:
        """What stands before the action, or the reasoning where there is none."""
        return _thought(thought_of(cut_observation(completion.text)), completion)

    def open_replies(self, message: Message) -> list[OpenReply]:
        """The text."""
        content = message["content"]
        return [OpenReply(text="" if content == EMPTY_REPLY else content)]

    def read(self, reply: OpenReply) -> ToolCall:
        """Reads the first action.

        Raises:
            ReplyError: it cannot be read.
        """
        return parse_text_reply(reply.text, allowed=self._allowed, is_cut=reply.is_cut)

    def answer(self, reply: OpenReply, text: str, *, number: int) -> Message:
        """`Observation i:`, and the observation below it."""
        return {"role": "user", "content": f"Observation {number}:\n{text}"}

    def refusal(self, reply: OpenReply, reason: str, *, number: int) -> Message:
        """The reason and the form that is expected."""
        form = f"Go on with `Thought {number}: …` and then one `Action {number}: …`."
        return {"role": "user", "content": f"{NOT_ACCEPTED_LABEL} {reason}. {form}"}


def _is_finish(call: dict[str, Any]) -> bool:
    name: str = call["function"]["name"]
    return name.strip().casefold() == "finish"


def _call_ids(messages: Sequence[Message]) -> set[str]:
    return {call["id"] for message in messages for call in message.get("tool_calls") or ()}


def _thought(text: str, completion: Completion) -> str:
    return encodable(text or completion.reasoning[:MAX_REPLY_CHARACTERS])


def _schema(name: str, description: str, properties: dict[str, Any], *, required: list[str]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            },
        },
    }
