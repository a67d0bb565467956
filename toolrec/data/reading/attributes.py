"""Attributes out of columns: missing values, quotes, entities, kinds and separators; every guess says its reason.

A column of cells becomes a `RawAttribute`, or is left out with a sentence that says why and which flag keeps it.
"""

from __future__ import annotations

import ast
import html
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from toolrec.data.pool import ATTRIBUTE_KINDS, AttributeKind, is_attribute_name
from toolrec.data.raw import RawAttribute
from toolrec.data.reading.findings import Findings, examples, visible
from toolrec.data.reading.identity import MISSING_WORDS
from toolrec.errors import ConfigError, DataError

PLACE = "place"
"""A kind for names of places: a category whose spellings are put together (`philadelphia`, `Philadelphia `)."""
KINDS_GIVEN = (*ATTRIBUTE_KINDS, PLACE)
DEFAULT_MAX_VALUES = 20_000

_NUMBER_SHARE = 0.95
"""A column with at least this share of numbers is one of numbers; the others count as missing."""
_SEPARATOR_SHARE = 0.02
"""A separator stands in at least this share of the values."""
_SEPARATORS = ("|", ";", ", ", ",")
_MIN_COVERAGE = 0.05
_SHOWN_LONG_WORDS = 8
_CODE_NAME = re.compile(r"(^|_)(ids?|codes?|zip|zipcode|postal_code|postcode|phone|isbn|asin|sku|uuid|index)$")
_PLACE_NAME = re.compile(r"(^|_)(city|town|state|country|region|place|location|neighbou?rhood|province|county)$")
_ADDRESS_NAME = re.compile(r"(^|_)(address|street)$")
_LINK = re.compile(r"^(https?://|www\.)")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_LIST = re.compile(r"^\s*\[.*\]\s*$", re.DOTALL)
_QUOTED_LIST = re.compile(r"^\s*'[^']*'(?:\s*,\s*'[^']*')*\s*$")
_FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "was",
        "with",
        "you",
        "your",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeOptions:
    """What the person says of attributes; what is not said is found out.

    Attributes:
        kinds: kind by attribute; these are kept whatever is found.
        separators: list separator by attribute.
        separator: list separator of all others.
        missing: words that stand for a missing value, case folded.
        max_values: categories kept of an attribute, the most common first.
        chosen: attributes that the person named; they are kept whatever is found. None: none was named.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    separators: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    missing: Sequence[str] = MISSING_WORDS
    max_values: int = DEFAULT_MAX_VALUES
    chosen: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, kind in self.kinds.items():
            if kind not in KINDS_GIVEN:
                raise ConfigError(f"unknown kind for the attribute {name}", value=kind, allowed=KINDS_GIVEN)
        if self.separator == "" or "" in self.separators.values():
            raise ConfigError("the sequence separator must not be empty")
        if self.max_values < 2:
            raise ConfigError("max_values must be at least 2", value=self.max_values)

    def is_named(self, name: str) -> bool:
        """Whether the person asked for this attribute."""
        return name in self.kinds or (self.chosen is not None and name in self.chosen)


@dataclass(slots=True, kw_only=True)
class Column:
    """Cells of one column along the items: texts, numbers, lists of texts, or None.

    `declared` is RecBole's type of the column, where the file has one; `place` says where a row stands.
    """

    name: str
    cells: list[Any]
    declared: str | None = None
    place: Any = None

    def where(self, row: int) -> str:
        """The row's place in its file."""
        return self.place(row) if self.place else f"row {row + 1}"


def clean_texts(texts: list[str | None]) -> tuple[list[str | None], int, int]:
    """Texts without CSV's quotation marks and HTML's entities, and how many had each."""
    num_quoted = num_entities = 0
    cleaned: list[str | None] = []
    for text in texts:
        if text is None:
            cleaned.append(None)
            continue
        if len(text) > 1 and text[0] == '"' == text[-1]:
            inner = text[1:-1]
            if '"' not in inner.replace('""', ""):
                text, num_quoted = inner.replace('""', '"'), num_quoted + 1
        if "&" in text and _ENTITY.search(text):
            plain = html.unescape(html.unescape(text))
            if plain != text:
                text, num_entities = plain, num_entities + 1
        cleaned.append(text)
    return cleaned, num_quoted, num_entities


