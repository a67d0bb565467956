"""From what an LLM wrote to a `ToolCall`: text actions, native tool calls, calls that leaked into the text, final lists.

Nothing here knows the pool: whether attributes and items exist is the tools' and memory's matter. Every function either
returns a `ToolCall` or raises `ReplyError`; at most `MAX_REPLY_CHARACTERS` of a reply are read. Well-formed replies are read
at once; `toolrec.surrogate.reading` has the repairs of the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from toolrec.errors import ReplyError
from toolrec.grammar import encodable, item_ids_in
from toolrec.records import ToolCall
from toolrec.surrogate.reading.arguments import attribute_of, finish_entries, k_of, read_arguments
from toolrec.surrogate.reading.final_lists import plain_list
from toolrec.surrogate.reading.json_text import read_json, starts_like_json
from toolrec.surrogate.reading.leaked_calls import leaked_call
from toolrec.surrogate.reading.text_actions import TextAction, find_action, has_label, split_arguments
from toolrec.surrogate.reading.tool_names import known_name, listed

MAX_REPLY_CHARACTERS = 100_000

_DECORATION = r"[ \t*_`#>]{0,20}"
_AFTER_LABEL = r"[ \t\d*_`]{0,12}[:：]"
_OBSERVATION = re.compile(rf"^{_DECORATION}observation{_AFTER_LABEL}", re.IGNORECASE | re.MULTILINE)
_ANY_OBSERVATION = re.compile(rf"^{_DECORATION}(?:observation|观察){_AFTER_LABEL}", re.IGNORECASE | re.MULTILINE)
_THOUGHT_LABEL = re.compile(rf"^{_DECORATION}(?:thought|思考)[ \t\d*_`]{{0,12}}[:：]{_DECORATION}", re.IGNORECASE)

NOT_JSON = "not_json"
"""Key under which arguments that are no JSON object are echoed: endpoints refuse a conversation with broken JSON in it."""
PLAIN_LIST = "plain_list"
"""The repair by which a list without a call is a finish; the loop takes it from candidates alone."""
CUT_OFF = "the reply was cut at the limit of output tokens (--llm-max-output-tokens); answer more briefly"


def cut_observation(text: str) -> str:
    """The reply up to an observation that the LLM made up, within the size that is read."""
    text = text[:MAX_REPLY_CHARACTERS]
    match = (_OBSERVATION if text.isascii() else _ANY_OBSERVATION).search(text)
    return text[: match.start()].rstrip() if match else text


def thought_of(text: str) -> str:
    """What stands before the action, without its label."""
    action = find_action(text)
    before = (text[: action.start] if action else text).strip()
    label = _THOUGHT_LABEL.match(before)
    return before[label.end() if label else 0 :].strip(" \t\n*_`")


def parse_text_reply(text: str, *, allowed: Collection[str], is_cut: bool = False) -> ToolCall:
    """Reads the first action of a reply in the text form.

    Args:
        text: the reply, already cut at `Observation`.
        allowed: names of the actions that there are.
        is_cut: whether the reply ended at the limit of output tokens: an action that is not closed is then none.

    Raises:
        ReplyError: no action, or one that cannot be read.
    """
    text = text[:MAX_REPLY_CHARACTERS]
    if not text.strip():
        raise _empty("the reply is empty", is_cut)
    action = find_action(text)
    if action is not None:
        return _text_call(action, allowed, is_cut)
    call = _leaked(text, allowed)
    if call is not None:
        return call
    if is_cut:
        raise ReplyError(CUT_OFF, kind="cut_off")
    if has_label(text):
        raise ReplyError(f"unknown action; there are {listed(allowed)}", kind="unknown_action")
    raise ReplyError("no action found in the reply", kind="no_action")


def parse_tool_call(name: str, arguments: str, *, call_id: str, allowed: Collection[str], is_cut: bool = False) -> ToolCall:
    """Reads a native tool call with its raw JSON arguments.

    Raises:
        ReplyError: an unknown tool, arguments that are no JSON object, a field of the wrong kind.
    """
    known, repairs = known_name(name, allowed)
    if arguments.startswith(f'{{"{NOT_JSON}"'):
        raise ReplyError("the arguments are not a JSON object", kind="bad_arguments")
    if is_cut and not _is_json(arguments):
        raise ReplyError(CUT_OFF, kind="cut_off")
    call = read_arguments(known, arguments, call_id=call_id)
    return replace(call, repairs=(*repairs, *call.repairs)) if repairs else call


def parse_plain_reply(text: str, *, allowed: Collection[str], list_length: int = 10, is_cut: bool = False) -> ToolCall:
    """Reads a reply without tool calls where tool calls were expected: a leaked call, an action in text, or a final list.

    Args:
        text: the reply.
        allowed: names of the tools that there are.
        list_length: entries that make a list a final one.
        is_cut: whether the reply ended at the limit of output tokens: a list is then none.

    Raises:
        ReplyError: none of them.
    """
    text = cut_observation(text)
    if not text.strip():
        raise _empty("the reply is empty; call a tool", is_cut)
    call = _leaked(text, allowed)
    if call is not None:
        return call
    action = find_action(text)
    if action is not None:
        return _text_call(action, allowed, is_cut)
    if is_cut:
        raise ReplyError(CUT_OFF, kind="cut_off")
    entries = plain_list(text, list_length=list_length) if "finish" in allowed else None
    if entries:
        return ToolCall(name="finish", items=entries, repairs=(PLAIN_LIST,))
    advice = f"; to end, call finish with {list_length} ids" if item_ids_in(text) else ""
    raise ReplyError(f"no tool was called; call one of {listed(allowed)}{advice}", kind="no_action")


def valid_arguments(arguments: str) -> str:
    """The arguments as received; repaired where their JSON is broken, under `NOT_JSON` where they are none, `{}` where blank."""
    if not arguments.strip():
        return "{}"
    if is_object(arguments):
        return encodable(arguments)
    try:
        value, _ = read_json(arguments)
    except ReplyError:
        value = None
    if isinstance(value, (dict, list)):
        return json.dumps(value if isinstance(value, dict) else {"items": value})
    return json.dumps({NOT_JSON: arguments[:500]})


def json_repairs(arguments: str) -> tuple[str, ...]:
    """What `valid_arguments` repairs, by name."""
    try:
        return read_json(arguments)[1] if arguments.strip() else ()
    except ReplyError:
        return ()


def is_object(text: str) -> bool:
    """Whether a text is a JSON object as it stands."""
    return isinstance(_loaded(text), dict)


def _text_call(action: TextAction, allowed: Collection[str], is_cut: bool) -> ToolCall:
    name, _ = known_name(action.name, allowed)
    if is_cut and not action.is_closed:
        raise ReplyError(CUT_OFF, kind="cut_off")
    if starts_like_json(action.content) and action.content.lstrip()[:1] == "{":
        return read_arguments(name, action.content)
    if name == "finish":
        return ToolCall(name=name, items=_finish_list(action.content))
    attribute, k, is_swapped = split_arguments(action.content)
    repairs = ["k_first"] if is_swapped else []
    if attribute is None:
        raise ReplyError(f"{name} needs an attribute and K, as in {name.capitalize()}[none, 20]", kind="bad_arguments")
    number = k_of(k)
    if number is None:
        repairs.append("default_k")
    return ToolCall(name=name, attribute=attribute_of(attribute), k=number, repairs=tuple(repairs))


def _finish_list(content: str) -> tuple[str, ...]:
    if content.lstrip()[:1] == "[":
        return read_arguments("finish", {"items": content}).items
    return finish_entries(content)


def _leaked(text: str, allowed: Collection[str]) -> ToolCall | None:
    return leaked_call(text, allowed=allowed)


def _empty(reason: str, is_cut: bool) -> ReplyError:
    return ReplyError(f"{reason}: {CUT_OFF}" if is_cut else reason, kind="cut_off" if is_cut else "empty")


def _is_json(text: str) -> bool:
    return _loaded(text) is not None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant) if len(text) <= MAX_REPLY_CHARACTERS else None
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
