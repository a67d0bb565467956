"""Names of tools with what endpoints and templates put around them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import cast

from toolrec.errors import ReplyError
from toolrec.grammar import clean
from toolrec.records import ActionName

_MAX_NAME_CHARACTERS = 200
_PREFIX = re.compile(r"^(?:(?:functions?|tools?|default_api|api|multi_tool_use|assistant|to=functions)[.:/]\s*)+", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:<\|.*|\(\s*\)|:\d{1,4}|\[ARGS\].*|\.json)$", re.IGNORECASE | re.DOTALL)
_AROUND = " \t\r\n\"'`*"


def known_name(name: str, allowed: Collection[str]) -> tuple[ActionName, tuple[str, ...]]:
    """The tool that a name stands for, and the repairs that it took; case and white space do not count as one.

    Raises:
        ReplyError: there is no such tool.
    """
    plain = name.strip().casefold()
    if plain in allowed:
        return cast("ActionName", plain), ()
    bare = bare_name(name)
    if bare in allowed:
        return cast("ActionName", bare), ("tool_name",)
    raise ReplyError(f"there is no “{clean(name, limit=40)}”; there are {listed(allowed)}", kind="unknown_action")


def bare_name(name: str) -> str:
    """The name without prefixes and suffixes, case folded."""
    text = name[:_MAX_NAME_CHARACTERS].strip(_AROUND)
    text = _SUFFIX.sub("", text).strip(_AROUND)
    text = _SUFFIX.sub("", text).strip(_AROUND)
    return _PREFIX.sub("", text).strip(_AROUND).casefold()


def listed(allowed: Collection[str]) -> str:
    return ", ".join(sorted(allowed))
