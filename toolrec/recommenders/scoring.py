"""From scores to lists in bounded memory: what every recommender that can score shares. No torch here.

Shape suffixes: B histories in the block, L history length, I items plus padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from toolrec.errors import DataError
from toolrec.recommenders.base import pad_histories, top_k
from toolrec.records import RankedItem

BLOCK_HISTORIES = 32
"""Histories scored at a time by `recommend_many`."""


class ScoringRecommender(ABC):
    """A recommender whose lists are the best of its scores. A list never depends on what else is in the batch.

    Args:
        name: how the recommender is called in tables, marks and folders.
        num_items: items of the pool, without padding.
    """

    def __init__(self, name: str, *, num_items: int) -> None:
        self.name = name
        self.num_items = num_items

    @abstractmethod
    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item: see `base.Recommender.score`."""

    def recommend(self, history: Sequence[int], *, k: int, mask_seen: bool = True) -> list[RankedItem]:
        """The k best items for one history, best first; fewer where the pool has no more."""
        return self.recommend_many([history], k=k, mask_seen=mask_seen)[0]

    def recommend_many(self, histories: Sequence[Sequence[int]], *, k: int, mask_seen: bool = True) -> list[list[RankedItem]]:
        """The lists of many histories; memory grows with the block, not with their number.

        Raises:
            DataError: a history names an item that the pool does not have.
        """
        lists: list[list[RankedItem]] = []
        for start in range(0, len(histories), BLOCK_HISTORIES):
            block = [clean_history(h, num_items=self.num_items) for h in histories[start : start + BLOCK_HISTORIES]]
            lists.extend(self._block_lists(block, k=k, mask_seen=mask_seen))
        return lists

    def _block_lists(self, block: Sequence[np.ndarray], *, k: int, mask_seen: bool) -> list[list[RankedItem]]:
        """The lists of a block of clean histories: those of their scores."""
        return top_k(self.score(pad_histories(block)), k=k, seen=block if mask_seen else None)


def clean_history(history: Sequence[int] | np.ndarray, *, num_items: int) -> np.ndarray:
    """The history's items without padding.

    Raises:
        DataError: an index is not in `0..num_items`.
    """
    items = np.asarray(history, dtype=np.int64)
    if items.size and (int(items.min()) < 0 or int(items.max()) > num_items):
        wrong = items[(items < 0) | (items > num_items)]
        raise DataError(
            "the history has an item index that the pool does not have", value=int(wrong[0]), allowed=f"1 to {num_items}"
        )
    return items if items.all() else items[items != 0]