def to_attributes(
    columns: Sequence[Column], options: AttributeOptions, findings: Findings
) -> tuple[list[RawAttribute], list[RawAttribute]]:
    """Makes attributes of columns.

    Returns:
        The attributes; and those that are left out unless they are named.

    Raises:
        DataError: a cell does not fit the kind that was given or declared.
    """
    made, aside = [], []
    for column in columns:
        if not is_attribute_name(column.name):
            findings.note(
                f"column {visible(column.name)}", "left out: prompts cannot carry its name", change="--rename in the TOML file"
            )
            continue
        attribute, reason = _attribute(column, options, findings)
        if attribute is None:
            findings.note(f"column {column.name}", f"left out: {reason}")
        elif attribute.is_empty():
            findings.note(f"column {column.name}", f"left out: {reason}")
            aside.append(attribute)
        elif reason and not options.is_named(column.name):
            findings.note(f"column {column.name}", f"left out: {reason}", change=f"--attributes …,{column.name}:KIND")
            aside.append(attribute)
        else:
            if reason:
                findings.warn(f"attribute {column.name}", "kept because it was named", reason)
            made.append(attribute)
    kept = _without_doubles(made, options, findings)
    return kept, [*aside, *(attribute for attribute in made if all(attribute is not other for other in kept))]


def _attribute(column: Column, options: AttributeOptions, findings: Findings) -> tuple[RawAttribute | None, str]:
    """The attribute of one column, and why it should be left out ("" where it should not)."""
    name, subject = column.name, f"attribute {column.name}"
    if column.declared == "float_seq":
        return None, "float_seq cannot be an attribute"
    cells = _without_missing(column.cells, options, findings, subject)
    num_given = sum(cell is not None for cell in cells)
    if not num_given:
        return RawAttribute(name=name, kind="category", values=[None] * len(cells)), "no item has a value"
    kind, separator, why = _kind(name, cells, column.declared, options)
    if kind is None:
        return RawAttribute(name=name, kind="text", values=_as_category(cells)), why
    values = _values(column, cells, kind, separator, options, findings)
    stored: AttributeKind = "category" if kind == PLACE else kind  # type: ignore[assignment]
    attribute = RawAttribute(name=name, kind=stored, values=values, description=name.replace("_", " "))
    reason = _why_not(attribute, num_items=len(cells), is_given=name in options.kinds, declared=column.declared)
    if not reason:
        attribute = _capped(attribute, options, findings)
        findings.found(subject, _described(attribute, kind, separator), why, change=f"--attributes {name}:KIND")
    return attribute, reason


def _without_missing(cells: list[Any], options: AttributeOptions, findings: Findings, subject: str) -> list[Any]:
    """Cells with None where a word stands for nothing; texts without quotes and entities."""
    forms: Counter[str] = Counter()
    kept: list[Any] = []
    words = frozenset(options.missing)
    for cell in cells:
        if isinstance(cell, str):
            bare = cell.strip()
            if bare.casefold() in words:
                forms[bare] += 1
                cell = None
            else:
                cell = bare
        elif isinstance(cell, float) and math.isnan(cell):
            cell = None
        elif isinstance(cell, (list, tuple)):
            cell = [str(part).strip() for part in cell if part is not None and str(part).strip().casefold() not in words] or None
        kept.append(cell)
    forms.pop("", None)
    if forms:
        shown = ", ".join(f"{visible(form)} {count:,}×" for form, count in forms.most_common(5))
        findings.note(subject, f"{sum(forms.values()):,} values count as missing", shown, change="--missing")
    if any(isinstance(cell, str) for cell in kept):
        texts, num_quoted, num_entities = clean_texts([cell if isinstance(cell, str) else None for cell in kept])
        kept = [text if isinstance(cell, str) else cell for cell, text in zip(kept, texts, strict=True)]
        _report_cleaned(findings, subject, num_quoted, num_entities)
    return kept


def _report_cleaned(findings: Findings, subject: str, num_quoted: int, num_entities: int) -> None:
    if num_quoted:
        findings.note(subject, f"quotation marks around {num_quoted:,} values undone", "as pandas writes and reads them")
    if num_entities:
        findings.note(subject, f"HTML entities in {num_entities:,} values undone", "as &amp;")


