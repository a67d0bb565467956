"""From what an LLM wrote to a `ToolCall`: text actions, native tool calls, bare lists.

Nothing here knows the pool: whether attributes and items exist is the tools' and memory's matter. Every function either
returns a `ToolCall` or raises `ReplyError`, in time linear in the reply, of which at most `MAX_REPLY_CHARACTERS` are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, cast

from toolrec.errors import ReplyError
from toolrec.grammar import clean, encodable, item_ids_in, list_entries
from toolrec.records import ActionName, ToolCall
from toolrec.tools.calls import clean_attribute

MAX_REPLY_CHARACTERS = 100_000
_MAX_ARGUMENT_CHARACTERS = 400

_DECORATION = r"[ \t*_`#>]{0,20}"
_ACTION = re.compile(
    rf"\baction[ \t\d*_`]{{0,12}}[:：]{_DECORATION}\n?{_DECORATION}(retrieve|rank|finish)\b[*_` \t]{{0,8}}", re.IGNORECASE
)
_BARE_ACTION = re.compile(r"\b(retrieve|rank|finish)[*_` \t]{0,8}(?=[\[(])", re.IGNORECASE)
_ACTION_LABEL = re.compile(r"\baction[ \t\d*_`]{0,12}[:：]", re.IGNORECASE)
_OBSERVATION = re.compile(rf"^{_DECORATION}observation[ \t\d*_`]{{0,12}}[:：]", re.IGNORECASE | re.MULTILINE)
_THOUGHT_LABEL = re.compile(rf"^{_DECORATION}thought[ \t\d*_`]{{0,12}}[:：]{_DECORATION}", re.IGNORECASE)
_FIELD = re.compile(r"^\s{0,9}(?:attribute|attr|k|n|items|list)\s{0,9}[=:]\s{0,9}", re.IGNORECASE)
_INTEGER = re.compile(r"^[+-]?\d{1,9}(?:\.0{1,9})?(?:\s{0,9}items?)?$", re.IGNORECASE)
_END_OF_LIST = re.compile(r"[\])][ \t.*_`]{0,20}(?=\n|$)")
_NUMBERED_LINE = re.compile(r"^[ \t]{0,9}\d{1,3}[.)][ \t]{1,9}\S", re.MULTILINE)
_MIN_NUMBERED_LINES = 3
_MIN_IDS = 2

NOT_JSON = "not_json"
"""Key under which arguments that are no JSON object are echoed: endpoints refuse a conversation with broken JSON in it."""


def cut_observation(text: str) -> str:
    """The reply up to an observation that the LLM made up, within the size that is read."""
    text = text[:MAX_REPLY_CHARACTERS]
    match = _OBSERVATION.search(text)
    return text[: match.start()].rstrip() if match else text


def thought_of(text: str) -> str:
    """What stands before the action, without its label."""
    match = _find_action(text)
    before = text[: match.start()] if match else text
    label = _THOUGHT_LABEL.match(before.strip())
    return before.strip()[label.end() if label else 0 :].strip(" \t\n*_`")


def parse_text_reply(text: str, *, allowed: Collection[str]) -> ToolCall:
    """Reads the first action of a reply in the text form.

    Args:
        text: the reply, already cut at `Observation`.
        allowed: names of the actions that there are.

    Raises:
        ReplyError: no action, or one that cannot be read.
    """
    text = text[:MAX_REPLY_CHARACTERS]
    if not text.strip():
        raise ReplyError("the reply is empty", kind="empty")
    match = _find_action(text)
    if match is None:
        if _ACTION_LABEL.search(text):
            raise ReplyError(f"unknown action; there are {_listed(allowed)}", kind="unknown_action")
        raise ReplyError("no action found in the reply", kind="no_action")
    name = _known_name(match.group(1), allowed)
    rest = text[match.end() :]
    if name == "finish":
        return ToolCall(name=name, items=_finish_entries(_finish_content(rest)))
    attribute, k = _split_arguments(_content(rest))
    return ToolCall(name=name, attribute=_attribute(attribute), k=k)


def parse_tool_call(name: str, arguments: str, *, call_id: str, allowed: Collection[str]) -> ToolCall:
    """Reads a native tool call with its raw JSON arguments.

    Raises:
        ReplyError: an unknown tool, arguments that are no JSON object, a field of the wrong kind.
    """
    known = _known_name(name.strip(), allowed)
    fields = _json_object(arguments)
    if NOT_JSON in fields:
        raise ReplyError("the arguments are not a JSON object", kind="bad_arguments")
    if known == "finish":
        return ToolCall(name=known, items=_finish_entries(_list_text(fields)), call_id=call_id)
    return ToolCall(name=known, attribute=_attribute(fields.get("attribute")), k=_k(fields.get("k")), call_id=call_id)


def parse_plain_reply(text: str, *, allowed: Collection[str]) -> ToolCall:
    """Reads a reply without tool calls where tool calls were expected: an action in the text form, or a final list.

    Raises:
        ReplyError: neither.
    """
    text = cut_observation(text)
    if not text.strip():
        raise ReplyError("the reply is empty; call a tool", kind="empty")
    if _find_action(text) is not None:
        return parse_text_reply(text, allowed=allowed)
    if _looks_like_list(text):
        return ToolCall(name=_known_name("finish", allowed), items=_finish_entries(text))
    raise ReplyError(f"no tool was called; call one of {_listed(allowed)}", kind="no_action")


def valid_arguments(arguments: str) -> str:
    """The arguments as received; in a JSON object under `NOT_JSON` where they are none themselves, `{}` where blank."""
    try:
        _json_object(arguments)
    except ReplyError:
        return json.dumps({NOT_JSON: arguments[:500]})
    return encodable(arguments) if arguments.strip() else "{}"


def _find_action(text: str) -> re.Match[str] | None:
    return _ACTION.search(text) or _BARE_ACTION.search(text)


def _known_name(name: str, allowed: Collection[str]) -> ActionName:
    known = name.casefold()
    if known not in allowed:
        raise ReplyError(f"there is no “{clean(name, limit=40)}”; there are {_listed(allowed)}", kind="unknown_action")
    return cast("ActionName", known)


def _listed(allowed: Collection[str]) -> str:
    return ", ".join(sorted(allowed))


def _content(rest: str) -> str:
    """What stands between the brackets after an action's name; a missing closing one ends with the line."""
    line = rest.partition("\n")[0].strip()
    opening = line[:1]
    if opening not in ("[", "("):
        return line
    end = line.find("]" if opening == "[" else ")")
    return line[1 : end if end >= 0 else None]


