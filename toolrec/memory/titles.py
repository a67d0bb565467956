"""Titles as people and LLMs write them: normal forms, and the index that finds a pool's items by them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

NEAR_SCORE = 88.0
"""A near title needs this similarity, 0 to 100: one wrong letter in nine, two in seventeen."""
NEAR_SCORE_SAME_YEAR = 80.0
"""Or this one where the year is the same: one wrong letter, or two swapped, in five."""
NEAR_MARGIN = 4.0
"""And must be this much better than the next item."""
MIN_NEAR_CHARACTERS = 4
LETTERS_A_SLIP = 6
"""A word of a near title has one slip, or one for each so many letters; a word of three can only have its letters swapped."""
MAX_TITLE_CHARACTERS = 300

_ARTICLES = "the|a|an|le|la|les|l'|un|une|des|il|lo|gli|i|una|uno|el|los|las|der|die|das|ein|eine|den|det|de|het|een|o|os|as"
_YEAR_AT_END = re.compile(r"\s{0,9}[(\[]\s{0,9}((?:1[89]|20)\d\d)\s{0,9}[)\]]\s{0,9}$")
_ARTICLE_AT_END = re.compile(rf"^(.+),\s{{0,9}}({_ARTICLES})$", re.IGNORECASE)
_ARTICLE_AT_START = re.compile(rf"^(?:{_ARTICLES})\s+(?=\S)", re.IGNORECASE)
_IN_PARENTHESES = re.compile(r"\(([^()]{1,300})\)")
_NOT_WORD = re.compile(r"[\W_]+")
_DIACRITICS = re.compile("[\u0300-\u036f]")
_SMALL_WORDS = frozenset(["the", "a", "an", "of", "and", "in", "on", "to", "for"])
_NUMBER_WORD = re.compile(r"\d+|\b(?:ii|iii|iv|v|vi|vii|viii|ix|x|xi|xii)\b")

Found = Literal["title", "near", "ambiguous", "unknown"]


@dataclass(frozen=True, slots=True)
class TitleForms:
    """A title's normal forms: `full` with the article in front; `others` shorter or alternative; `year` where it ends in one."""

    full: str
    others: tuple[str, ...]
    year: int | None


