"""The prompt grammar: how items, lists and actions are written for an LLM, and how they are read back.

Prompts (surrogate), rank prompts (tools) and the embedded endpoint share it, so that what one writes the others read.

    item line     `3. <318> Shawshank Redemption, The (1994) | genre: Drama | release_year: 1994 | score: 2.1034`
                  number and fields are optional; multi-valued fields are joined by `, `
    task          headings `History (oldest first):` with item lines below, `Attributes: none, genre, release_year`,
                  `Rounds: 7`, `List length: 10`; `Thoughts: none` where a reply is to be an action alone
    plan          a task with a line `Calls in the plan, at most: 7`: the reply is one action a line, none of which is carried
                  out before the plan is whole
    observation   first line `Retrieve[genre, 20] returned 20 items:` (or `Rank[…] …`), item lines, then `Rounds left: 3`;
                  an error is `Error: …`; a repeated call adds a line `Hint: …`
    re-ask        a message that begins with `Not accepted: `
    last round    `Rounds left: 0`, and `Finish now` in the same message
    rank prompt   headings `History (oldest first):`, `Candidates:`, then `Rank by: genre` and `Return: 20`;
                  the reply is one `<id>` a line
    actions       `Retrieve[genre, 20]`, `Rank[genre, 20]`, `Finish[<id>, <id>, …]`; attribute `none` is the plain backbone
    lists         read back tolerantly (`list_entries`): ids, titles, both, on lines or separated, numbered, JSON
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

HISTORY_HEADING = "History (oldest first):"
CANDIDATES_HEADING = "Candidates:"
ATTRIBUTES_LABEL = "Attributes:"
ROUNDS_LABEL = "Rounds:"
ROUNDS_LEFT_LABEL = "Rounds left:"
LIST_LENGTH_LABEL = "List length:"
PLAN_LABEL = "Calls in the plan, at most:"
NO_THOUGHTS = "Thoughts: none"
RANK_BY_LABEL = "Rank by:"
RETURN_LABEL = "Return:"
NOT_ACCEPTED_LABEL = "Not accepted:"
ERROR_LABEL = "Error:"
HINT_LABEL = "Hint:"
FINISH_NOW = "Finish now"

FORBIDDEN_IN_ID = "<>|[]"
"""Characters that an item id or attribute name may not have, beside white space at the ends and control characters."""

# Bidirectional controls and tag characters show a person another text than they show an LLM.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f\\s]+"
)
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


def has_line(label: str, text: str) -> bool:
    """Whether a line of `text` begins with `label`; inside a line it may be part of a title."""
    return text.startswith(label) or f"\n{label}" in text


def encodable(text: str) -> str:
    """`text` with a `?` for every half of a surrogate pair, which JSON may carry and neither HTTP nor Parquet can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


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
    # Without a title the fields follow the id directly; the space before the first pipe is gone by then.
    title, *raw_fields = (" " + rest if rest.startswith("| ") else rest).split(" | ")
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


MAX_LIST_CHARACTERS = 100_000
"""What is read of a list at most."""
MAX_LIST_ENTRIES = 200
MAX_ENTRY_CHARACTERS = 300

_NUMBERED = re.compile(r"^[ \t]{0,20}(?:\(?\d{1,3}[.):][ \t]+|[-*•–][ \t]+)")
_ID_OR_SEPARATOR = re.compile(r"<([^<>|\n]{1,512})>|[,;]")
_QUOTED_OR_SEPARATOR = re.compile(r"\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|[,]")
_AROUND_ENTRY = " \t\r*`_\"'“”.,;"


