"""What tools read out of a call: the attribute as they know it, and a K within bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping

from toolrec.columns import PLAIN_BACKBONE
from toolrec.errors import ToolError
from toolrec.grammar import clean
from toolrec.records import ToolCall

MAX_ATTRIBUTE_CHARACTERS = 80

_NOT_WORD = re.compile(r"[\W_]+")
_NO_ATTRIBUTE = frozenset({"", "none", "null", "nil", "n/a", "-"})
_GRAMMAR_MARKS = str.maketrans({"[": "(", "]": ")", ",": ";", "‹": "", "›": ""})


def clean_attribute(written: str) -> str | None:
    """An attribute's name in a form that prompts, observations and marks can carry; None for the plain backbone."""
    name = clean(written[: 4 * MAX_ATTRIBUTE_CHARACTERS], limit=MAX_ATTRIBUTE_CHARACTERS).translate(_GRAMMAR_MARKS).strip()
    return None if name.casefold() in _NO_ATTRIBUTE else name


def attribute_key(name: str) -> str:
    """What of an attribute's name counts: `Release Year` and `release_year` are the same."""
    return _NOT_WORD.sub("", name.casefold())


def known_attribute(call: ToolCall, names: Mapping[str, str]) -> str:
    """The attribute of a call as the data set names it; none given is the plain backbone.

    Args:
        call: as the LLM wrote it.
        names: by `attribute_key`.

    Raises:
        ToolError: no such attribute; the message names those that there are.
    """
    written = call.attribute or PLAIN_BACKBONE
    known = names.get(attribute_key(written))
    if known is None:
        raise ToolError("no retrieval tool for this attribute", value=written, allowed=tuple(names.values()))
    return known


def checked_k(call: ToolCall, *, default_k: int, max_k: int) -> int:
    """The list length of a call.

    Raises:
        ToolError: K is not within 1 to `max_k`.
    """
    k = default_k if call.k is None else call.k
    if not 1 <= k <= max_k:
        raise ToolError("K is out of range", value=k, allowed=f"1 to {max_k}")
    return k
