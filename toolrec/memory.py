"""One user's memory: the pool directory that every list is checked against, and the candidates with their tools' marks.

Source: paper section 3.4. There a list with unknown items is asked for again; here an entry is first looked for by exact
id, by title and by near title, and only what stays unknown is asked for again (by the caller, who counts it).
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from toolrec.columns import PADDING_INDEX
from toolrec.data import Pool
from toolrec.grammar import ItemLine, clean, item_ids_in, render_item_line
from toolrec.recommenders.base import reciprocal_rank_fusion
from toolrec.records import Candidate, RankedItem
from toolrec.titles import TitleIndex

MatchKind = Literal["exact", "title", "near", "unknown", "ambiguous", "mismatch"]
_COUNT_OF: Mapping[str, str] = {"ambiguous": "memory_unknown"}
_SHOWN_REASONS = 5


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
            return Match(PADDING_INDEX, "mismatch", f"{_shown(entry)} has the id of {self._named(item_index)}")
        if is_exact:
            return Match(PADDING_INDEX, "unknown", f"{_shown(entry)} is not in the pool")
        found, how = self._index().find(title or item_id, preferred=preferred)
        if how == "ambiguous":
            return Match(PADDING_INDEX, how, f"{_shown(entry)} fits several items, give its id")
        if found is None:
            return Match(PADDING_INDEX, "unknown", f"{_shown(entry)} is not in the pool")
        return Match(found, how)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedList:
    """A list after the check: `items` has a 0 for every slot that stays empty, `refused` says why, for the LLM."""

    items: tuple[int, ...]
    refused: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """One sentence for a re-ask."""
        more = len(self.refused) - _SHOWN_REASONS
        return "; ".join(self.refused[:_SHOWN_REASONS]) + (f"; and {more} more" if more > 0 else "")


class Memory:
    """The candidates of one user with their marks, and the check that every list passes.

    Args:
        directory: the pool directory.
        history: the user's item indexes, refused in every list when `mask_seen`.
        mask_seen: see above.
        is_checked: see `ToolSettings.memory_check`.
        candidates: what earlier rounds brought.
    """

    def __init__(
        self,
        directory: PoolDirectory,
        history: Iterable[int],
        *,
        mask_seen: bool = True,
        is_checked: bool = True,
        candidates: Iterable[Candidate] = (),
    ) -> None:
        self._directory = directory
        self._seen = frozenset(history) if mask_seen else frozenset()
        self._is_checked = is_checked
        self._candidates = list(candidates)
        self._indexes = {candidate.item_index for candidate in self._candidates}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All marked candidates in the order in which they came; an item has one for every list that it was on."""
        return tuple(self._candidates)

    def store(self, items: Sequence[RankedItem], *, mark: str, round: int) -> None:
        """Keeps a tool's list, best first, under the tool's mark."""
        for position, item in enumerate(items, start=1):
            self._indexes.add(item.item_index)
            self._candidates.append(
                Candidate(item_index=item.item_index, mark=mark, round=round, position=position, score=item.score)
            )

    def check_items(self, items: Sequence[RankedItem]) -> tuple[list[RankedItem], dict[str, int]]:
        """A retriever's list without items that the pool does not have, seen ones and repeats; and what was dropped."""
        kept: list[RankedItem] = []
        taken: set[int] = set()
        counts: Counter[str] = Counter()
        for item in items:
            if not 1 <= item.item_index <= self._directory.pool.num_items:
                counts["memory_unknown"] += 1
            elif item.item_index in self._seen:
                counts["memory_seen"] += 1
            elif item.item_index in taken:
                counts["memory_duplicate"] += 1
            else:
                taken.add(item.item_index)
                kept.append(item)
        return kept, dict(counts)

    def check_entries(self, entries: Sequence[str], *, length: int, among: Collection[int] | None = None) -> CheckedList:
        """Checks a list that an LLM wrote, entry by entry; a refused or repeated entry leaves its slot empty.

        Args:
            entries: as `grammar.list_entries` gives them.
            length: slots of the list; later entries are left out.
            among: the only items allowed (the candidates that a ranking orders); None for the whole pool.
        """
        items: list[int] = []
        refused: list[str] = []
        counts: Counter[str] = Counter()
        rest = list(entries)
        while rest and len(items) < length:
            match, width = self._match(rest)
            kind, reason = self._verdict(match, rest[0], items, among)
            counts[kind] += 1
            if reason:
                refused.append(reason)
            items.append(match.item_index if kind in _ACCEPTED else PADDING_INDEX)
            rest = rest[width:]
        if rest:
            counts["list_cut"] += 1
        return CheckedList(items=tuple(items), refused=tuple(refused) if self._is_checked else (), counts=dict(counts))

    def _match(self, entries: Sequence[str]) -> tuple[Match, int]:
        """The item of the first entry, and how many entries it took: a title with commas may have come apart."""
        if self._is_checked and len(entries) > 1 and not _looks_like_id(self._directory, entries[0]):
            for width in (4, 3, 2):
                if width <= len(entries) and not any("<" in entry for entry in entries[:width]):
                    whole = self._directory.find_title(", ".join(entries[:width]))
                    if whole is not None:
                        return Match(whole, "title"), width
        return self._directory.find(entries[0], preferred=self._indexes, is_exact=not self._is_checked), 1

    def _verdict(self, match: Match, entry: str, items: Sequence[int], among: Collection[int] | None) -> tuple[str, str]:
        """The counter's name and, where the entry is refused, the reason."""
        if not match.item_index:
            return _COUNT_OF.get(match.kind, f"memory_{match.kind}"), match.reason
        if match.item_index in items:
            return "memory_duplicate", ""
        if match.item_index in self._seen:
            return "memory_seen", f"{_shown(entry)} is in the history"
        if among is not None and match.item_index not in among:
            return "memory_unknown", f"{_shown(entry)} is not one of the candidates"
        return f"memory_{match.kind}", ""

    def completed(self, items: Sequence[int], *, length: int) -> tuple[int, ...]:
        """The list without its empty slots, filled to `length` from the marked lists by reciprocal rank fusion.

        Ties are broken by item index. Source: Cormack, Clarke and Büttcher, SIGIR 2009 (constant 60).
        """
        given = dict.fromkeys(item for item in items if item)
        if len(given) < length and self._candidates:
            for fused in reciprocal_rank_fusion(self._marked_lists()):
                if len(given) >= length:
                    break
                given.setdefault(fused.item_index)
        return tuple(given)[:length]

    def _marked_lists(self) -> list[list[int]]:
        lists: dict[tuple[int, str], list[int]] = {}
        for candidate in self._candidates:
            lists.setdefault((candidate.round, candidate.mark), []).append(candidate.item_index)
        return list(lists.values())


