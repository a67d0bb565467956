"""Titles: which column they are, and what tells items of one title apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from toolrec.data.pool import MAX_SHOWN_TEXT, format_number
from toolrec.data.raw import RawAttribute
from toolrec.data.reading.findings import Findings, examples, visible
from toolrec.data.reading.formats import normal_name
from toolrec.errors import ConfigError

TITLE_COLUMNS = (
    "title", "movie_title", "item_title", "product_title", "book_title", "name", "item_name", "product_name", "business_name",
)  # fmt: skip
"""Columns that are taken for the title, the first one that is there."""
_ENDINGS = ("_title", "_name")
_NOT_TITLES = (
    "author",
    "brand",
    "maker",
    "category",
    "genre",
    "store",
    "publisher",
    "user",
    "city",
    "seller",
    "director",
    "file",
    "type",
)
DISTINGUISHING = (
    "city",
    "place",
    "author",
    "artist",
    "director",
    "brand",
    "maker",
    "release_year",
    "year",
    "state",
    "address",
    "publisher",
)
"""Attributes that may tell items of one title apart, the first that does: what people name beside a title."""


def find_title_column(columns: dict[str, list[object]], findings: Findings, *, given: str | None, where: str) -> str | None:
    """The column with titles.

    Args:
        columns: name -> first cells.
        findings: takes the guess.
        given: what the person says.
        where: the file, for messages.

    Raises:
        ConfigError: there is no such column.
    """
    if given is not None:
        exact = given if given in columns else next((name for name in columns if normal_name(name) == normal_name(given)), None)
        if exact is None:
            raise ConfigError(f"{where} has no such title column", value=given, allowed=list(columns))
        findings.found("titles", f"column {exact}", "given")
        return exact
    names = {normal_name(name): name for name in reversed(columns)}
    for known in TITLE_COLUMNS:
        if known in names:
            findings.found("titles", f"column {names[known]}", "by its name", change="--title-column")
            return names[known]
    likely = [
        name
        for form, name in names.items()
        if form.endswith(_ENDINGS) and not any(word in form for word in _NOT_TITLES) and _is_telling(columns[name])
    ]
    if len(likely) == 1:
        findings.note(
            "titles", f"column {likely[0]}", "no column is called title; its name ends like one", change="--title-column"
        )
        return likely[0]
    possible = likely or [name for name, cells in columns.items() if _is_telling(cells)]
    could = f"these columns could be it: {', '.join(map(visible, possible[:8]))}" if possible else "no column looks like one"
    findings.warn(
        "titles",
        "no title column: ids stand in place of titles, and an LLM knows nothing of them",
        could,
        change="--title-column",
    )
    return None


def _is_telling(cells: Sequence[object]) -> bool:
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    has_letters = sum(any(character.isalpha() for character in text) for text in texts)
    return bool(texts) and has_letters >= 0.8 * len(texts) and len(set(texts)) >= 0.5 * len(texts)


def distinguished(titles: list[str], attributes: Sequence[RawAttribute], findings: Findings) -> list[str]:
    """Titles that several items have, with what tells these apart in parentheses: `Starbucks (Tampa)`.

    A title stays as it is where no attribute tells its items apart.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, title in enumerate(titles):
        if title:
            groups[" ".join(title.casefold().split())].append(row)
    shared = [rows for rows in groups.values() if len(rows) > 1]
    if not shared:
        return titles
    order = sorted(
        (attribute for attribute in attributes if _place(attribute.name) is not None), key=lambda one: _place(one.name) or 0
    )
    result = list(titles)
    taken = {title.casefold() for title in titles}
    num_told = 0
    for rows in shared:
        marks = _marks(rows, order)
        for row, mark in zip(rows, marks, strict=True):
            new = f"{titles[row]} ({mark})" if mark else titles[row]
            if mark and new.casefold() not in taken:
                result[row] = new
        finals = {result[row].casefold() for row in rows}
        taken |= finals
        num_told += len(rows) if len(finals) == len(rows) else 0
    total = sum(len(rows) for rows in shared)
    largest = max(shared, key=len)
    told = max((rows for rows in shared if len({result[row] for row in rows}) == len(rows)), key=len, default=None)
    example = f", as {examples([result[row] for row in told], limit=2)}" if told else ""
    what = f"{total:,} items share a title with another, the most: {visible(titles[largest[0]])} {len(largest):,}×"
    findings.note("titles", what, f"{num_told:,} are told apart by an attribute{example}", change="--plain-titles")
    if num_told < total:
        findings.warn(
            "titles", f"{total - num_told:,} items cannot be told apart by their titles", "an LLM can name them by id only"
        )
    return result


def _place(name: str) -> int | None:
    form = normal_name(name)
    return next((place for place, word in enumerate(DISTINGUISHING) if form == word or form.endswith("_" + word)), None)


def _marks(rows: list[int], attributes: Sequence[RawAttribute]) -> list[str]:
    """What tells these rows apart: values of as few attributes as do."""
    marks: list[list[str]] = [[] for _ in rows]
    best = 1
    for attribute in attributes:
        values = [_shown(attribute.values[row]) for row in rows]
        together = [(*mark, value) for mark, value in zip(marks, values, strict=True)]
        if len(set(together)) > best:
            best = len(set(together))
            marks = [[*mark, value] if value else mark for mark, value in zip(marks, values, strict=True)]
        if best == len(rows):
            break
    return [", ".join(mark) for mark in marks]


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format_number(value)
    text = ", ".join(map(str, value[:2])) if isinstance(value, tuple) else str(value)
    return " ".join(text.split())[:MAX_SHOWN_TEXT]
