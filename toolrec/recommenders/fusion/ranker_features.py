"""What the learned ranker knows of a candidate: members' scores, popularity, what follows what, attribute matches. No torch here.

Shape suffixes: C candidates, M members, F features, L history length, I items plus padding, V attribute values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from toolrec.data import Pool
from toolrec.recommenders.fusion.candidates import Candidates
from toolrec.recommenders.fusion.item_tables import ItemTables
from toolrec.recommenders.fusion.neighbours import decayed_rows

SHORT_ITEMS = 5
"""The last items of a history that make its short profile; the long one is of all of them."""

SMALL = 1e-4


class RankerFeatures:
    """Makes the features of one history's candidates.

    Args:
        member_names: the members in the order of the candidates' columns.
        tables: of the training split.
        pool: gives attribute values.
    """

    def __init__(self, member_names: Sequence[str], tables: ItemTables, pool: Pool) -> None:
        self.member_names = tuple(member_names)
        self.tables = tables
        self._log_count_I = np.log1p(tables.count_I)
        self._following_I = np.maximum(np.asarray(tables.next_II.sum(axis=1)).ravel(), 1.0)
        self._categories: dict[str, Any] = {}
        self._numbers: dict[str, np.ndarray] = {}
        for name, spec in pool.attributes.items():
            if spec.kind == "number":
                self._numbers[name] = standard_numbers(pool.numbers(name))
            elif spec.kind != "text":  # a text is known by its encoder's score alone
                self._categories[name] = value_table(pool, name)
        self.names = self._names()

    def _names(self) -> tuple[str, ...]:
        names = [f"{kind}:{member}" for kind in ("standard", "log share", "inverse position") for member in self.member_names]
        names += ["count", "next 1", "next 2", "next 3", "near", "around", "around all", "place", "place distance", "length"]
        for name in self._categories:
            names += [f"match short:{name}", f"match long:{name}", f"match last:{name}"]
        for name in self._numbers:
            names += [f"distance short:{name}", f"distance long:{name}", f"missing:{name}"]
        return tuple(names)

    def of(self, history_L: np.ndarray, candidates: Candidates) -> np.ndarray:
        """`feature_CF` of a history that is not empty, in the order of `names`, not yet standardised."""
        columns = [
            *candidates.standard_CM.T,
            *candidates.log_share_CM.T,
            *(1.0 / (10.0 + candidates.position_CM.T)),
            *self._item_columns(history_L, candidates.item_C),
        ]
        for table in self._categories.values():
            columns += matches(table, history_L, candidates.item_C)
        for number_I in self._numbers.values():
            columns += distances(number_I, history_L, candidates.item_C)
        return np.stack(columns, axis=1)

    def _item_columns(self, history_L: np.ndarray, item_C: np.ndarray) -> list[np.ndarray]:
        tables = self.tables
        columns = [self._log_count_I[item_C]]
        for back in (1, 2, 3):
            if len(history_L) < back:
                columns.append(np.zeros(len(item_C)))
                continue
            last = history_L[-back]
            count_C = _row_at(tables.next_II, last, item_C)
            columns.append(np.log(SMALL + count_C / self._following_I[last]))
        columns.append(np.log(SMALL + decayed_rows(tables.near_II, history_L, scale_I=1.0 / self._following_I)[item_C]))
        columns.append(np.log(SMALL + decayed_rows(tables.around_II, history_L)[item_C]))
        all_I = np.zeros(len(tables.count_I))
        for item in history_L[-100:]:
            row = slice(tables.around_II.indptr[item], tables.around_II.indptr[item + 1])
            all_I[tables.around_II.indices[row]] += tables.around_II.data[row]
        columns.append(np.log(SMALL + all_I[item_C] / len(history_L[-100:])))
        gap_C = (np.log(len(history_L) + 1.0) - tables.place_I[item_C]) / tables.place_spread_I[item_C]
        columns += [gap_C, np.abs(gap_C), np.full(len(item_C), np.log(len(history_L)))]
        return columns


def _row_at(table: Any, row: int, item_C: np.ndarray) -> np.ndarray:
    dense = np.zeros(table.shape[1])
    place = slice(table.indptr[row], table.indptr[row + 1])
    dense[table.indices[place]] = table.data[place]
    at_C: np.ndarray = dense[item_C]
    return at_C


def value_table(pool: Pool, attribute: str) -> Any:
    """Every item's values as rows of length 1, rarer values weighing more, CSR `[I, V]`."""
    vocabulary, offsets, value_ids = pool.categories(attribute)
    holders_V = np.bincount(value_ids, minlength=len(vocabulary))
    weight_V = np.log((pool.num_items + 1) / (holders_V + 1.0))
    shape = (pool.num_items + 1, len(vocabulary))
    table = sparse.csr_array((weight_V[value_ids] + 1e-9, value_ids.astype(np.int64), offsets.astype(np.int64)), shape=shape)
    norm = np.sqrt(np.asarray((table * table).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(norm, 1e-9)) @ table)


def matches(table: Any, history_L: np.ndarray, item_C: np.ndarray) -> list[np.ndarray]:
    """Cosines between a candidate's values and those of the last few items, of all, and of the last one."""
    owner_E, value_E, weight_E = _entries(table, item_C)
    columns = []
    for part, decay in ((history_L[-SHORT_ITEMS:], 0.7), (history_L[-200:], 0.99), (history_L[-1:], 1.0)):
        weights = decay ** np.arange(len(part))[::-1]
        place_P, value_P, weight_P = _entries(table, part)
        profile_V = np.bincount(value_P, weights=weights[place_P] * weight_P, minlength=table.shape[1]) / weights.sum()
        columns.append(np.bincount(owner_E, weights=weight_E * profile_V[value_E], minlength=len(item_C)))
    return columns


def _entries(table: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of some rows: each one's place in `rows`, column and value. SciPy's own indexing takes ten times as long."""
    start, length = table.indptr[rows], table.indptr[rows + 1] - table.indptr[rows]
    owner_E = np.repeat(np.arange(len(rows)), length)
    entry_E = np.arange(len(owner_E)) + np.repeat(start - (np.cumsum(length) - length), length)
    return owner_E, table.indices[entry_E], table.data[entry_E]


def standard_numbers(number_I: np.ndarray) -> np.ndarray:
    """Numbers as their quantile in the pool, NaN where missing."""
    known = np.sort(number_I[1:][np.isfinite(number_I[1:])])
    place_I = np.full(len(number_I), np.nan)
    is_known = np.isfinite(number_I)
    if len(known):
        left, right = np.searchsorted(known, number_I[is_known], "left"), np.searchsorted(known, number_I[is_known], "right")
        place_I[is_known] = (left + right) / (2.0 * len(known))
    return place_I


def distances(number_I: np.ndarray, history_L: np.ndarray, item_C: np.ndarray) -> list[np.ndarray]:
    """Mean distances of a candidate's number to those of the last few items and of many; 0 where either is missing."""
    number_C = number_I[item_C]
    missing_C = np.isnan(number_C)
    columns = []
    for part, decay in ((history_L[-SHORT_ITEMS:], 0.7), (history_L[-50:], 0.95)):
        number_L = number_I[part]
        weights = decay ** np.arange(len(part))[::-1] * np.isfinite(number_L)
        distance_C = np.abs(number_C[:, None] - np.nan_to_num(number_L)[None, :]) @ weights / max(weights.sum(), 1e-9)
        columns.append(np.where(missing_C, 0.0, distance_C))
    return [*columns, missing_C.astype(np.float64)]