_ACCEPTED = frozenset({"memory_exact", "memory_title", "memory_near"})


def newest_first(candidates: Sequence[Candidate]) -> list[int]:
    """Every candidate's item once: items of later lists first, each list best first."""
    ordered = sorted(candidates, key=lambda candidate: (-candidate.round, candidate.position))
    return list(dict.fromkeys(candidate.item_index for candidate in ordered))


def _looks_like_id(directory: PoolDirectory, entry: str) -> bool:
    item_id, _ = _id_and_title(entry)
    return directory.pool.index_of(item_id) is not None


def _id_and_title(entry: str) -> tuple[str, str]:
    """`<id> title` taken apart; an entry without brackets is the id, and has no title yet."""
    ids = item_ids_in(entry)
    if not ids:
        return entry.strip(), ""
    before, _, after = entry.partition(f"<{ids[0]}>")
    return ids[0].strip(), f"{before} {after}".strip()


def _shown(entry: str) -> str:
    """An entry as the LLM is told of it: `<id>`, the id with its title, or a title in quotation marks."""
    item_id, title = _id_and_title(entry)
    if "<" not in entry and any(character.isspace() for character in item_id):
        return _quoted(entry)
    shown_id = f"<{clean(item_id, limit=80)}>"
    return f"{shown_id} {_quoted(title)}" if title else shown_id


def _quoted(text: str) -> str:
    return f"“{clean(text, limit=80)}”"
