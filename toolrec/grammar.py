"""The prompt grammar: how items, lists and actions are written for an LLM, and how they are read back.

Prompts (surrogate), rank prompts (tools) and the embedded endpoint share it, so that what one writes the others read.

    item line     `3. <318> Shawshank Redemption, The (1994) | genre: Drama | release_year: 1994 | score: 2.1034`
                  number and fields are optional; multi-valued fields are joined by `, `
    task          headings `History (oldest first):` with item lines below, `Attributes: none, genre, release_year`,
                  `Rounds: 7`, `List length: 10`
    observation   first line `Retrieve[genre, 20] returned 20 items:` (or `Rank[…] …`), item lines, then `Rounds left: 3`;
                  an error is `Error: …`; a repeated call adds a line `Hint: …`
    re-ask        a message that begins with `Not accepted: `
    last round    `Rounds left: 0`, and `Finish now` in the same message
    rank prompt   headings `History (oldest first):`, `Candidates:`, then `Rank by: genre` and `Return: 20`;
                  the reply is one `<id>` a line
    actions       `Retrieve[genre, 20]`, `Rank[genre, 20]`, `Finish[<id>, <id>, …]`; attribute `none` is the plain backbone
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

HISTORY_HEADING = "History (oldest first):"
CANDIDATES_HEADING = "Candidates:"
ATTRIBUTES_LABEL = "Attributes:"
ROUNDS_LABEL = "Rounds:"
ROUNDS_LEFT_LABEL = "Rounds left:"
LIST_LENGTH_LABEL = "List length:"
RANK_BY_LABEL = "Rank by:"
RETURN_LABEL = "Return:"
NOT_ACCEPTED_LABEL = "Not accepted:"
ERROR_LABEL = "Error:"
HINT_LABEL = "Hint:"
FINISH_NOW = "Finish now"

FORBIDDEN_IN_ID = "<>|[]"
"""Characters that an item id or attribute name may not have, beside white space at the ends and control characters."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")
_ITEM_LINE = re.compile(r"^\s*(?:(\d{1,6})\.\s+)?<([^<>|\n]{1,512})>\s*(.*)$")
_ITEM_ID = re.compile(r"<([^<>|\n]{1,512})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLine:
    """One item as a prompt shows it; `fields` keeps the order in which they stand."""

    item_id: str
    title: str = ""
    fields: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())
    number: int | None = None


def clean(text: str, *, limit: int = 300) -> str:
    """One line of `text` that cannot be mistaken for the grammar: no control characters, pipes or angle brackets."""
    flat = _CONTROL.sub(" ", text).strip()
    flat = flat.replace("|", "/").replace("<", "‹").replace(">", "›")
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def render_item_line(line: ItemLine) -> str:
    """Writes an item line; titles and values are cleaned, commas inside a value become semicolons."""
    head = f"{line.number}. " if line.number is not None else ""
    parts = [f"{head}<{line.item_id}> {clean(line.title)}".rstrip()]
    for name, values in line.fields:
        parts.append(f"{name}: " + ", ".join(clean(v).replace(",", ";") for v in values))
    return " | ".join(parts)


def parse_item_line(text: str) -> ItemLine | None:
    """Reads an item line back, or None where `text` is not one."""
    match = _ITEM_LINE.match(text)
    if match is None:
        return None
    number, item_id, rest = match.groups()
    title, *raw_fields = rest.split(" | ")
    fields = []
    for raw in raw_fields:
        name, colon, values = raw.partition(": ")
        if colon:
            fields.append((name, tuple(v for v in values.split(", ") if v)))
    return ItemLine(item_id=item_id, title=title.strip(), fields=tuple(fields), number=int(number) if number else None)


def item_ids_in(text: str) -> list[str]:
    """Every `<id>` of the text, in order, repeats kept."""
    return _ITEM_ID.findall(text)


def lines_after(heading: str, text: str) -> Iterable[ItemLine]:
    """The item lines that directly follow the line `heading`."""
    _, found, rest = text.partition(heading)
    if not found:
        return
    started = False
    for raw in rest.splitlines():
        line = parse_item_line(raw)
        if line is not None:
            started = True
            yield line
        elif started and raw.strip():
            return
