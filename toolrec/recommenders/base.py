"""What a recommender is, and the one way in which scores become a list. No torch here.

Shape suffixes: B users in the batch, L history length, I items plus padding, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from toolrec.records import RankedItem

SCORE_DECIMALS = 4
"""Scores are rounded to this many decimals before ties are broken by item index (batching changes the last bits)."""


@runtime_checkable
class Recommender(Protocol):
    """Scores every item of the pool for a history.

    Attributes:
        name: how tables call it.
    """

    name: str

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item.

        Args:
            history_BL: int64, each row a history, oldest first, padded with 0 **at the end**; longer histories than the
                recommender reads are cut to their last items by the recommender itself.

        Returns:
            score_BI: float64 `[B, num_items + 1]`, column 0 (padding) is -inf. Seen items are not masked here.
        """
        ...

    def recommend(self, history: Sequence[int], *, k: int, mask_seen: bool = True) -> list[RankedItem]:
        """The k best items for one history, best first; fewer where the pool has no more.

        Args:
            history: item indexes, oldest first.
            k: length of the list.
            mask_seen: leaves the history's items out.
        """
        ...


def pad_histories(histories: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """`history_BL` of the given histories, padded with 0 at the end; at least one column."""
    longest = max((len(h) for h in histories), default=0)
    history_BL = np.zeros((len(histories), max(longest, 1)), dtype=np.int64)
    for row, history in enumerate(histories):
        history_BL[row, : len(history)] = history
    return history_BL


def top_k(score_BI: np.ndarray, *, k: int, seen: Sequence[Sequence[int] | np.ndarray] | None = None) -> list[list[RankedItem]]:
    """The k best items of every row, best first, ties by item index after rounding; `seen` items are left out.

    Args:
        score_BI: float, `[B, num_items + 1]`; not changed. Items at -inf (or NaN) are never returned.
        k: length of the lists; a row with fewer items left gives a shorter list.
        seen: for each row the item indexes to mask, or None for no masking.
    """
    lists = []
    for row, score_I in enumerate(score_BI):
        rounded_I = np.round(score_I, SCORE_DECIMALS)
        rounded_I[0] = -np.inf
        if seen is not None:
            rounded_I[np.asarray(seen[row], dtype=np.int64)] = -np.inf
        is_allowed_I = np.isfinite(rounded_I)
        if k < np.count_nonzero(is_allowed_I):
            rounded_I[~is_allowed_I] = -np.inf
            is_allowed_I &= rounded_I >= np.partition(rounded_I, -k)[-k]
        (best,) = np.nonzero(is_allowed_I)
        best = best[np.lexsort((best, -rounded_I[best]))][:k]
        lists.append([RankedItem(item_index=int(i), score=float(rounded_I[i])) for i in best])
    return lists