def list_entries(text: str) -> list[str]:
    """The entries of a list that an LLM wrote, each an id or a title as written, `<id> title` where it gave both.

    Reads JSON, `<id>` forms with or without titles, one entry a line (numbered or not), and entries separated by
    semicolons or commas. Where some lines are numbered or carry an `<id>`, the others are taken for prose. A title
    with a comma in it comes apart where nothing else separates entries; `Memory` puts it together again.
    """
    text = text[:MAX_LIST_CHARACTERS]
    entries = _json_entries(text)
    if entries is not None:  # JSON says where an entry ends: its marks are its own
        exact = (encodable(entry.strip()[:MAX_ENTRY_CHARACTERS]) for entry in entries)
        return [entry for entry in exact if entry][:MAX_LIST_ENTRIES]
    lines = [line for line in text.splitlines() if line.strip()]
    if _ITEM_ID.search(text):
        entries = _entries_with_ids(lines)
    elif len(lines) > 1:
        numbered = [line for line in lines if _NUMBERED.match(line)]
        entries = [_NUMBERED.sub("", line) for line in numbered or lines]
    elif ";" in text:
        entries = text.split(";")
    else:
        entries = _split_commas(text)
    shortened = (_entry(entry) for entry in entries[: 2 * MAX_LIST_ENTRIES])
    return [entry for entry in shortened if entry][:MAX_LIST_ENTRIES]


def without_marks(text: str) -> str:
    """An entry as it reads where it stands neither in `<…>` nor in JSON: quotation marks, stops and emphasis are not its own."""
    return text.strip().strip(_AROUND_ENTRY)


def _entry(text: str) -> str:
    # A closing mark that belongs to an abbreviation at the end of a title is no loss: titles are compared without marks.
    return encodable(without_marks(text)[:MAX_ENTRY_CHARACTERS].strip())


def _json_entries(text: str) -> list[str] | None:
    stripped = text.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    data: Any = None
    for attempt in (stripped, f"[{stripped}]"):
        if data is None and attempt[:1] == "[":
            try:
                data = json.loads(attempt)
            except (ValueError, RecursionError):
                data = None
    if not isinstance(data, list):
        return None
    return [entry for entry in map(_json_entry, data[: 2 * MAX_LIST_ENTRIES]) if entry]


def _json_entry(value: Any) -> str:
    if isinstance(value, dict):
        item_id = next((value[key] for key in ("item_id", "id") if key in value), None)
        if item_id is None:
            item_id = next((entry for key, entry in value.items() if key.casefold().endswith("_id") or key == "item"), None)
        if isinstance(item_id, str):
            item_id = item_id.strip("<> ")
        title = value.get("title", value.get("name", ""))
        title = title if isinstance(title, str) else ""
        return f"<{_scalar(item_id)}> {title}" if _scalar(item_id) else title
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _entries_with_ids(lines: list[str]) -> list[str]:
    entries: list[str] = []
    for line in lines:
        has_id = _ITEM_ID.search(line) is not None
        if has_id:
            entries.extend(_ids_of_line(_NUMBERED.sub("", line)))
        elif _NUMBERED.match(line):
            entries.append(_NUMBERED.sub("", line))
        if len(entries) > 2 * MAX_LIST_ENTRIES:
            break
    return entries


def _ids_of_line(line: str) -> list[str]:
    """Entries of one line: a piece without an id goes on with the title of the piece before, or is an entry itself."""
    entries: list[str] = []
    is_title_open = False
    for ids, title in _pieces(line):
        if ids:
            entries.extend(f"<{item_id}>" for item_id in ids)
            is_title_open = len(ids) == 1 and bool(title)
            if is_title_open:
                entries[-1] += f" {title}"
        elif title and is_title_open:
            entries[-1] += f", {title}"
        elif title:
            entries.append(title)
    return [entry.partition(" | ")[0] for entry in entries]


def _pieces(line: str) -> Iterable[tuple[list[str], str]]:
    """What stands between commas and semicolons: the ids and the other text."""
    ids: list[str] = []
    words: list[str] = []
    end = 0
    for match in _ID_OR_SEPARATOR.finditer(line):
        words.append(line[end : match.start()])
        end = match.end()
        if match.group(1) is not None:
            ids.append(match.group(1))
        else:
            yield ids, " ".join(words).strip(" \t*`\"'“”")
            ids, words = [], []
    words.append(line[end:])
    yield ids, " ".join(words).strip(" \t*`\"'“”")


def _split_commas(text: str) -> list[str]:
    """Pieces between commas that do not stand in quotation marks."""
    pieces: list[str] = []
    start = 0
    for match in _QUOTED_OR_SEPARATOR.finditer(text):
        if match.group() == ",":
            pieces.append(text[start : match.start()])
            start = match.end()
    pieces.append(text[start:])
    return pieces