def _kind(name: str, cells: list[Any], declared: str | None, options: AttributeOptions) -> tuple[str | None, str | None, str]:
    """Kind, list separator and reason; a kind of None for a column that should be left out for that reason."""
    given = [cell for cell in cells if cell is not None]
    separator = options.separators.get(name) or options.separator
    if name in options.kinds:
        kind = options.kinds[name]
        if kind == "categories" and separator is None:
            separator, _ = _list_separator(given, declared)
            separator = separator or (" " if declared in ("token_seq", None) else "|")
        return kind, separator, "given"
    if _ADDRESS_NAME.search(name.casefold()):
        return None, None, f"an address: it tells items of one title apart; {name}:category keeps it as an attribute"
    if any(isinstance(cell, list) for cell in given):
        return "categories", None, "the file has lists"
    if all(isinstance(cell, bool) for cell in given):
        return "category", None, "true or false"
    if all(isinstance(cell, (int, float)) for cell in given):
        return (
            ("category", None, "its name says that it is a code")
            if _CODE_NAME.search(name.casefold())
            else ("number", None, "numbers")
        )
    texts = [str(cell) for cell in given]
    if declared == "float":
        return "number", None, "declared as float"
    if separator is not None and any(separator in text for text in texts):
        return "categories", separator, "separator given"
    if sum(bool(_LIST.match(text)) for text in texts) >= 0.5 * len(texts):
        return "categories", "[]", "values are written as lists"
    if sum(bool(_QUOTED_LIST.match(text)) for text in texts) >= 0.5 * len(texts):
        return "categories", "''", "values are written as quoted lists"
    if declared != "token_seq":
        number = _number_kind(name, texts)
        if number is not None:
            return number
    if _PLACE_NAME.search(name.casefold()) and declared is None:
        return PLACE, None, "its name says that it is a place"
    found, why = _list_separator(given, declared)
    if found is not None and (declared is not None or _parts_recur(texts, found)):
        return "categories", found, why
    if declared == "token_seq":
        return _blank_separated(name, texts)
    if _is_prose(texts):
        return None, None, f"it looks like free text; {name}:text keeps it as a text attribute"
    if texts and sum(bool(_LINK.match(text)) for text in texts) >= 0.5 * len(texts):
        return None, None, "it holds links"
    return "category", None, "declared as token" if declared else "words"


def _number_kind(name: str, texts: list[str]) -> tuple[str | None, str | None, str] | None:
    numbers = [text for text in texts if _number(text) is not None]
    if len(numbers) < _NUMBER_SHARE * len(texts):
        return None
    if _CODE_NAME.search(name.casefold()):
        return "category", None, "numbers, but its name says that they are codes"
    padded = [text for text in numbers if len(text) > 1 and text[0] == "0" and text.isdigit()]
    if padded:
        return "category", None, f"numbers with leading zeros as {padded[0]} are codes"
    odd = len(texts) - len(numbers)
    return "number", None, f"{len(numbers):,} of {len(texts):,} values are numbers" if odd else "every value is a number"


def _list_separator(given: list[Any], declared: str | None) -> tuple[str | None, str]:
    texts = [cell for cell in given if isinstance(cell, str)]
    candidates = ("|",) if declared is not None else _SEPARATORS
    for separator in candidates:
        num_with = sum(separator in text for text in texts)
        if num_with and num_with >= _SEPARATOR_SHARE * len(texts):
            return separator, f"{visible(separator)} stands in {num_with:,} of {len(texts):,} values"
    return None, ""


def _parts_recur(texts: list[str], separator: str) -> bool:
    """Whether splitting gives values that come again, as those of a list do and clauses of a sentence do not."""
    parts = Counter(part.strip() for text in texts for part in text.split(separator) if part.strip())
    total = sum(parts.values())
    if not total or max(len(part) for part in parts) > 200:
        return False
    words = sum(len(part.split()) * count for part, count in parts.items()) / total
    if separator == "|":
        return words <= _SHOWN_LONG_WORDS
    return words <= 4 and len(parts) <= 0.7 * total and len(parts) < len(set(texts)) + len(texts) / 2


def _blank_separated(name: str, texts: list[str]) -> tuple[str | None, str | None, str]:
    """A RecBole token_seq: its values stand between blanks, unless it is text or phrases."""
    if _is_prose(texts):
        return None, None, f"declared as token_seq, but it looks like free text; {name}:text keeps it as a text attribute"
    phrases = [text for text in texts if {"&", "and"} & set(text.split())]
    if len(phrases) >= max(2, _SEPARATOR_SHARE * len(texts)):
        return (
            None, None, f"splitting at blanks would cut {visible(phrases[0])} into words; {name}:categories does so",
        )  # fmt: skip
    return "categories", " ", "declared as token_seq, whose values stand between blanks"


