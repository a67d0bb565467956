"""What training sequences say of items: counts, what follows what, and at which place of a history. No torch here.

Shape suffixes: I items plus padding, N interactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from toolrec.recommenders.popularity import count_items

NEAR_WINDOW = 10
"""How many places apart two items of a sequence still count as one following the other."""

AROUND_WINDOW = 40
"""How many places apart two items of a sequence still count as standing together."""

MAX_NEIGHBOURS = 1000
"""Neighbours kept of an item in each table, those with the highest counts: memory grows with items, not with pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTables:
    """Statistics of the training split; the same sequences give the same tables.

    Args:
        count_I: interactions of every item.
        next_II: how often the column's item came directly after the row's, CSR.
        near_II: the same within `NEAR_WINDOW` places, each pair by the inverse of its distance, CSR.
        around_II: how often both stand within `AROUND_WINDOW` places, over the root of both counts (a cosine), CSR.
        place_I: mean logarithm of the item's place in histories; the mean over all items where it never stands.
        place_spread_I: standard deviation of that logarithm, drawn towards that of all items for rare ones.
    """

    count_I: np.ndarray
    next_II: Any
    near_II: Any
    around_II: Any
    place_I: np.ndarray
    place_spread_I: np.ndarray


def item_tables(sequences: Sequence[np.ndarray], *, num_items: int) -> ItemTables:
    """Counts the training sequences, oldest first."""
    flat_N = np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences]) if sequences else np.zeros(0, np.int64)
    length = [len(s) for s in sequences]
    owner_N = np.repeat(np.arange(len(sequences)), length)
    place_N = np.concatenate([np.arange(1, n + 1) for n in length]) if length else np.zeros(0, np.int64)
    count_I = count_items(sequences, num_items=num_items)
    place_I, place_spread_I = _places(flat_N, np.log(place_N), count_I)
    inverse_I = 1.0 / np.sqrt(np.maximum(count_I, 1.0))
    around = _pairs(flat_N, owner_N, [1.0] * AROUND_WINDOW, num_items)
    scale = sparse.diags_array(inverse_I)
    return ItemTables(
        count_I=count_I,
        next_II=_pruned(_pairs(flat_N, owner_N, [1.0], num_items)),
        near_II=_pruned(_pairs(flat_N, owner_N, [1.0 / gap for gap in range(1, NEAR_WINDOW + 1)], num_items)),
        around_II=_pruned(sparse.csr_array(scale @ (around + around.T) @ scale)),
        place_I=place_I,
        place_spread_I=place_spread_I,
    )


def _pairs(flat_N: np.ndarray, owner_N: np.ndarray, weights: Sequence[float], num_items: int) -> Any:
    """Sums, over distances 1, 2, …, of how often the column's item stands that far behind the row's."""
    shape = (num_items + 1, num_items + 1)
    total = sparse.csr_array(shape, dtype=np.float64)
    for gap, weight in enumerate(weights, start=1):
        same = owner_N[:-gap] == owner_N[gap:]
        if not same.any():
            break
        rows, columns = flat_N[:-gap][same], flat_N[gap:][same]
        total = total + sparse.coo_array((np.full(len(rows), weight), (rows, columns)), shape=shape).tocsr()
        if total.nnz > 2 * MAX_NEIGHBOURS * num_items:
            total = _pruned(total)
    return total


def _pruned(table: Any) -> Any:
    """The table with at most `MAX_NEIGHBOURS` entries a row: the highest, ties by column."""
    table.sort_indices()
    entries = np.diff(table.indptr)
    if entries.max(initial=0) <= MAX_NEIGHBOURS:
        return table
    row_of = np.repeat(np.arange(table.shape[0]), entries)
    order = np.lexsort((table.indices, -table.data, row_of))
    rank = np.arange(len(order)) - table.indptr[row_of[order]]
    kept = np.sort(order[rank < MAX_NEIGHBOURS])
    return sparse.csr_array((table.data[kept], (row_of[kept], table.indices[kept])), shape=table.shape)


def _places(flat_N: np.ndarray, log_place_N: np.ndarray, count_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(flat_N):
        return np.zeros(len(count_I)), np.ones(len(count_I))
    mean, spread = float(log_place_N.mean()), float(log_place_N.std()) or 1.0
    prior = 5.0  # interactions' worth of trust in what all items have
    total_I = np.bincount(flat_N, weights=log_place_N, minlength=len(count_I))
    place_I = (total_I + prior * mean) / (count_I + prior)
    square_I = np.bincount(flat_N, weights=(log_place_N - place_I[flat_N]) ** 2, minlength=len(count_I))
    return place_I, np.sqrt((square_I + prior * spread**2) / (count_I + prior))
