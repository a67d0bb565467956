"""The best items by inner product, found in blocks of items: memory does not grow with users x items.

Shape suffixes: B users in the block, D width, I items plus padding, J items of one block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from toolrec.recommenders.base import SCORE_DECIMALS
from toolrec.records import RankedItem

BLOCK_SCORES = 2**21
"""Scores held at a time: 16 MB in double precision."""

_MARGIN = 0.6 * 10.0**-SCORE_DECIMALS
"""Scores this far below a rounded one may still round to it."""


class _Kept:
    """Candidates for the lists so far: users, items and rounded scores, best first for every user."""

    def __init__(self, num_rows: int, k: int) -> None:
        self.num_rows, self.k = num_rows, k
        self.row, self.item = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.score = np.zeros(0)
        self.threshold_B = np.full(num_rows, -np.inf)

    def add(self, row: np.ndarray, item: np.ndarray, score: np.ndarray) -> None:
        """Takes in candidates, drops what cannot be among the k best, and raises the users' thresholds."""
        row, item = np.concatenate([self.row, row]), np.concatenate([self.item, item])
        score = np.concatenate([self.score, np.round(score, SCORE_DECIMALS)])
        order = np.lexsort((item, -score, row))
        row, item, score = row[order], item[order], score[order]
        starts = np.searchsorted(row, np.arange(self.num_rows + 1))
        is_best = np.arange(len(row)) - starts[row] < self.k
        self.row, self.item, self.score = row[is_best], item[is_best], score[is_best]
        is_full = np.diff(starts) >= self.k
        self.threshold_B[is_full] = score[starts[:-1][is_full] + self.k - 1] - _MARGIN

    def lists(self) -> list[list[RankedItem]]:
        """Every user's list."""
        starts = np.searchsorted(self.row, np.arange(self.num_rows + 1))
        pairs = list(zip(self.item.tolist(), self.score.tolist(), strict=True))
        return [
            [RankedItem(item_index=item, score=score) for item, score in pairs[starts[row] : starts[row + 1]]]
            for row in range(self.num_rows)
        ]


@torch.inference_mode()
def best_items(state_BD: Tensor, item_DI: Tensor, *, k: int, seen: Sequence[np.ndarray] | None = None) -> list[list[RankedItem]]:
    """The k best items of every state, best first, ties by item index after rounding, as `base.top_k` has them.

    Args:
        state_BD: states of the users.
        item_DI: item embeddings; column 0 is padding and never an item.
        seen: for each user the item indexes to leave out, or None.
    """
    num_columns = item_DI.shape[1]
    kept = _Kept(len(state_BD), k)
    seen_row, seen_item = _flat(seen)
    width = max(k, BLOCK_SCORES // max(len(state_BD), 1))
    for start in range(1, num_columns, width):
        end = min(start + width, num_columns)
        score_BJ = state_BD @ item_DI[:, start:end]
        here = slice(*np.searchsorted(seen_item, [start, end]))
        rows, columns = torch.from_numpy(seen_row[here]), torch.from_numpy(seen_item[here] - start)
        score_BJ[rows.to(score_BJ.device), columns.to(score_BJ.device)] = -torch.inf
        if start == 1:
            threshold_B = score_BJ.topk(min(k, end - start), dim=1).values[:, -1] - _MARGIN
        else:
            threshold_B = torch.from_numpy(kept.threshold_B).to(score_BJ)
        is_candidate_BJ = (score_BJ >= threshold_B[:, None]) & (score_BJ > -torch.inf)
        row, column = torch.nonzero(is_candidate_BJ, as_tuple=True)
        kept.add(row.cpu().numpy(), column.cpu().numpy() + start, score_BJ[row, column].double().cpu().numpy())
    return kept.lists()


def _flat(seen: Sequence[np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of all histories, by item."""
    if not seen:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    row = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    item = np.concatenate([np.asarray(items, dtype=np.int64) for items in seen])
    order = np.argsort(item, kind="stable")
    return row[order], item[order]
