"""Neighbours: items that came soon after the history's last ones in other users' training sequences. No torch here.

Shape suffixes: B histories, L history length, I items plus padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolrec.recommenders.fusion.item_tables import ItemTables
from toolrec.recommenders.scoring import ScoringRecommender, clean_history

RECENT_ITEMS = 10
RECENT_DECAY = 0.7
"""Of the last items each counts so much as the one after it."""


class Neighbours(ScoringRecommender):
    """Scores an item by the share of what followed the history's last items, newer ones counting more.

    Shares are damped by the popularity of what follows; the counts of all items break ties among those that never
    followed. A history without items gets the popular ones.

    Args:
        tables: of the training split.
    """

    def __init__(self, tables: ItemTables, *, name: str = "neighbours") -> None:
        super().__init__(name, num_items=len(tables.count_I) - 1)
        self.tables = tables
        self._following_I = np.maximum(np.asarray(tables.near_II.sum(axis=1)).ravel(), 1.0)
        self._popular_I = tables.count_I / max(tables.count_I.sum(), 1.0)

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Logarithms of the weighted shares; the whole pool is finite, column 0 is -inf."""
        score_BI = np.empty((len(history_BL), self.num_items + 1))
        for row, history in enumerate(history_BL):
            history_L = clean_history(history, num_items=self.num_items)
            score_BI[row] = self._score(history_L) if len(history_L) else self.tables.count_I
        score_BI[:, 0] = -np.inf
        return score_BI

    def _score(self, history_L: np.ndarray) -> np.ndarray:
        share_I = decayed_rows(self.tables.near_II, history_L, scale_I=1.0 / self._following_I)
        score_I: np.ndarray = np.log(share_I + 0.01 * (self._popular_I + 1e-6))
        return score_I


def decayed_rows(table: Any, history_L: np.ndarray, *, scale_I: np.ndarray | None = None) -> np.ndarray:
    """The sum of the last items' rows of a CSR table, each counting `RECENT_DECAY` of the one after it; weights add up to 1."""
    recent = history_L[-RECENT_ITEMS:][::-1]
    weights = RECENT_DECAY ** np.arange(len(recent))
    weights /= weights.sum()
    if scale_I is not None:
        weights = weights * scale_I[recent]
    total_I = np.zeros(table.shape[1])
    for item, weight in zip(recent, weights, strict=True):
        row = slice(table.indptr[item], table.indptr[item + 1])
        total_I[table.indices[row]] += weight * table.data[row]
    return total_I
