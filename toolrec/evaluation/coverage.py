"""Where hits come from: the ceiling that the tools' lists set, and the tools' marks on what was hit.

A *mark* is `Retrieve[genre]` or `Rank[genre]`; an item can carry several. The tools' lists are read from the candidates
in memory: those of one mark and round, by position, are the list as the surrogate saw it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from toolrec.columns import PADDING_INDEX

NO_MARK = "no tool"
"""Stands for hits that no tool had returned: the surrogate named the item on its own."""

RETRIEVAL_MARK_START = "Retrieve["
MAX_MARKS = 40
"""Marks listed one by one; an LLM can write any attribute, so the rest is summed as `other`."""
OTHER_MARKS = "other"


@dataclass(slots=True, kw_only=True)
class _Tally:
    num_users: int = 0
    num_targets: int = 0
    num_candidates: int = 0
    ceiling_hits: int = 0
    hits: int = 0
    full_lists: int = 0
    equal_any: int = 0
    equal_retrieval: int = 0
    equal_set: int = 0
    found: Counter[str] = field(default_factory=Counter)
    first: Counter[str] = field(default_factory=Counter)
    every: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    only: Counter[str] = field(default_factory=Counter)
    only_hits: Counter[str] = field(default_factory=Counter)
    in_order: Counter[str] = field(default_factory=Counter)
    as_set: Counter[str] = field(default_factory=Counter)


def sources_of_hits(users: pd.DataFrame, targets: Sequence[Sequence[int]], *, list_length: int) -> dict[str, Any]:
    """Counts over all targets of all users where targets were seen, what was hit and whose list was handed on unchanged.

    Args:
        users: one row a user, with `candidates` and `final_items`; the final list of a failed user is expected empty.
        targets: each row's targets; 0 is none.
        list_length: slots of a final list; only full ones are compared with the tools' lists.

    Returns:
        `ceiling` (recall of the union of candidates, their mean number), `surrogate` (hits, by the first mark, by any mark,
        and how many no tool had brought: those are above the ceiling), `found_by_mark` (targets that a mark's lists held),
        `contributions` (for each mark: targets that it brought, brought alone, brought alone and kept, brought and left out),
        `equal_lists` (full final lists that are one tool's first items).
    """
    tally = _Tally()
    for candidates, final_items, of_user in zip(users["candidates"], users["final_items"], targets, strict=True):
        _add_user(tally, list(candidates), [int(item) for item in final_items], list_length)
        for target in of_user:
            if target != PADDING_INDEX:
                _add_target(tally, list(candidates), [int(item) for item in final_items], int(target), list_length)
    return _as_json(tally)


def _add_user(tally: _Tally, candidates: list[Mapping[str, Any]], final: list[int], list_length: int) -> None:
    tally.num_users += 1
    tally.num_candidates += len({int(c["item_index"]) for c in candidates})
    if len(final) >= list_length and PADDING_INDEX not in final[:list_length]:
        _compare_lists(tally, candidates, final[:list_length])


def _add_target(tally: _Tally, candidates: list[Mapping[str, Any]], final: list[int], target: int, list_length: int) -> None:
    tally.num_targets += 1
    of_target = sorted((c for c in candidates if int(c["item_index"]) == target), key=lambda c: int(c["round"]))
    marks = list(dict.fromkeys(str(c["mark"]) for c in of_target))
    tally.ceiling_hits += bool(marks)
    tally.found.update(marks)
    is_hit = target in final[:list_length]
    # Rank puts in order what other tools brought: only where no retrieval did is the item its own.
    bringers = [mark for mark in marks if mark.startswith(RETRIEVAL_MARK_START)] or marks
    if len(bringers) == 1:
        tally.only[bringers[0]] += 1
        tally.only_hits[bringers[0]] += is_hit
    if not is_hit:
        tally.left_out.update(marks)
    if is_hit:
        tally.hits += 1
        tally.first[marks[0] if marks else NO_MARK] += 1
        tally.every.update(marks or [NO_MARK])


def _compare_lists(tally: _Tally, candidates: list[Mapping[str, Any]], final: list[int]) -> None:
    tally.full_lists += 1
    in_order: set[str] = set()
    as_set: set[str] = set()
    for mark, items in tool_lists(candidates):
        first_items = items[: len(final)]
        if first_items == final:
            in_order.add(mark)
        if set(first_items) == set(final):
            as_set.add(mark)
    tally.in_order.update(in_order)
    tally.as_set.update(as_set)
    tally.equal_any += bool(in_order)
    tally.equal_retrieval += any(mark.startswith(RETRIEVAL_MARK_START) for mark in in_order)
    tally.equal_set += bool(as_set)


def tool_lists(candidates: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[int]]]:
    """The tools' lists that made the candidates, as (mark, items by position), in the order of the rounds."""
    lists: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for candidate in candidates:
        key = (int(candidate["round"]), str(candidate["mark"]))
        lists.setdefault(key, []).append((int(candidate["position"]), int(candidate["item_index"])))
    return [(mark, [item for _, item in sorted(entries)]) for (_, mark), entries in sorted(lists.items())]


def _as_json(tally: _Tally) -> dict[str, Any]:
    num_users, full = tally.num_users, tally.full_lists
    return {
        "ceiling": {
            "recall": _share(tally.ceiling_hits, tally.num_targets),
            "num_hits": tally.ceiling_hits,
            "mean_candidates": _share(tally.num_candidates, num_users),
        },
        "surrogate": {
            "num_hits": tally.hits,
            "num_hits_no_tool_brought": tally.first[NO_MARK],
            "share_of_ceiling": _share(tally.hits, tally.ceiling_hits),
            "by_first_mark": listed(tally.first),
            "by_any_mark": listed(tally.every),
        },
        "found_by_mark": listed(tally.found),
        "contributions": {
            mark: {
                "brought": count,
                "brought_alone": tally.only[mark],
                "brought_alone_and_hit": tally.only_hits[mark],
                "left_out": tally.left_out[mark],
            }
            for mark, count in listed(tally.found).items()
            if mark != OTHER_MARKS
        },
        "equal_lists": {
            "num_full_lists": full,
            "in_order": {"any_tool": _share(tally.equal_any, full), "any_retrieval": _share(tally.equal_retrieval, full)},
            "as_set": {"any_tool": _share(tally.equal_set, full)},
            "num_in_order_by_mark": listed(tally.in_order),
            "num_as_set_by_mark": listed(tally.as_set),
        },
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def listed(counter: Mapping[str, int]) -> dict[str, int]:
    """The counts, largest first and then by name; past the longest list that is shown, one sum."""
    ordered = sorted(counter.items(), key=lambda entry: (-entry[1], entry[0]))
    kept = dict(ordered[:MAX_MARKS])
    rest = sum(count for _, count in ordered[MAX_MARKS:])
    if rest:
        kept[OTHER_MARKS] = kept.get(OTHER_MARKS, 0) + rest
    return kept
