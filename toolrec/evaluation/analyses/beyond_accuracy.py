"""Catalogue coverage, novelty, popularity bias and intra-list diversity of each recommender's first items.

Shapes: `B` users, `K` list length, `I` items plus padding, `W` words of 64 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolrec.columns import PADDING_INDEX
from toolrec.data import Dataset, Pool, Split

DEPTH = 10
"""Items of each list that count."""

BLOCK_LISTS = 1024


class BeyondAccuracy:
    """Figures of lists that need no target; built once a run.

    Args:
        dataset: gives training counts and attributes.
        user_indexes: whose lists, in their order.
        split: decides where histories end.
    """

    def __init__(self, dataset: Dataset, user_indexes: Sequence[int], split: Split) -> None:
        self._num_items, self._num_users = dataset.num_items, dataset.num_users
        self.count_I = training_counts(dataset)
        self._information_I = -np.log2((self.count_I + 1.0) / (self._num_users + 1.0))
        histories = (dataset.history(int(user), split) for user in user_indexes)
        self._history_popularity_B = np.array([self.count_I[h].mean() if len(h) else np.nan for h in histories])
        self._distances = _distances(dataset.pool)

    def of(self, list_BK: np.ndarray) -> dict[str, Any]:
        """The figures of one recommender; users with an empty list are left out, empty slots too.

        Returns:
            `catalogue_coverage` (share of the pool on any list), `novelty` (mean bits of an item's training popularity),
            `popularity_lift` (mean popularity of the lists over that of the histories, minus 1), `diversity` (by
            attribute, mean distance of two items of a list: 1 - Jaccard of values, or the difference of quantiles).

        Source: Vargas and Castells 2011 (novelty, diversity); Abdollahpouri et al. 2019 (popularity lift).
        """
        list_BK = list_BK[:, :DEPTH]
        is_item_BK = list_BK != PADDING_INDEX
        is_given_B = is_item_BK.any(axis=1)
        if not is_given_B.any():
            return {"num_lists": 0, "catalogue_coverage": 0.0, "novelty": None, "popularity_lift": None, "diversity": {}}
        list_BK, is_item_BK = list_BK[is_given_B], is_item_BK[is_given_B]
        popularity_B = _mean_by_list(self.count_I[list_BK], is_item_BK)
        known_B = self._history_popularity_B[is_given_B]
        history_popularity = float(np.nanmean(known_B)) if np.isfinite(known_B).any() else 0.0
        return {
            "num_lists": len(list_BK),
            "catalogue_coverage": len(np.unique(list_BK[is_item_BK])) / self._num_items,
            "novelty": float(_mean_by_list(self._information_I[list_BK], is_item_BK).mean()),
            "popularity_lift": float(popularity_B.mean()) / history_popularity - 1 if history_popularity else None,
            "diversity": {name: _mean_distance(list_BK, distance) for name, distance in self._distances.items()},
        }


def training_counts(dataset: Dataset) -> np.ndarray:
    """`count_I`: interactions of each item in the training split."""
    sequences = dataset.train_sequences()
    items = np.concatenate(sequences) if sequences else np.zeros(0, dtype=np.int64)
    return np.bincount(items, minlength=dataset.num_items + 1)


def _mean_by_list(value_BK: np.ndarray, is_item_BK: np.ndarray) -> np.ndarray:
    mean_B: np.ndarray = (value_BK * is_item_BK).sum(axis=1) / is_item_BK.sum(axis=1)
    return mean_B


class _SetDistance:
    """1 - Jaccard of two items' values; values are bits."""

    def __init__(self, pool: Pool, attribute: str) -> None:
        vocabulary, offsets, value_ids = pool.categories(attribute)
        self._bits_IW = np.zeros((pool.num_items + 1, len(vocabulary) // 64 + 1), dtype=np.uint64)
        item_V = np.repeat(np.arange(pool.num_items + 1), np.diff(offsets))
        np.bitwise_or.at(self._bits_IW, (item_V, value_ids // 64), np.uint64(1) << (value_ids % 64).astype(np.uint64))
        self.is_known_I: np.ndarray = (self._bits_IW != 0).any(axis=1)

    def between(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Distances of item indexes."""
        left_bits, right_bits = self._bits_IW[left], self._bits_IW[right]
        shared = np.bitwise_count(left_bits & right_bits).sum(axis=-1, dtype=np.float64)
        total = np.bitwise_count(left_bits | right_bits).sum(axis=-1, dtype=np.float64)
        distance: np.ndarray = 1.0 - shared / np.maximum(total, 1.0)
        return distance


class _NumberDistance:
    """How far two items' numbers are apart, as quantiles of the pool."""

    def __init__(self, pool: Pool, attribute: str) -> None:
        number_I = pool.numbers(attribute)
        self.is_known_I: np.ndarray = np.isfinite(number_I)
        known = np.sort(number_I[self.is_known_I])
        left, right = np.searchsorted(known, number_I, "left"), np.searchsorted(known, number_I, "right")
        self._quantile_I = (left + right) / (2.0 * max(len(known), 1))

    def between(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Distances of item indexes."""
        distance: np.ndarray = np.abs(self._quantile_I[left] - self._quantile_I[right])
        return distance


def _distances(pool: Pool) -> dict[str, _SetDistance | _NumberDistance]:
    """By attribute; free texts have none."""
    distances: dict[str, _SetDistance | _NumberDistance] = {}
    for name, spec in pool.attributes.items():
        if spec.kind == "number":
            distances[name] = _NumberDistance(pool, name)
        elif spec.kind in ("category", "categories"):
            distances[name] = _SetDistance(pool, name)
    return distances


def _mean_distance(list_BK: np.ndarray, distance: _SetDistance | _NumberDistance) -> float | None:
    """The mean over lists of the mean over their pairs of items with a known value; None where there is no pair."""
    left, right = np.triu_indices(list_BK.shape[1], k=1)
    means = []
    for start in range(0, len(list_BK), BLOCK_LISTS):
        block = list_BK[start : start + BLOCK_LISTS]
        is_known = distance.is_known_I[block]
        is_pair = is_known[:, left] & is_known[:, right] & (block[:, left] != PADDING_INDEX) & (block[:, right] != PADDING_INDEX)
        total_B = np.where(is_pair, distance.between(block[:, left], block[:, right]), 0.0).sum(axis=1)
        num_pairs_B = is_pair.sum(axis=1)
        means.append(total_B[num_pairs_B > 0] / num_pairs_B[num_pairs_B > 0])
    mean = np.concatenate(means)
    return float(mean.mean()) if len(mean) else None
