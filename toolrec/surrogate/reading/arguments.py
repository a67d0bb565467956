"""Arguments of a call: from what stands between the brackets, as JSON or in words, to the fields that the tools take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolrec.errors import ReplyError
from toolrec.grammar import clean, list_entries
from toolrec.records import ActionName, ToolCall
from toolrec.surrogate.reading.json_text import read_json, starts_like_json
from toolrec.tools.calls import clean_attribute

_WRAPPERS = ("parameters", "arguments", "args", "input", "params", "kwargs", "properties", "tool_input", "action_input")
_MAX_WRAPPERS = 3
_FIELDS: Mapping[ActionName, tuple[str, ...]] = {
    "retrieve": ("attribute", "k"),
    "rank": ("attribute", "k"),
    "finish": ("items",),
}
_OTHER_KEYS: Mapping[str, frozenset[str]] = {
    "attribute": frozenset(("attribute", "attr", "attributes", "attribute_name", "aspect")),
    "k": frozenset(("k", "top_k", "topk", "n", "count", "limit", "num", "number", "num_items", "size")),
    "items": frozenset(
        (
            *("items", "list", "item_ids", "ids", "item_id_list", "final_list", "final_items", "ranked_items", "ranking"),
            *("recommendations", "recommended_items", "movies", "movie_ids", "films", "books", "book_ids", "businesses"),
            *("business_ids", "products", "product_ids", "result", "results"),
        )
    ),
}
_INTEGER = re.compile(r"^[+-]?\d{1,9}(?:\.0{1,9})?(?:\s{0,9}items?)?$", re.IGNORECASE)
_POSITION = re.compile(r"^\d{1,4}$")
_NOT_KEY = re.compile(r"[\s-]+")


def read_arguments(name: ActionName, arguments: Any, *, call_id: str = "") -> ToolCall:
    """A call from its arguments.

    Args:
        name: the tool.
        arguments: JSON text, or a decoded value.
        call_id: the id of a native call.

    Raises:
        ReplyError: a field that is missing, of the wrong kind, or that could mean several things.
    """
    repairs: list[str] = []
    value = arguments
    if isinstance(arguments, str):
        value, found = read_json(arguments) if arguments.strip() else ({}, ())
        repairs.extend(found)
    if isinstance(value, list) and name == "finish":
        value = {"items": value}
        repairs.append("bare_list")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
        repairs.append("bare_list")
    if not isinstance(value, dict):
        raise ReplyError("the arguments are not a JSON object", kind="bad_arguments")
    wanted = _FIELDS[name]
    fields = _named(_unwrapped(value, wanted, repairs), wanted, repairs)
    if name == "finish":
        entries = _entries(_items(fields, repairs), repairs)
        return ToolCall(name=name, items=entries, call_id=call_id, repairs=tuple(dict.fromkeys(repairs)))
    if "attribute" not in fields:
        raise ReplyError(f"{name} needs `attribute` and `k`", kind="bad_arguments")
    k = k_of(fields.get("k"))
    if k is None:
        repairs.append("default_k")
    attribute = attribute_of(_only(fields["attribute"], repairs))
    return ToolCall(name=name, attribute=attribute, k=k, call_id=call_id, repairs=tuple(dict.fromkeys(repairs)))


def attribute_of(value: Any) -> str | None:
    """The attribute in a form that observations and marks can carry; None for the plain backbone.

    Raises:
        ReplyError: no text.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise ReplyError("attribute must be a string", kind="bad_arguments")
    return clean_attribute(value)


def is_integer(text: str) -> bool:
    return bool(_INTEGER.match(text))


def k_of(value: Any) -> int | None:
    """K as a whole number; None where there is none.

    Raises:
        ReplyError: something else.
    """
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


def finish_entries(text: str) -> tuple[str, ...]:
    """The entries of a list as text.

    Raises:
        ReplyError: there are none.
    """
    entries = tuple(list_entries(text))
    if not entries:
        raise ReplyError("the final list is empty", kind="empty_list")
    return entries


def _unwrapped(fields: dict[str, Any], wanted: Sequence[str], repairs: list[str]) -> dict[str, Any]:
    """The fields without `{"parameters": …}` around them."""
    for _ in range(_MAX_WRAPPERS):
        if any(field in fields for field in wanted):
            break
        keys = {_key(key) for key in fields}
        if any(_OTHER_KEYS[field] & keys for field in wanted):
            break
        inner = next((value for key, value in fields.items() if _key(key) in _WRAPPERS), None)
        if isinstance(inner, str) and starts_like_json(inner):
            inner, found = read_json(inner)
            repairs.extend(found)
        if isinstance(inner, list) and "items" in wanted:
            inner = {"items": inner}
        if not isinstance(inner, dict):
            break
        repairs.append("wrapped_arguments")
        fields = inner
    return fields


def _named(fields: Mapping[str, Any], wanted: Sequence[str], repairs: list[str]) -> dict[str, Any]:
    """The fields under our names; a name of ours wins over another for it."""
    named: dict[str, Any] = {}
    for field in wanted:
        if field in fields:
            named[field] = fields[field]
            continue
        found = [key for key in fields if _key(key) in _OTHER_KEYS[field]]
        if found:
            named[field] = fields[found[0]]
            repairs.append("other_key")
    if "items" in wanted and "items" not in named:
        lists = [value for value in fields.values() if isinstance(value, list) and value]
        if len(lists) == 1:
            named["items"] = lists[0]
            repairs.append("other_key")
    return named


def _key(key: str) -> str:
    return _NOT_KEY.sub("_", key[:80].strip().casefold())


def _only(value: Any, repairs: list[str]) -> Any:
    if isinstance(value, list) and len(value) == 1:
        repairs.append("single_value")
        return value[0]
    return value


def _items(fields: Mapping[str, Any], repairs: list[str]) -> Any:
    if "items" not in fields:
        raise ReplyError("finish needs `items`", kind="bad_arguments")
    items = fields["items"]
    if isinstance(items, dict):
        positions = [key for key in items if _POSITION.match(key)]
        if not positions or len(positions) < len(items):
            raise ReplyError("`items` must be a list of item ids", kind="bad_arguments")
        repairs.append("numbered_object")
        return [items[key] for key in sorted(items, key=int)]
    return items


def _entries(items: Any, repairs: list[str]) -> tuple[str, ...]:
    """The entries of a final list; a text, also one alone in a list, is read as a list itself."""
    if isinstance(items, str) and items.lstrip()[:1] == "[":
        try:
            value, found = read_json(items)
        except ReplyError:
            value, found = items, ()
        if isinstance(value, list):
            repairs.extend(found)
            items = value
    if isinstance(items, list) and len(items) == 1 and isinstance(items[0], list):
        repairs.append("nested_list")
        items = items[0]
    if isinstance(items, list) and len(items) == 1 and isinstance(items[0], str) and any(mark in items[0] for mark in ",;\n"):
        repairs.append("one_text")
        items = items[0]
    if isinstance(items, str):
        return finish_entries(items)
    if isinstance(items, list):
        return finish_entries(json.dumps(items))
    raise ReplyError("`items` must be a list of item ids", kind="bad_arguments")