def _is_prose(texts: list[str]) -> bool:
    if not texts:
        return False
    split = [text.split() for text in texts[:2000]]
    long = [words for words in split if len(words) >= _SHOWN_LONG_WORDS]
    if len(long) < 0.3 * len(split):
        return False
    return sum(any(word.casefold() in _FUNCTION_WORDS for word in words) for words in long) >= 0.5 * len(long)


def _values(
    column: Column, cells: list[Any], kind: str, separator: str | None, options: AttributeOptions, findings: Findings
) -> list[Any]:
    if kind == "number":
        return _numbers(column, cells, findings, is_strict=column.declared == "float" or column.name in options.kinds)
    if kind == "categories":
        return [None if cell is None else _parts(cell, separator, options) for cell in cells]
    texts = _as_category(cells)
    return _one_spelling(texts, findings, column.name) if kind == PLACE else texts


def _numbers(column: Column, cells: list[Any], findings: Findings, *, is_strict: bool) -> list[float | None]:
    odd: list[str] = []
    numbers: list[float | None] = []
    for row, cell in enumerate(cells):
        number = None if cell is None else _number(cell)
        if cell is not None and number is None:
            if is_strict:
                raise DataError(f"{column.where(row)}: {column.name} is not a number", value=str(cell))
            odd.append(str(cell))
        numbers.append(number)
    if odd:
        findings.warn(f"attribute {column.name}", f"{len(odd):,} values are no numbers and count as missing", examples(odd),
                      change=f"--attributes {column.name}:category")  # fmt: skip
    return numbers


def _number(cell: Any) -> float | None:
    if isinstance(cell, str):
        text = cell.strip().removeprefix("$").replace(",", "") if "$" in cell else cell
        try:
            number = float(text)
        except ValueError:
            return None
    else:
        number = float(cell)
    return number if math.isfinite(number) else None


def _parts(cell: Any, separator: str | None, options: AttributeOptions) -> tuple[str, ...] | None:
    if isinstance(cell, list):
        parts = cell
    elif separator in ("[]", "''"):
        parts = _written_list(str(cell), is_bare=separator == "''")
    else:
        parts = str(cell).split(separator)
    words = frozenset(options.missing)
    kept = [html.unescape(str(part)).strip() for part in parts]
    return tuple(dict.fromkeys(part for part in kept if part and part.casefold() not in words)) or None


def _written_list(text: str, *, is_bare: bool) -> list[str]:
    """The entries of a list as Python or JSON writes it; the text as one entry where it is none."""
    source = f"[{text}]" if is_bare else text
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(source)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, (list, tuple)):
            return [str(part) for part in _flat(value) if part is not None]
    return [text]


def _flat(values: Any) -> list[Any]:
    return [part for value in values for part in (_flat(value) if isinstance(value, (list, tuple)) else [value])]


def _as_category(cells: list[Any]) -> list[str | None]:
    return [None if cell is None else ", ".join(cell) if isinstance(cell, list) else _as_text(cell) for cell in cells]


def _as_text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _one_spelling(texts: list[str | None], findings: Findings, name: str) -> list[str | None]:
    """The most common of the spellings that differ in case, blanks and full stops only."""
    spellings: dict[str, Counter[str]] = {}
    for text in texts:
        if text is not None:
            spellings.setdefault(_spelled(text), Counter())[text] += 1
    chosen = {form: counts.most_common(1)[0][0] for form, counts in spellings.items()}
    merged = [text for counts in spellings.values() for text, _ in counts.most_common()[1:]]
    if merged:
        findings.note(
            f"attribute {name}", f"{len(merged):,} spellings of places put together with a more common one", examples(merged)
        )
    return [None if text is None else chosen[_spelled(text)] for text in texts]


def _spelled(text: str) -> str:
    return " ".join(text.casefold().replace(".", " ").split())


