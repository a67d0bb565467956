"""Popularity: every user gets the items that the training split has most often. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolrec.recommenders.scoring import ScoringRecommender


class Popularity(ScoringRecommender):
    """Scores an item by its number of interactions in the training split, whatever the history.

    Args:
        count_I: interactions of every item, `[num_items + 1]`, 0 for padding.
    """

    def __init__(self, count_I: np.ndarray, *, name: str = "popularity") -> None:
        super().__init__(name, num_items=len(count_I) - 1)
        self.count_I = np.asarray(count_I, dtype=np.float64)

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """The same counts for every row: `[B, num_items + 1]`, column 0 is -inf."""
        score_BI = np.tile(self.count_I, (len(history_BL), 1))
        score_BI[:, 0] = -np.inf
        return score_BI


def count_items(sequences: Sequence[np.ndarray], *, num_items: int) -> np.ndarray:
    """How often every item stands in the sequences: float64 `[num_items + 1]`, 0 for padding."""
    flat = np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences]) if sequences else np.zeros(0, np.int64)
    counts = np.bincount(flat, minlength=num_items + 1).astype(np.float64)
    counts[0] = 0.0
    return counts