def _finish_content(rest: str) -> str:
    """The list after `Finish`: up to a closing bracket at the end of a line, or all that follows."""
    rest = rest.lstrip(" \t\n:")
    if rest[:1] not in ("[", "("):
        return rest
    match = _END_OF_LIST.search(rest)
    if match:
        return rest[1 : match.start()]
    end = rest.rfind("]" if rest[0] == "[" else ")")
    return rest[1 : end if end > 0 else None]


def _finish_entries(text: str) -> tuple[str, ...]:
    entries = tuple(list_entries(text))
    if not entries:
        raise ReplyError("the final list is empty", kind="empty_list")
    return entries


def _split_arguments(content: str) -> tuple[str | None, int | None]:
    """`genre, 20` taken apart; K is last, and either may be missing."""
    head, comma, last = content[:_MAX_ARGUMENT_CHARACTERS].rpartition(",")
    if comma:
        return _unlabelled(head), _k(_unlabelled(last))
    only = _unlabelled(last)
    return (None, _k(only)) if _INTEGER.match(only) else (only, None)


def _unlabelled(text: str) -> str:
    return _FIELD.sub("", text, count=1).strip().strip("\"'`*“”").strip()


def _attribute(value: Any) -> str | None:
    """The attribute in a form that observations and marks can carry; None for the plain backbone."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ReplyError("attribute must be a string", kind="bad_arguments")
    return clean_attribute(value)


def _k(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        # A huge number is out of range whatever it is; kept small so that it can be shown and stored.
        return max(min(value, 10**9), -(10**9))
    if isinstance(value, str) and _INTEGER.match(value.strip()):
        return int(value.strip().lower().partition("item")[0].strip().partition(".")[0])
    raise ReplyError(f"K must be a whole number, not “{clean(str(value)[:200], limit=40)}”", kind="bad_k")


def _json_object(arguments: str) -> Mapping[str, Any]:
    if len(arguments) > MAX_REPLY_CHARACTERS:
        raise ReplyError("the arguments are too long", kind="bad_arguments")
    try:
        fields = json.loads(arguments, parse_constant=_refuse_constant) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ReplyError("the arguments are not valid JSON", kind="bad_arguments") from error
    if not isinstance(fields, dict):
        raise ReplyError("the arguments are not a JSON object", kind="bad_arguments")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _list_text(fields: Mapping[str, Any]) -> str:
    """The final list of a native call as text for `list_entries`; strings are read as lists themselves."""
    items = next((fields[key] for key in ("items", "list", "item_ids", "ids") if key in fields), None)
    if items is None:
        raise ReplyError("finish needs `items`", kind="bad_arguments")
    if isinstance(items, str):
        return items
    if isinstance(items, list):
        return json.dumps(items)
    raise ReplyError("`items` must be a list of item ids", kind="bad_arguments")


def _looks_like_list(text: str) -> bool:
    stripped = text.strip().removeprefix("```json").strip("` \n")
    if stripped.startswith("[") and stripped.endswith("]"):
        return True
    return len(item_ids_in(text)) >= _MIN_IDS or len(_NUMBERED_LINE.findall(text)) >= _MIN_NUMBERED_LINES
