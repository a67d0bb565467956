"""Recall, NDCG and MRR at k for the held-out targets of a user, from their positions in the user's list.

Leave-one-out has one target a user; where there are several, positions are a matrix with a column a target.

Shapes: `B` users, `K` list length, `T` targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolrec.columns import PADDING_INDEX

NO_TARGET = -1
"""Stands in the positions of users with fewer targets than there are columns."""

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
    """The target's 1-based position in each list, 0 where it is absent: `position_B`, or `position_BT` of `target_BT`.

    Empty slots (item 0) hold no target but keep their position: what comes behind one is not moved up.
    A target that stands twice counts at its first position. In `target_BT`, 0 is no target; its position is `NO_TARGET`.
    """
    if target_B.ndim == 2:
        columns = [np.where(target > PADDING_INDEX, positions_of(list_BK, target), NO_TARGET) for target in target_B.T]
        return np.stack(columns, axis=1)
    if list_BK.shape[1] == 0:
        return np.zeros(len(target_B), dtype=np.int64)
    hit_BK = (list_BK == target_B[:, None]) & (list_BK != PADDING_INDEX)
    return np.where(hit_BK.any(axis=1), hit_BK.argmax(axis=1) + 1, 0).astype(np.int64)


def recall_at_k(position_B: np.ndarray, k: int) -> np.ndarray:
    """Share of the user's targets that are among the first k (with one target this is also the hit rate)."""
    position_BT = _by_target(position_B)
    return np.asarray(_within(position_BT, k).sum(axis=1) / np.maximum(_num_targets(position_BT), 1))


def ndcg_at_k(position_B: np.ndarray, k: int) -> np.ndarray:
    """Sum of `1 / log2(position + 1)` over the targets among the first k, divided by the same sum of an ideal list.

    The ideal list has the user's targets, at most k of them, at its head: for one target the divisor is 1.

    Source: Järvelin and Kekäläinen 2002, with a binary gain.
    """
    position_BT = _by_target(position_B)
    within_BT = _within(position_BT, k)
    gain_B = np.where(within_BT, 1.0 / np.log2(np.where(within_BT, position_BT, 1) + 1.0), 0.0).sum(axis=1)
    ideal_K = np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0))
    # Sums of the same gains in another order differ in the last bit.
    return np.asarray(np.minimum(gain_B / ideal_K[np.clip(_num_targets(position_BT), 1, k) - 1], 1.0))


def mrr_at_k(position_B: np.ndarray, k: int) -> np.ndarray:
    """`1 / position` of the user's first target among the first k, else 0."""
    position_BT = _by_target(position_B)
    within_BT = _within(position_BT, k)
    return np.asarray(np.where(within_BT, 1.0 / np.where(within_BT, position_BT, 1), 0.0).max(axis=1, initial=0.0))


def _by_target(position_B: np.ndarray) -> np.ndarray:
    return position_B if position_B.ndim == 2 else position_B[:, None]


def _num_targets(position_BT: np.ndarray) -> np.ndarray:
    return np.asarray((position_BT != NO_TARGET).sum(axis=1))


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