def _why_not(attribute: RawAttribute, *, num_items: int, is_given: bool, declared: str | None) -> str:
    """Why an attribute is of no use, or ""."""
    given = [value for value in attribute.values if value is not None]
    distinct = set(given)
    coverage = len(given) / max(num_items, 1)
    if attribute.kind == "category" and not is_given and len(given) > 1 and len(distinct) == len(given):
        if coverage < 0.5:
            return f"{len(given):,} of {num_items:,} items have a value ({coverage:.0%}), each another one"
        return "every item has a value of its own"
    if not is_given and len(distinct) == 1 and len(given) > 1:
        return f"it has one value only, {visible(str(next(iter(distinct))))}: a tool for it could tell nothing apart"
    if not is_given and coverage < _MIN_COVERAGE and num_items >= 20:
        return f"{len(given):,} of {num_items:,} items have a value ({coverage:.1%})"
    return ""


def _capped(attribute: RawAttribute, options: AttributeOptions, findings: Findings) -> RawAttribute:
    """Only the most common values, and what fell out."""
    if attribute.kind not in ("category", "categories"):
        return attribute
    rows = [(value,) if isinstance(value, str) else (value or ()) for value in attribute.values]
    counts = Counter(part for row in rows for part in row)
    if len(counts) <= options.max_values:
        return attribute
    kept = {part for part, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[: options.max_values]}
    shortened = [tuple(part for part in row if part in kept) for row in rows]
    lost = sum(counts.values()) - sum(len(row) for row in shortened)
    emptied = sum(bool(row) and not short for row, short in zip(rows, shortened, strict=True))
    findings.note(
        f"attribute {attribute.name}",
        f"{len(counts) - len(kept):,} of {len(counts):,} values left out, the rarest",
        f"they stood {lost:,} times; {emptied:,} items have none left",
        change="--max-values",
    )
    values: list[Any] = (
        [row or None for row in shortened] if attribute.kind == "categories" else [row[0] if row else None for row in shortened]
    )
    return replace(attribute, values=values)


def _described(attribute: RawAttribute, kind: str, separator: str | None) -> str:
    given = [value for value in attribute.values if value is not None]
    coverage = f"{len(given) / max(len(attribute.values), 1):.0%} of items"
    if attribute.kind == "number":
        return f"number, {min(given):g} to {max(given):g}, {coverage}"
    if attribute.kind == "categories":
        parts = {part for value in given for part in value}
        between = f", split at {visible(separator)}" if separator and separator not in ("[]", "''") else ""
        return f"categories, {len(parts):,} values, {coverage}{between}"
    return f"{kind}, {len(set(given)):,} values, {coverage}"


def _without_doubles(attributes: list[RawAttribute], options: AttributeOptions, findings: Findings) -> list[RawAttribute]:
    """Leaves out what says the same as another attribute: each would become a tool of its own."""
    kept: list[RawAttribute] = []
    for attribute in attributes:
        twin = next((other for other in kept if _same_partition(other, attribute)), None)
        if twin is None or options.is_named(attribute.name):
            kept.append(attribute)
            if twin is not None:
                findings.warn(
                    f"attribute {attribute.name}", "kept because it was named", f"it tells items apart as {twin.name} does"
                )
        else:
            findings.note(f"column {attribute.name}", f"left out: it tells items apart as {twin.name} does",
                          change=f"--attributes …,{attribute.name}:{attribute.kind}")  # fmt: skip
    return kept


def _same_partition(one: RawAttribute, other: RawAttribute) -> bool:
    pairs = [(a, b) for a, b in zip(one.values, other.values, strict=True) if a is not None or b is not None]
    if not pairs or any((a is None) != (b is None) for a, b in pairs):
        return False
    lefts, rights = len({a for a, _ in pairs}), len({b for _, b in pairs})
    return lefts == rights == len(set(pairs)) and 1 < lefts < len(pairs)


def without_cut_twins(columns: list[Column], findings: Findings, options: AttributeOptions) -> list[Column]:
    """Leaves out columns whose cells are another column's lists with blanks between the values."""
    lists = {
        column.name: [cell.replace("|", " ") if isinstance(cell, str) else None for cell in column.cells]
        for column in columns
        if any(isinstance(cell, str) and "|" in cell for cell in column.cells)
    }
    kept = []
    for column in columns:
        twin = next((name for name, flat in lists.items() if name != column.name and flat == column.cells), None)
        if twin is None or options.is_named(column.name):
            kept.append(column)
        else:
            findings.note(f"column {column.name}", f"left out: it is {twin} with blanks between the values",
                          "splitting at blanks would cut names into words")  # fmt: skip
    return kept
