"""The items that learned fusions choose from: the best of every member, with all members' scores of them. No torch here.

Shape suffixes: C candidates, M members, I items plus padding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolrec.recommenders.base import pad_histories, top_k
from toolrec.recommenders.scoring import BLOCK_HISTORIES, ScoringRecommender

BLOCK_SCORES = 2**24
"""Scores of all members that are held at a time."""

KEPT_HISTORIES = 2 * BLOCK_HISTORIES
"""Histories whose candidates are kept for the next fusion that asks."""

LIST_LENGTH = 100
"""How many items of every member are candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """One history's candidates, by item index.

    Args:
        item_C: item indexes, ascending.
        standard_CM: each member's score over its mean and standard deviation over the items that may be recommended.
        log_share_CM: logarithm of the softmax of each member's scores over the same items.
        position_CM: 1-based position in each member's list; `LIST_LENGTH + 1` where it is not on it.
    """

    item_C: np.ndarray
    standard_CM: np.ndarray
    log_share_CM: np.ndarray
    position_CM: np.ndarray


class CandidateSource:
    """Makes candidates, each member scoring a history once; what was made last is kept for the next fusion that asks.

    Args:
        members: who brings candidates, in the order of the columns.
    """

    def __init__(self, members: Sequence[ScoringRecommender]) -> None:
        self.members = tuple(members)
        self.num_items = members[0].num_items
        self._kept: OrderedDict[tuple[bytes, bool], Candidates] = OrderedDict()

    def of(self, histories: Sequence[np.ndarray], *, mask_seen: bool) -> list[Candidates]:
        """The candidates of a block of histories without padding; none may be empty."""
        keys = [(np.asarray(h, dtype=np.int64).tobytes(), mask_seen) for h in histories]
        missing = [row for row, key in enumerate(keys) if key not in self._kept]
        found = dict(zip([keys[p] for p in missing], self._make([histories[p] for p in missing], mask_seen), strict=True))
        result = [found[key] if key in found else self._kept[key] for key in keys]
        self._kept.update(found)
        while len(self._kept) > KEPT_HISTORIES:
            self._kept.popitem(last=False)
        return result

    def _make(self, histories: Sequence[np.ndarray], mask_seen: bool) -> list[Candidates]:
        num_rows = max(1, BLOCK_SCORES // (self.num_items * len(self.members)))
        made: list[Candidates] = []
        for start in range(0, len(histories), num_rows):
            made.extend(self._make_block(histories[start : start + num_rows], mask_seen))
        return made

    def _make_block(self, histories: Sequence[np.ndarray], mask_seen: bool) -> list[Candidates]:
        history_BL = pad_histories(histories)
        score_MBI = []
        lists = []
        for member in self.members:
            score_BI = member.score(history_BL)
            if mask_seen:
                for row, history in enumerate(histories):
                    score_BI[row, history] = -np.inf
            score_MBI.append(score_BI)
            ranked = top_k(score_BI, k=LIST_LENGTH)
            lists.append([np.array([item.item_index for item in items], dtype=np.int64) for items in ranked])
        return [
            _candidates([s[row] for s in score_MBI], [member_lists[row] for member_lists in lists])
            for row in range(len(histories))
        ]


def _candidates(score_MI: list[np.ndarray], lists: list[np.ndarray]) -> Candidates:
    item_C = np.unique(np.concatenate(lists))
    standard, log_share, position = [], [], []
    for score_I, items in zip(score_MI, lists, strict=True):
        allowed = score_I[np.isfinite(score_I)] if len(item_C) else np.zeros(1)  # nothing is left where all was seen
        score_C = score_I[item_C]
        standard.append((score_C - allowed.mean()) / (allowed.std() or 1.0))
        highest = allowed.max()
        log_share.append(score_C - highest - np.log(np.exp(allowed - highest).sum()))
        position_C = np.full(len(item_C), LIST_LENGTH + 1.0)
        position_C[np.searchsorted(item_C, items)] = np.arange(1, len(items) + 1)
        position.append(position_C)
    return Candidates(
        item_C=item_C,
        standard_CM=np.stack(standard, axis=1),
        log_share_CM=np.stack(log_share, axis=1),
        position_CM=np.stack(position, axis=1),
    )
