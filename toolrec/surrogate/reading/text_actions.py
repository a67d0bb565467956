"""`Action 1: Retrieve[genre, 20]` and its variants: where the action stands, and what it is called with.

An action has a label, or begins a line and has nothing behind. `I could Retrieve[mood, 20] but …` has neither: it is a
mention, whatever follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolrec.surrogate.reading.arguments import is_integer
from toolrec.surrogate.reading.leaked_calls import closing_bracket

_MAX_ARGUMENT_CHARACTERS = 400
_DECORATION = r"[ \t*_`#>]{0,20}"
_AFTER_LABEL = rf"[ \t\d*_`]{{0,12}}[:：]{_DECORATION}\n?{_DECORATION}(retrieve|rank|finish)\b[*_` \t]{{0,8}}"
_ACTION = re.compile(r"\baction" + _AFTER_LABEL, re.IGNORECASE)
_OTHER_ACTION = re.compile(r"(?:行动|动作)" + _AFTER_LABEL, re.IGNORECASE)
_LINE_ACTION = re.compile(rf"^{_DECORATION}(retrieve|rank|finish)[*_` \t]{{0,8}}(?=[\[(【（［<])", re.IGNORECASE | re.MULTILINE)
_ACTION_LABEL = re.compile(r"(?:\baction|行动|动作)[ \t\d*_`]{0,12}[:：]", re.IGNORECASE)
_ACTION_INPUT = re.compile(rf"^\s{{0,20}}{_DECORATION}action[ _]input[ \t\d*_`]{{0,12}}[:：]", re.IGNORECASE)
_FIELD = re.compile(r"^\s{0,9}(?:attribute|attr|k|n|items|list)\s{0,9}[=:]\s{0,9}", re.IGNORECASE)
_END_OF_LIST = re.compile(r"[\])][ \t.*_`]{0,20}(?=\n|$)")
_LIST_LINE = re.compile(r"^[ \t]{0,20}(?:\(?\d{1,3}[.):、][ \t]*|[-*•–][ \t]+|<[^<>|\n]{1,512}>)\S?")
_OPENING = "[(【（［<"
_WIDE = str.maketrans("，、：", ",,:")


@dataclass(frozen=True, slots=True)
class TextAction:
    """An action as written: `content` stands between its brackets, `is_closed` says whether the closing one is there."""

    name: str
    content: str
    start: int
    is_closed: bool


def find_action(text: str) -> TextAction | None:
    """The first action of a text, or None."""
    match = _ACTION.search(text) or (None if text.isascii() else _OTHER_ACTION.search(text))
    if match is not None:
        return _read(match, text)
    for match in _LINE_ACTION.finditer(text):
        action = _read(match, text)
        behind = "" if not action.is_closed else _behind(text, match.end(), action)
        if not behind.strip(" \t.*_`;,!"):
            return action
    return None


def has_label(text: str) -> bool:
    return bool(_ACTION_LABEL.search(text))


def split_arguments(content: str) -> tuple[str | None, str | None, bool]:
    """`genre, 20` taken apart into attribute and K, and whether K came first; either may be missing."""
    head, comma, last = content[:_MAX_ARGUMENT_CHARACTERS].translate(_WIDE).rpartition(",")
    if not comma:
        only = _unlabelled(last)
        return (None, only, False) if is_integer(only) else (only or None, None, False)
    attribute, k = _unlabelled(head), _unlabelled(last)
    if is_integer(attribute) and k and not is_integer(k):
        return k, attribute, True
    return attribute, k, False


def _read(match: re.Match[str], text: str) -> TextAction:
    name, rest = match.group(1).casefold(), text[match.end() :]
    labelled = _ACTION_INPUT.match(rest)
    if labelled:
        content = rest[labelled.end() :].strip() if name == "finish" else rest[labelled.end() :].strip().partition("\n")[0]
        return TextAction(name, _without_brackets(content), match.start(), True)
    return _finish(name, rest, match.start()) if name == "finish" else _call(name, rest, match.start())


def _call(name: str, rest: str, start: int) -> TextAction:
    """A retrieval or ranking: what stands between its brackets, on the same line; without a closing one the line."""
    line = rest.partition("\n")[0].strip()
    if line[:1] not in _OPENING or not line:
        return TextAction(name, line, start, True)
    end = closing_bracket(line, 0)
    if end < 0 and line[0] != "<":
        end = max(line.find("]"), line.find(")"))
    return TextAction(name, line[1 : end if end >= 0 else None], start, end >= 0)


def _finish(name: str, rest: str, start: int) -> TextAction:
    """A final list: what stands between its brackets, or the lines below that are entries of a list."""
    stripped = rest.lstrip(" \t\n:：")
    if stripped[:1] not in _OPENING or stripped[:1] in ("<", ""):
        return TextAction(name, _list_block(stripped), start, False)
    end = closing_bracket(stripped, 0)
    if end < 0:
        at_line_end = _END_OF_LIST.search(stripped)
        end = at_line_end.start() if at_line_end else -1
    return TextAction(name, stripped[1 : end if end >= 0 else None], start, end >= 0)


def _list_block(text: str) -> str:
    """The entries that follow a `Finish` without brackets; nothing where a sentence does."""
    lines: list[str] = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        if not _LIST_LINE.match(line):
            break
        lines.append(line)
    return "\n".join(lines)


def _without_brackets(content: str) -> str:
    if content[:1] in ("[", "(") and content[-1:] in ("]", ")") and closing_bracket(content, 0) == len(content) - 1:
        inner = content[1:-1]
        return content if '"' in inner else inner
    return content


def _behind(text: str, start: int, action: TextAction) -> str:
    """What follows a closed action on its last line."""
    at = text.find(action.content, start) + len(action.content) + 1 if action.content else start + 2
    return text[at:].partition("\n")[0]


def _unlabelled(text: str) -> str:
    return _FIELD.sub("", text, count=1).strip().strip("\"'`*“”").strip()
