"""Reading prompts: from chat messages in the grammar of `toolrec.grammar` to what the rules decide on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from toolrec import grammar
from toolrec.columns import PLAIN_BACKBONE
from toolrec.grammar import ItemLine

MAX_ITEMS_PER_LIST = 1000
MAX_KEPT_CHARACTERS = 16_384
DEFAULT_LIST_LENGTH = 10
KNOWN_TOOLS = ("retrieve", "rank", "finish")
_RETURNED = re.compile(r"\b(Retrieve|Rank)\[([^\[\]\n]{1,200}?),\s*(\d{1,4})\]\s+returned\b", re.IGNORECASE)
_ACTION = re.compile(r"^[ \t]*Action[ \t]*\d{0,6}[ \t]*:[ \t]*(Retrieve|Rank|Finish)\[([^\n]*)", re.IGNORECASE | re.MULTILINE)


class ForeignPromptError(Exception):
    """The messages are not in the grammar; the text says what is understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolList:
    """A list that a tool returned in the conversation."""

    name: Literal["retrieve", "rank"]
    attribute: str
    items: tuple[ItemLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a surrogate stands: its history, its options and what its calls brought.

    `number` is the decision's own, from 1. `tried` are the (tool, attribute) pairs called so far, failed ones too;
    `refused` are ids that were not accepted.
    `tools` are the tools on offer; `is_native` tells whether the reply is to be a native tool call, and `has_thoughts` whether
    a thought belongs to it. `plan_length` is the most calls of the plan that is asked for; 0 where one action is.
    """

    history: tuple[ItemLine, ...]
    attributes: tuple[str, ...]
    list_length: int
    lists: tuple[ToolList, ...]
    tried: frozenset[tuple[str, str]]
    refused: frozenset[str]
    number: int
    rounds_left: int | None
    must_finish: bool
    tools: frozenset[str]
    is_native: bool
    has_thoughts: bool = True
    plan_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """A rank prompt: order the candidates for this history by an attribute, and return `k` of them."""

    history: tuple[ItemLine, ...]
    candidates: tuple[ItemLine, ...]
    attribute: str
    k: int
    refused: frozenset[str] = field(default=frozenset())


def read_prompt(request: Mapping[str, Any]) -> Situation | RankRequest:
    """Reads a chat-completions request.

    Raises:
        ForeignPromptError: neither a surrogate's conversation nor a rank prompt.
    """
    messages = request["messages"]
    texts = [_text_of(message.get("content")) for message in messages]
    start = next(
        (
            n
            for n in reversed(range(len(texts)))
            if messages[n].get("role") == "user" and grammar.has_line(grammar.HISTORY_HEADING, texts[n])
        ),
        None,
    )
    if start is None:
        raise ForeignPromptError(f"no user message has the heading {grammar.HISTORY_HEADING!r}")
    task = texts[start][max(texts[start].rfind("\n" + grammar.HISTORY_HEADING), 0) :].lstrip("\n")
    history = _items_below(grammar.HISTORY_HEADING, task)
    if grammar.has_line(grammar.CANDIDATES_HEADING, task):
        return _read_rank(task, history, messages[start + 1 :], texts[start + 1 :])
    return _read_situation(request, start, texts, history)


def _read_rank(
    task: str, history: tuple[ItemLine, ...], messages: Sequence[Mapping[str, Any]], texts: Sequence[str]
) -> RankRequest:
    attribute = _value_of(grammar.RANK_BY_LABEL, task)
    if attribute is None:
        raise ForeignPromptError(f"a rank prompt needs a line {grammar.RANK_BY_LABEL!r}")
    candidates = _items_below(grammar.CANDIDATES_HEADING, task)
    k = _number_of(grammar.RETURN_LABEL, task)
    return RankRequest(
        history=history,
        candidates=candidates,
        attribute=attribute,
        k=len(candidates) if k is None else k,
        refused=_refused(messages, texts, (_ids_of_list(m, t) for m, t in zip(messages, texts, strict=True))),
    )


def _read_situation(request: Mapping[str, Any], start: int, texts: Sequence[str], history: tuple[ItemLine, ...]) -> Situation:
    task = texts[start]
    listed = _value_of(grammar.ATTRIBUTES_LABEL, task)
    if listed is None:
        raise ForeignPromptError(f"a surrogate's task needs a line {grammar.ATTRIBUTES_LABEL!r}")
    attributes = tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
    messages, after = request["messages"][start + 1 :], texts[start + 1 :]
    actions = [action for m, t in zip(messages, after, strict=True) if m.get("role") == "assistant" for action in _actions(m, t)]
    lists: dict[tuple[str, str], ToolList] = {}
    rounds_left = _number_of(grammar.ROUNDS_LABEL, task)
    for message, text in zip(messages, after, strict=True):
        if message.get("role") == "assistant":
            continue
        found = read_observation(text)
        if found is not None:
            lists[(found.name, found.attribute)] = found
        left = _number_of(grammar.ROUNDS_LEFT_LABEL, text)
        rounds_left = rounds_left if left is None else left
    latest = _after_last_assistant(messages, after, texts[start])
    native = _native_tools(request)
    number = 1 + sum(m.get("role") != "assistant" and _is_observation(t) for m, t in zip(messages, after, strict=True))
    return Situation(
        history=history,
        attributes=attributes,
        list_length=_number_of(grammar.LIST_LENGTH_LABEL, task) or DEFAULT_LIST_LENGTH,
        lists=tuple(lists.values()),
        tried=frozenset(actions) | frozenset(lists),
        refused=_refused(messages, after, (_ids_of_finish(m, t) for m, t in zip(messages, after, strict=True))),
        number=number,
        plan_length=(_number_of(grammar.PLAN_LABEL, task) or 0) if number == 1 else 0,
        rounds_left=rounds_left,
        must_finish=rounds_left == 0 or any(grammar.has_line(grammar.FINISH_NOW, text) for text in latest),
        tools=native if native is not None else _tools_in_text(texts[: start + 1]),
        is_native=native is not None,
        has_thoughts=not grammar.has_line(grammar.NO_THOUGHTS, task),
    )


def read_observation(text: str) -> ToolList | None:
    """The list that an observation shows, or None."""
    return _kept_observation(text) if len(text) <= MAX_KEPT_CHARACTERS else _read_observation(text)


def _is_observation(text: str) -> bool:
    return not grammar.has_line(grammar.NOT_ACCEPTED_LABEL, text) and (
        grammar.has_line(grammar.ROUNDS_LEFT_LABEL, text)
        or grammar.has_line(grammar.ERROR_LABEL, text)
        or read_observation(text) is not None
    )


def _read_observation(text: str) -> ToolList | None:
    head = _RETURNED.search(text)
    if head is None:
        return None
    name: Literal["retrieve", "rank"] = "rank" if head.group(1).lower() == "rank" else "retrieve"
    return ToolList(name=name, attribute=_attribute(head.group(2)), items=_item_lines(text[head.end() :]))


_kept_observation = lru_cache(maxsize=512)(_read_observation)
"""Readings are kept, because every later prompt of a conversation repeats its observations."""


def _item_lines(text: str) -> tuple[ItemLine, ...]:
    """The item lines from the start of `text` up to the first other line."""
    items: list[ItemLine] = []
    for raw in text.split("\n"):
        line = grammar.parse_item_line(raw) if "<" in raw else None
        if line is not None:
            items.append(line)
            if len(items) == MAX_ITEMS_PER_LIST:
                break
        elif items and raw.strip():
            break
    return tuple(items)


def _items_below(heading: str, text: str) -> tuple[ItemLine, ...]:
    """The item lines below the first line that begins with `heading`."""
    return _item_lines(("\n" + text).partition("\n" + heading)[2])


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def _value_of(label: str, text: str) -> str | None:
    """What follows the last line start `label`; few-shot examples may stand before it."""
    at = text.rfind("\n" + label)
    if at < 0:
        if not text.startswith(label):
            return None
        at = -1
    begin = at + 1 + len(label)
    end = text.find("\n", begin)
    return text[begin : end if end >= 0 else len(text)].strip() or None


def _number_of(label: str, text: str) -> int | None:
    value = _value_of(label, text)
    found = re.match(r"\d{1,6}", value) if value else None
    return int(found.group()) if found else None


def _attribute(text: str) -> str:
    name = text.strip().strip("'\"`")
    return PLAIN_BACKBONE if name.lower() == PLAIN_BACKBONE else name


def _calls_of(message: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and arguments of an assistant message's native tool calls."""
    raw = message.get("tool_calls")
    functions = [call.get("function") for call in raw if isinstance(call, dict)] if isinstance(raw, list) else []
    return [(str(f.get("name")).lower(), _arguments(f.get("arguments"))) for f in functions if isinstance(f, dict)]


def _actions(message: Mapping[str, Any], text: str) -> list[tuple[str, str]]:
    """The (tool, attribute) pairs that an assistant message calls."""
    found = [(name, _attribute(str(given["attribute"]))) for name, given in _calls_of(message) if "attribute" in given]
    for name, rest in _ACTION.findall(text):
        found.append((name.lower(), _attribute(rest.rpartition("]")[0].rpartition(",")[0] or PLAIN_BACKBONE)))
    return found


def _arguments(raw: Any) -> dict[str, Any]:
    try:
        data = json.loads(raw) if isinstance(raw, str) else raw
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _ids_of_finish(message: Mapping[str, Any], text: str) -> frozenset[str]:
    """The ids of an assistant message's final list."""
    ids: set[str] = set()
    for name, given in _calls_of(message):
        items = given.get("items")
        if name == "finish" and isinstance(items, list):
            ids.update(str(item).strip().strip("<>") for item in items if isinstance(item, (str, int)))
    for name, rest in _ACTION.findall(text):
        if name.lower() == "finish":
            ids.update(grammar.item_ids_in(rest))
    return frozenset(ids)


def _ids_of_list(message: Mapping[str, Any], text: str) -> frozenset[str]:
    return frozenset(grammar.item_ids_in(text)) if message.get("role") == "assistant" else frozenset()


def _refused(messages: Sequence[Mapping[str, Any]], texts: Sequence[str], own: Any) -> frozenset[str]:
    """Ids of our own lists that a `Not accepted:` message names afterwards."""
    said: set[str] = set()
    refused: set[str] = set()
    for message, text, ids in zip(messages, texts, own, strict=True):
        if message.get("role") == "assistant":
            said.update(ids)
        elif grammar.has_line(grammar.NOT_ACCEPTED_LABEL, text):
            named = ("\n" + text).partition("\n" + grammar.NOT_ACCEPTED_LABEL)[2]
            refused.update(said.intersection(grammar.item_ids_in(named)))
    return frozenset(refused)


def _after_last_assistant(messages: Sequence[Mapping[str, Any]], texts: Sequence[str], task: str) -> list[str]:
    latest: list[str] = []
    for message, text in zip(reversed(messages), reversed(texts), strict=True):
        if message.get("role") == "assistant":
            return latest
        latest.append(text)
    return [*latest, task]


def _native_tools(request: Mapping[str, Any]) -> frozenset[str] | None:
    """The tools that the request offers, or None where the reply is to be text.

    Raises:
        ForeignPromptError: tools are offered, and none is known.
    """
    choice, offered = request.get("tool_choice"), request.get("tools")
    if not isinstance(offered, list) or not offered or choice == "none":
        return None
    functions = [entry.get("function") for entry in offered if isinstance(entry, dict)]
    names = [f.get("name") for f in functions if isinstance(f, dict)]
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        names = [choice["function"].get("name")]
    known = frozenset(name for name in KNOWN_TOOLS if name in names)
    if not known:
        raise ForeignPromptError(f"none of the tools {', '.join(KNOWN_TOOLS)} is offered")
    return known


def _tools_in_text(texts: Sequence[str]) -> frozenset[str]:
    """The actions that the opening messages mention; retrieving and finishing are always understood."""
    return frozenset(KNOWN_TOOLS) if any("Rank[" in text for text in texts) else frozenset(("retrieve", "finish"))
