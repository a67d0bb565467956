"""Text from outside (titles, ids, an LLM's words) made safe to show: one line, nothing that steers a terminal."""

from __future__ import annotations

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories left out: control and format characters (bidirectional overrides among them), lone surrogates, …"""


def printable(text: str, *, limit: int | None = None, keep_lines: bool = False) -> str:
    """`text` without control and format characters, white space joined, cut to `limit` characters.

    Args:
        text: anything.
        limit: longest result; a cut is shown by `…`.
        keep_lines: line feeds stay, each line is cleaned on its own.
    """
    if keep_lines:
        shown = "\n".join(_one_line(line) for line in text.replace("\r\n", "\n").split("\n"))
    else:
        shown = _one_line(text)
    if limit is not None and len(shown) > limit:
        return shown[: max(limit - 1, 0)].rstrip() + "…"
    return shown


def _one_line(text: str) -> str:
    kept = "".join(" " if unicodedata.category(c) in _UNSAFE else c for c in text)
    return " ".join(kept.split())
