"""Recall, NDCG and MRR at k for one held-out target a user, from the target's position in the user's list.

Shapes: `B` users, `K` list length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolrec.columns import PADDING_INDEX

METRICS = ("recall", "ndcg", "mrr")
DEPTHS = (5, 10, 20)
"""The list lengths at which figures are given."""


def metric_names(list_length: int, *, depths: Sequence[int] = DEPTHS) -> list[str]:
    """The figures that lists of `list_length` slots have, as in `ndcg@10`; a list of 10 has none at 20."""
    return [f"{metric}@{k}" for k in depths if k <= list_length for metric in METRICS]


def all_metric_names(*, depths: Sequence[int] = DEPTHS) -> list[str]:
    """Every figure's name, in the order of the tables."""
    return metric_names(max(depths), depths=depths)


def pad_lists(lists: Sequence[Sequence[int]], *, length: int) -> np.ndarray:
    """`list_BK` of the given lists, cut to `length` and filled with 0 (no item) at the end."""
    list_BK = np.zeros((len(lists), length), dtype=np.int64)
    for row, items in enumerate(lists):
        kept = list(items)[:length]
        list_BK[row, : len(kept)] = kept
    return list_BK


def positions_of(list_BK: np.ndarray, target_B: np.ndarray) -> np.ndarray:
    """The target's 1-based position in each list, 0 where it is absent.

    Empty slots (item 0) hold no target but keep their place: what stands behind one is not moved up.
    A target that stands twice counts at its first position.
    """
    if list_BK.shape[1] == 0:
        return np.zeros(len(target_B), dtype=np.int64)
    hit_BK = (list_BK == target_B[:, None]) & (list_BK != PADDING_INDEX)
    return np.where(hit_BK.any(axis=1), hit_BK.argmax(axis=1) + 1, 0).astype(np.int64)


def recall_at_k(position_B: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, else 0 (with one target this is also the hit rate)."""
    return _within(position_B, k).astype(np.float64)


def ndcg_at_k(position_B: np.ndarray, k: int) -> np.ndarray:
    """`1 / log2(position + 1)` where the target is among the first k, else 0; the ideal gain of one target is 1.

    Source: Järvelin and Kekäläinen 2002, with a binary gain.
    """
    within_B = _within(position_B, k)
    return np.where(within_B, 1.0 / np.log2(np.where(within_B, position_B, 1) + 1.0), 0.0)


def mrr_at_k(position_B: np.ndarray, k: int) -> np.ndarray:
    """`1 / position` where the target is among the first k, else 0."""
    within_B = _within(position_B, k)
    return np.where(within_B, 1.0 / np.where(within_B, position_B, 1), 0.0)


def _within(position_B: np.ndarray, k: int) -> np.ndarray:
    return (position_B >= 1) & (position_B <= k)


_FUNCTIONS = {"recall": recall_at_k, "ndcg": ndcg_at_k, "mrr": mrr_at_k}


def values_of(position_B: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """`value_BM`: every user's value of every figure in `names`, float64."""
    columns = []
    for name in names:
        metric, _, depth = name.partition("@")
        columns.append(_FUNCTIONS[metric](position_B, int(depth)))
    return np.stack(columns, axis=1) if columns else np.zeros((len(position_B), 0))
