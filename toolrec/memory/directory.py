"""The pool directory: every entry of a list is looked up here, by exact id, by title and by near title.

Source: paper section 3.4. There a list with unknown items is asked for again; here only what stays unknown after the look-up
is asked for again (by the caller, who counts it).
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

from toolrec.columns import PADDING_INDEX
from toolrec.data import Pool
from toolrec.grammar import ItemLine, clean, item_ids_in, render_item_line
from toolrec.memory.titles import TitleIndex
from toolrec.memory.written_ids import ids_and_titles, is_telling

MatchKind = Literal["exact", "form", "title", "near", "unknown", "ambiguous", "mismatch"]


@dataclass(frozen=True, slots=True)
class Match:
    """What an entry stands for: `item_index` is 0 unless it is known; `reason` tells the LLM why not."""

    item_index: int
    kind: MatchKind
    reason: str = ""


class PoolDirectory:
    """Finds pool items by what an LLM wrote, and writes pool items for an LLM.

    One is shared by everything in a process that works on the same pool (`PoolDirectory.of`): item lines are rendered
    once an item, and titles are indexed when the first entry comes that is no exact id.
    """

    _shared: ClassVar[weakref.WeakValueDictionary[int, PoolDirectory]] = weakref.WeakValueDictionary()

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._lines: list[str | None] = [None] * (pool.num_items + 1)
        self._titles: TitleIndex | None = None
        self._folded: dict[str, int] | None = None

    @classmethod
    def of(cls, pool: Pool) -> PoolDirectory:
        """The directory of this pool, made once a process."""
        # An entry keeps its pool alive, so an id() found here is that of the very pool.
        directory = cls._shared.get(id(pool))
        if directory is None:
            directory = cls._shared[id(pool)] = cls(pool)
        return directory

    def line(self, item_index: int) -> str:
        """`<id> title | attribute: values`, without a number."""
        line = self._lines[item_index]
        if line is None:
            line = self._lines[item_index] = render_item_line(
                ItemLine(
                    item_id=self.pool.item_ids[item_index],
                    title=self.pool.titles[item_index],
                    fields=self.pool.fields(item_index),
                )
            )
        return line

    def find(self, entry: str, *, preferred: Collection[int] = (), is_exact: bool = False) -> Match:
        """Finds the item that an entry of a list stands for.

        An `<id>` with a title that belongs to another item is a `mismatch`, and no item: taking either side would be a
        guess. A title that belongs to no item is taken for decoration, and the id wins.

        Args:
            entry: an id, a title, or `<id> title`, as written.
            preferred: items among which titles are looked for first (the candidates).
            is_exact: read exact ids only.
        """
        item_id, title = _id_and_title(entry)
        item_index = self.pool.index_of(item_id) or PADDING_INDEX
        if item_index:
            if is_exact or not title or not (owners := self._index().owners(title)) or item_index in owners:
                return Match(item_index, "exact")
            return Match(PADDING_INDEX, "mismatch", f"{shown(entry)} has the id of {self._named(item_index)}")
        if is_exact:
            return Match(PADDING_INDEX, "unknown", f"{shown(entry)} is not in the pool")
        found, how = self._index().find(title or item_id, preferred=preferred)
        if found is None or how == "near":
            written = self._written(entry)
            if written:
                return Match(written, "form")
        if how == "ambiguous":
            return Match(PADDING_INDEX, how, f"{shown(entry)} fits several items, give its id")
        if found is None:
            return Match(PADDING_INDEX, "unknown", f"{shown(entry)} is not in the pool")
        return Match(found, how)

    def index_of_form(self, item_id: str) -> int:
        """The item with this id, or with the one id that differs from it in case alone; 0 where there is none."""
        known = self.pool.index_of(item_id)
        if known:
            return known
        if self._folded is None:
            self._folded = {}
            for item_index, pool_id in enumerate(self.pool.item_ids):
                folded = pool_id.casefold()
                self._folded[folded] = PADDING_INDEX if folded in self._folded else item_index
        return self._folded.get(item_id.casefold(), PADDING_INDEX)

    def _written(self, entry: str) -> int:
        """The item whose id an entry holds in another form; 0 where there is none, or where its title says another."""
        for item_id, title in ids_and_titles(entry):
            item_index = self.index_of_form(item_id) if item_id else PADDING_INDEX
            if not item_index:
                continue
            owners = self._index().owners(title) if title else None
            if not title or (item_index in owners if owners else is_telling(item_id)):
                return item_index
        return PADDING_INDEX

    def find_title(self, title: str) -> int | None:
        """The one item that has exactly this title, or None."""
        owners = self._index().owners(title)
        return next(iter(owners)) if len(owners) == 1 else None

    def _index(self) -> TitleIndex:
        if self._titles is None:
            self._titles = TitleIndex(self.pool.titles)
        return self._titles

    def _named(self, item_index: int) -> str:
        return _quoted(self.pool.titles[item_index] or self.pool.item_ids[item_index])


def looks_like_id(directory: PoolDirectory, entry: str) -> bool:
    item_id, _ = _id_and_title(entry)
    return directory.pool.index_of(item_id) is not None


def _id_and_title(entry: str) -> tuple[str, str]:
    """`<id> title` taken apart; an entry without brackets is the id, and has no title yet."""
    ids = item_ids_in(entry)
    if not ids:
        return entry.strip(), ""
    before, _, after = entry.partition(f"<{ids[0]}>")
    return ids[0].strip(), f"{before} {after}".strip()


def shown(entry: str) -> str:
    """An entry as the LLM is told of it: `<id>`, the id with its title, or a title in quotation marks."""
    item_id, title = _id_and_title(entry)
    if "<" not in entry and any(character.isspace() for character in item_id):
        return _quoted(entry)
    shown_id = f"<{clean(item_id, limit=80)}>"
    return f"{shown_id} {_quoted(title)}" if title else shown_id


def _quoted(text: str) -> str:
    return f"“{clean(text, limit=80)}”"
