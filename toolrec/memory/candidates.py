"""One user's memory: candidates with the marks of their tools, and the check of every list against the pool directory.

Source: paper section 3.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toolrec.columns import PADDING_INDEX
from toolrec.memory.directory import Match, PoolDirectory, looks_like_id, shown
from toolrec.memory.written_ids import by_digits, numbers_of, parts_of
from toolrec.recommenders.fusion.rrf import reciprocal_rank_fusion
from toolrec.records import Candidate, RankedItem

_COUNT_OF: Mapping[str, str] = {"ambiguous": "memory_unknown"}
_SHOWN_REASONS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedList:
    """A checked list: `items` has 0 for an empty slot, `refused` tells the LLM the reasons."""

    items: tuple[int, ...]
    refused: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """One sentence for a re-ask."""
        more = len(self.refused) - _SHOWN_REASONS
        return "; ".join(self.refused[:_SHOWN_REASONS]) + (f"; and {more} more" if more > 0 else "")


class Memory:
    """One user's candidates with their marks, and the check of every list.

    Args:
        directory: the pool directory.
        history: the user's item indexes.
        mask_seen: refuses items of the history in every list.
        is_checked: see `ToolSettings.memory_check`.
        candidates: those of earlier rounds.
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
        self._latest: tuple[int, ...] = ()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All marked candidates in the order in which they came; an item has one for every list that it was on."""
        return tuple(self._candidates)

    def has_all(self, items: Iterable[int]) -> bool:
        """Whether every item is a candidate; an empty slot is none."""
        return all(item in self._indexes for item in items)

    def store(self, items: Sequence[RankedItem], *, mark: str, round: int) -> None:
        """Adds a tool's list, best first, under the tool's mark."""
        self._latest = tuple(item.item_index for item in items)
        for position, item in enumerate(items, start=1):
            self._indexes.add(item.item_index)
            self._candidates.append(
                Candidate(item_index=item.item_index, mark=mark, round=round, position=position, score=item.score)
            )

    def check_items(self, items: Sequence[RankedItem]) -> tuple[list[RankedItem], dict[str, int]]:
        """A retriever's list without unknown items, seen items and repeats; and counts of what was dropped."""
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
        rest = self._as_ids(entries, counts, among) if self._is_checked else list(entries)
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

    def _as_ids(self, entries: Sequence[str], counts: Counter[str], among: Collection[int] | None) -> list[str]:
        """The entries, with ids in the place of one text that holds several, and of bare numbers that mean but one thing.

        Numbers that are no ids of the pool are positions in the list just shown, or the digits of candidates' ids. Where
        they could be both, they stay what they are, and are asked for again.
        """
        pool = self._directory.pool
        if len(entries) == 1 and pool.index_of(entries[0]) is None:
            parts = parts_of(entries[0])
            if len(parts) > 1 and all(map(self._directory.index_of_form, parts)):
                counts["list_taken_apart"] += 1
                return parts
        numbers = numbers_of(entries)
        if numbers is None or any(pool.index_of(entry.strip()) is not None for entry in entries):
            return list(entries)
        candidates = by_digits({item: pool.item_ids[item] for item in (self._indexes if among is None else among)})
        digits = [candidates.get(number, PADDING_INDEX) for number in numbers]
        shown = self._latest if among is None else ()
        positions = [shown[number - 1] if 1 <= number <= len(shown) else PADDING_INDEX for number in numbers]
        for kind, items, other in (("digits", digits, positions), ("positions", positions, digits)):
            if all(items) and len(set(items)) == len(items) and not all(other):
                counts[f"list_of_{kind}"] += 1
                return [pool.item_ids[item] for item in items]
        return list(entries)

    def _match(self, entries: Sequence[str]) -> tuple[Match, int]:
        """The first entry's item, and how many entries it takes: a title with commas may have been split."""
        if self._is_checked and len(entries) > 1 and not looks_like_id(self._directory, entries[0]):
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
            return "memory_seen", f"{shown(entry)} is in the history"
        if among is not None and match.item_index not in among:
            return "memory_unknown", f"{shown(entry)} is not one of the candidates"
        return f"memory_{match.kind}", ""

    def completed(self, items: Sequence[int], *, length: int) -> tuple[int, ...]:
        """The list without its empty slots, filled to `length` from the marked lists by reciprocal rank fusion."""
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


_ACCEPTED = frozenset({"memory_exact", "memory_form", "memory_title", "memory_near"})


def newest_first(candidates: Sequence[Candidate]) -> list[int]:
    """Every candidate's item once: items of later lists first, each list best first."""
    ordered = sorted(candidates, key=lambda candidate: (-candidate.round, candidate.position))
    return list(dict.fromkeys(candidate.item_index for candidate in ordered))
