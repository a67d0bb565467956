"""A reply without a call that is clearly a final list; everything else is asked again.

Clearly means: the whole list and nothing beside it, or a line such as `My final list:` with the whole list below and no
further items. The surrogate also wants every entry to be a candidate. Thoughts name items too: two titles, the top three, a
plan with numbers or the history end no user.
"""

from __future__ import annotations

import re

from toolrec.grammar import item_ids_in, list_entries

_LABEL = re.compile(
    r"^[ \t*_#`>]{0,20}(?:(?:so,? )?here (?:is|are) )?(?:my |the )?"
    r"(?:final (?:list|answer|recommendations?|picks|choices|ranking)|(?<=my )(?:list|recommendations?|picks)|最终列表)"
    r"(?: of (?:\d{1,3} )?\w{1,20})?[ \t*_`]{0,9}[:：][ \t*_`]{0,9}",
    re.IGNORECASE | re.MULTILINE,
)
_ENTRY_LINE = re.compile(r"^[ \t]{0,20}(?:\(?\d{1,3}[.):、][ \t]{0,9}|[-*•–][ \t]{1,9}|(?=<))\S")
_ONLY_IDS = re.compile(r"^(?:\s{0,9}<[^<>|\n]{1,512}>\s{0,9}[,;，、]?)+\.?$")


def plain_list(text: str, *, list_length: int) -> tuple[str, ...] | None:
    """The entries of a reply that is a final list without a call, or None where it is not clearly one."""
    stripped = text.strip()
    if not stripped:
        return None
    labels = list(_LABEL.finditer(stripped))
    if len(labels) > 1:
        return None
    if labels:
        block, rest = _block(stripped[labels[0].end() :])
        entries = tuple(list_entries(block)) if block and not item_ids_in(rest) else ()
        return entries if len(entries) >= list_length else None
    body = _unfenced(stripped)
    block, rest = _block(body)
    if rest.strip():
        return None
    entries = tuple(list_entries(block))
    return entries if len(entries) == list_length else None


def _block(text: str) -> tuple[str, str]:
    """The list at the beginning of a text, and what follows it."""
    stripped = text.strip("\n")
    if stripped.lstrip()[:1] == "[" and stripped.rstrip()[-1:] == "]":
        return stripped, ""
    first, _, others = stripped.partition("\n")
    if _ONLY_IDS.match(first) and len(item_ids_in(first)) > 1:
        return first, others
    lines = stripped.split("\n")
    end = 0
    for number, line in enumerate(lines, start=1):
        if _ENTRY_LINE.match(line):
            end = number
        elif line.strip():
            break
    return "\n".join(lines[:end]), "\n".join(lines[end:])


def _unfenced(text: str) -> str:
    if text.startswith("```") and text.endswith("```"):
        return text.strip("`").partition("\n")[2].strip() or text.strip("`").strip()
    return text
