"""Ids as LLMs write them: `M198`, `[m198]`, `m198 - Title`, `item m198`, with full-width or escaped brackets around."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]+")
_BRACKETED = re.compile(r"^[^<>]{0,20}<([^<>|\n]{1,512})>\s*(.*)$", re.DOTALL)
_LABEL = re.compile(r"^(?:item|movie|film|book|business|product)?[ _]?(?:id)?\s{0,3}[:=#]?\s{0,3}(?=\S)", re.IGNORECASE)
_ID_AND_TITLE = re.compile(r"^(\S{1,80}?)\s{0,3}(?:\s[-–—|,]|[:|,])\s{1,3}(\S.*)$", re.DOTALL)
_ID_SPACE_TITLE = re.compile(r"^(\S{1,80})\s{1,3}(\S.*)$", re.DOTALL)
_TITLE_AND_ID = re.compile(
    r"^(\S.{0,300}?)\s{0,3}[\[(]\s{0,3}(?:id\s{0,3}[:=]\s{0,3})?(\S{1,80})[\])]$", re.IGNORECASE | re.DOTALL
)
_AROUND = " \t\r\n[](){}\"'`*_#.,;“”"
_NUMBER = re.compile(r"^#?(\d{1,6})\.?$")
_DIGITS_AT_END = re.compile(r"^(\D{0,40}?)0{0,12}(\d{1,6})$")
_SEPARATORS = re.compile(r"[\s,;]+")


def plain_form(entry: str) -> str:
    """The entry without invisible characters, entities and full-width forms."""
    text = _INVISIBLE.sub("", entry)
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.strip()


def ids_and_titles(entry: str) -> Iterator[tuple[str, str]]:
    """What an entry may say, the likeliest first: an id, and the title beside it or nothing."""
    text = plain_form(entry)
    bracketed = _BRACKETED.match(text)
    if bracketed:
        yield bracketed.group(1).strip(_AROUND), bracketed.group(2).strip(_AROUND)
        return
    bare = text.strip(_AROUND)
    yield bare, ""
    yield _LABEL.sub("", bare, count=1).strip(_AROUND), ""
    for pattern, is_id_first in ((_ID_AND_TITLE, True), (_TITLE_AND_ID, False), (_ID_SPACE_TITLE, True)):
        match = pattern.match(text)
        if match:
            item_id, title = match.groups() if is_id_first else match.groups()[::-1]
            yield item_id.strip(_AROUND), title.strip()


def is_telling(item_id: str) -> bool:
    """Whether an id is no word and no number, so that it means an item whatever stands beside it."""
    return any(map(str.isdigit, item_id)) and any(map(str.isalpha, item_id))


def parts_of(entry: str) -> list[str]:
    """The pieces of one text that holds several ids."""
    return [part for part in _SEPARATORS.split(plain_form(entry).strip(_AROUND)) if part][:200]


def numbers_of(entries: Sequence[str]) -> list[int] | None:
    """The entries as numbers where all of them are, and more than one."""
    matches = [_NUMBER.match(entry.strip()) for entry in entries]
    numbers = [int(match.group(1)) for match in matches if match]
    return numbers if len(numbers) == len(entries) > 1 else None


def by_digits(ids: Mapping[int, str]) -> dict[int, int]:
    """Items by the number at the end of their ids (`m0198` by 198), those left out whose number another has too."""
    found: dict[int, list[int]] = {}
    for item_index, item_id in ids.items():
        match = _DIGITS_AT_END.match(item_id)
        if match:
            found.setdefault(int(match.group(2)), []).append(item_index)
    return {number: items[0] for number, items in found.items() if len(items) == 1}