def normalised(text: str) -> str:
    """Compatibility form, case folded, without diacritics of Latin letters, marks as single spaces."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = unicodedata.normalize("NFKC", _DIACRITICS.sub("", decomposed))
    folded = text.casefold().replace("&", " and ").replace("'", "").replace("’", "")
    if folded.isascii():
        words = _NOT_WORD.sub(" ", folded).strip()
    else:
        # Vowel signs of many scripts are marks to `\w`; without them different words become one.
        words = " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())
    return words or " ".join(folded.split())


def title_forms(title: str) -> TitleForms:
    """The normal forms of a title as in `Shawshank Redemption, The (1994)` or `The Postman (Il Postino)`."""
    text = title[:MAX_TITLE_CHARACTERS].strip()
    year_match = _YEAR_AT_END.search(text)
    year = int(year_match.group(1)) if year_match else None
    if year_match and year_match.start() > 0:
        text = text[: year_match.start()]
    full = normalised(_article_first(text))
    others: dict[str, None] = {_without_article(full): None}
    if "(" in text:
        outside = _IN_PARENTHESES.sub(" ", text).strip()
        for part in (outside, *_IN_PARENTHESES.findall(text)):
            form = normalised(_article_first(part.strip()))
            others[form] = others[_without_article(form)] = None
    others.pop("", None)
    return TitleForms(full=full, others=tuple(others), year=year)


def _article_first(text: str) -> str:
    match = _ARTICLE_AT_END.match(text)
    return f"{match.group(2)} {match.group(1)}" if match else text


def _without_article(form: str) -> str:
    return _ARTICLE_AT_START.sub("", form, count=1)


class TitleIndex:
    """Finds items by title.

    Args:
        titles: by item_index, index 0 is padding.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        self._full: dict[str, list[int]] = {}
        self._other: dict[str, list[int]] = {}
        self._years: list[int | None] = [None]
        self._names: list[str | None] = [None]
        for item_index, title in enumerate(titles):
            if item_index == 0:
                continue
            forms = title_forms(title)
            self._years.append(forms.year)
            self._names.append(_without_article(forms.full) or None)
            if forms.full:
                self._full.setdefault(forms.full, []).append(item_index)
            for form in forms.others:
                self._other.setdefault(form, []).append(item_index)

    def owners(self, title: str) -> set[int]:
        """The items that `title` names exactly, in any of its forms and theirs; several where it is ambiguous."""
        return set(self._named(title_forms(title)))

    def find(self, title: str, *, preferred: Collection[int] = ()) -> tuple[int | None, Found]:
        """The one item that `title` names, or nearly names.

        Args:
            title: as written.
            preferred: items that win where several have the same title, and that near titles are looked for first in.
        """
        forms = title_forms(title)
        owners = self._named(forms)
        if owners:
            only = _only(owners, preferred)
            return (only, "title") if only is not None else (None, "ambiguous")
        name = _without_article(forms.full)
        if len(name) < MIN_NEAR_CHARACTERS:
            return None, "unknown"
        for choices in ({i: self._names[i] for i in sorted(preferred)}, dict(enumerate(self._names))):
            near = self._near(name, forms.year, choices)
            if near is not None:
                return near, "near"
        return None, "unknown"

    def _named(self, forms: TitleForms) -> list[int]:
        """Items with the same form, the strictest first, and the same year or (an LLM's slip) one beside it."""
        if not forms.full:
            return []
        for table, form in (
            (self._full, forms.full),
            (self._other, forms.full),
            *((self._other, form) for form in forms.others),
        ):
            items = table.get(form, ())
            for slack in (0, 1):
                owners = [item for item in items if self._fits_year(item, forms.year, slack)]
                if owners:
                    return owners
        return []

    def _near(self, name: str, year: int | None, choices: dict[int, str | None]) -> int | None:
        floor = NEAR_SCORE_SAME_YEAR - NEAR_MARGIN
        best = process.extract(name, choices, scorer=fuzz.ratio, limit=20, score_cutoff=floor)
        numbers = _NUMBER_WORD.findall(name)
        # A sequel is one character away from its first part: numbers must be the same, and so must years.
        fitting = [
            (_similarity(name, choice, ratio), item)
            for choice, ratio, item in best
            if _NUMBER_WORD.findall(choice) == numbers
            and self._fits_year(item, year, 1)
            and not _is_plural_of(name, choice)
            and differ_by_slips(name, choice)
        ]
        if not fitting:
            return None
        score, item = max(fitting, key=lambda scored: (scored[0], -scored[1]))
        others = [other for other, index in fitting if index != item]
        needed = NEAR_SCORE_SAME_YEAR if year is not None and year == self._years[item] else NEAR_SCORE
        return int(item) if score >= needed and score - max(others, default=0.0) >= NEAR_MARGIN else None

    def _fits_year(self, item: int, year: int | None, slack: int) -> bool:
        """Whether the years do not contradict each other; with slack, one beside it or with two digits swapped will do."""
        own = self._years[item]
        if year is None or own is None or own == year:
            return True
        return slack > 0 and (abs(own - year) <= slack or sorted(str(own)) == sorted(str(year)))


def _similarity(one: str, other: str, ratio: float) -> float:
    """The better of rapidfuzz' ratio and the similarity that takes two swapped letters for one slip."""
    return max(ratio, 100 * OSA.normalized_similarity(one, other))


def differ_by_slips(one: str, other: str) -> bool:
    """Whether two names can be the same with slips of the pen: no word of the one is another word in the other.

    `Western Photograph` and `Gentle Photograph` are alike letter by letter, and two works.
    """
    words, others = one.split(), other.split()
    if len(words) != len(others):
        words, others = ([word for word in name if not _is_small(word)] for name in (words, others))
    if len(words) != len(others):  # a blank too many or too few
        words, others = ["".join(words)], ["".join(others)]
    return all(map(_is_slip, words, others))


def _is_small(word: str) -> bool:
    return word in _SMALL_WORDS or (len(word) == 3 and sorted(word) == sorted("the"))


def _is_slip(word: str, other: str) -> bool:
    longest = max(len(word), len(other))
    if longest < 4:
        return sorted(word) == sorted(other)
    return OSA.distance(word, other) <= max(1, longest // LETTERS_A_SLIP)


def _is_plural_of(one: str, other: str) -> bool:
    """Whether only a last `s` tells the names apart: `Alien` and `Aliens` are two films."""
    return one == f"{other}s" or other == f"{one}s"


def _only(owners: Iterable[int], preferred: Collection[int]) -> int | None:
    unique = sorted(set(owners))
    if len(unique) > 1:
        unique = [item for item in unique if item in preferred]
    return unique[0] if len(unique) == 1 else None
