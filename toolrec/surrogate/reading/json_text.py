"""JSON as LLMs write it: well-formed text passes at once, what is nearly JSON is repaired within bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import json_repair

from toolrec.errors import ReplyError

MAX_JSON_CHARACTERS = 100_000
MAX_REPAIR_CHARACTERS = 4_000
"""Longer texts are read as they are or not at all: repairing takes more than linear time."""
_MAX_BRACKETS = 100
_FENCE = re.compile(r"^```[\w-]{0,20}[ \t]*\n?(.*?)\n?```$", re.DOTALL)
_OPENING, _CLOSING = "{[", "}]"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# Made once: `json.loads` makes a decoder for each call that names one of these.
_STRICT = json.JSONDecoder(parse_constant=_refuse_constant)
_LENIENT = json.JSONDecoder(strict=False)


def read_json(text: str) -> tuple[Any, tuple[str, ...]]:
    """The value, and which repairs it took.

    Raises:
        ReplyError: no JSON, too long, or JSON that could mean several things.
    """
    if len(text) > MAX_JSON_CHARACTERS:
        raise ReplyError("the arguments are too long", kind="bad_arguments")
    value: Any
    repairs: tuple[str, ...] = ()
    try:
        value = _STRICT.decode(text)
    except (ValueError, RecursionError):
        value, repairs = _repaired(text.strip())
    for _ in range(2):
        if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
            break
        value, more = read_json(value)
        repairs = (*repairs, "encoded_twice", *more)
    return value, tuple(dict.fromkeys(repairs))


def starts_like_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[")


def _repaired(text: str) -> tuple[Any, tuple[str, ...]]:
    fenced = _FENCE.match(text[:MAX_REPAIR_CHARACTERS]) if text.startswith("```") else None
    if fenced:
        value, repairs = read_json(fenced.group(1).strip())
        return value, ("fence", *repairs)
    if text[:1] not in ("{", "[") or len(text) > MAX_REPAIR_CHARACTERS:
        raise _no_json()
    try:
        value, end = _LENIENT.raw_decode(text)
    except RecursionError:
        raise _no_json() from None
    except ValueError:
        return _mended(text)
    if _has_constant(value):
        raise _no_json()
    rest = text[end:].strip()
    if not rest:
        return value, ("control_character",)
    if rest[0] in _OPENING:
        other, _ = read_json(rest)
        if other != value:
            raise ReplyError("there are several JSON objects; give one", kind="bad_arguments")
        return value, ("glued_objects",)
    return value, ("text_behind",)


def _mended(text: str) -> tuple[Any, tuple[str, ...]]:
    if sum(map(text.count, _OPENING)) > _MAX_BRACKETS:
        raise _no_json()
    closed = text + _missing_brackets(text)
    if closed != text:
        try:
            return _STRICT.decode(closed), ("missing_bracket",)
        except (ValueError, RecursionError):
            pass
    if text[-1] not in _CLOSING:
        # Anything may be missing: a repair would make a whole list of a part of one.
        raise _no_json()
    try:
        value = json_repair.loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, (dict, list)):
        raise _no_json()
    return value, ("json",)


def _missing_brackets(text: str) -> str:
    """The closing brackets that a text lacks which ends after a complete value; nothing where more may be missing."""
    stack: list[str] = []
    is_text = is_escaped = False
    for character in text:
        if is_text:
            is_text = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            is_text = True
        elif character in _OPENING:
            stack.append(_CLOSING[_OPENING.index(character)])
        elif character in _CLOSING and (not stack or stack.pop() != character):
            return ""
    if is_text or text[-1] in ",:":
        return ""
    return "".join(reversed(stack))


def _has_constant(value: Any) -> bool:
    """Whether NaN or an infinity is in it, which are no JSON and compare to nothing."""
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    parts: Sequence[Any] = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_constant(part) for part in parts)


def _no_json() -> ReplyError:
    return ReplyError("the arguments are not valid JSON", kind="bad_arguments")
