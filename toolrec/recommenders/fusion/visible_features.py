"""What a surrogate can see of a candidate, as features: the tools' lists and attribute matches. No torch here.

Shape suffixes: C candidates, T tools, F features, L history length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from toolrec.data import Pool
from toolrec.recommenders.fusion.candidates import Candidates
from toolrec.recommenders.fusion.ranker_features import distances, matches, standard_numbers, value_table
from toolrec.recommenders.fusion.rrf import LIST_LENGTH

SHOWN_HISTORY = 10
"""The last items of the history that a prompt shows by default."""


class VisibleFeatures:
    """Makes the features of one history's candidates.

    Args:
        tools: names of the candidates' first members: those that a surrogate can call.
        pool: gives attribute values, which every item line shows.
    """

    def __init__(self, tools: Sequence[str], pool: Pool) -> None:
        self.tools = tuple(tools)
        self._categories = {
            name: value_table(pool, name) for name, spec in pool.attributes.items() if spec.kind in ("category", "categories")
        }
        self._numbers = {
            name: standard_numbers(pool.numbers(name)) for name, spec in pool.attributes.items() if spec.kind == "number"
        }
        self.names = self._names()

    def _names(self) -> tuple[str, ...]:
        names = [f"{kind}:{tool}" for kind in ("on list", "inverse position", "score in list") for tool in self.tools]
        names += ["lists"]
        for name in self._categories:
            names += [f"match short:{name}", f"match shown:{name}", f"match last:{name}"]
        for name in self._numbers:
            names += [f"distance short:{name}", f"distance shown:{name}", f"missing:{name}"]
        return tuple(names)

    def visible(self, candidates: Candidates) -> Candidates:
        """The candidates on a tool's list of the greatest length that a tool call returns."""
        is_visible_C = (candidates.position_CM[:, : len(self.tools)] <= LIST_LENGTH).any(axis=1)
        return replace(
            candidates,
            item_C=candidates.item_C[is_visible_C],
            standard_CM=candidates.standard_CM[is_visible_C],
            log_share_CM=candidates.log_share_CM[is_visible_C],
            position_CM=candidates.position_CM[is_visible_C],
        )

    def of(self, history_L: np.ndarray, candidates: Candidates) -> np.ndarray:
        """`feature_CF` of visible candidates, in the order of `names`, not yet standardised."""
        position_CT = candidates.position_CM[:, : len(self.tools)]
        on_list_CT = position_CT <= LIST_LENGTH
        columns = [
            *on_list_CT.T.astype(np.float64),
            *np.where(on_list_CT, 1.0 / (10.0 + position_CT), 0.0).T,
            *_scores_in_lists(candidates.standard_CM[:, : len(self.tools)], on_list_CT).T,
            on_list_CT.sum(axis=1).astype(np.float64),
        ]
        shown_L = history_L[-SHOWN_HISTORY:]
        for table in self._categories.values():
            columns += matches(table, shown_L, candidates.item_C)
        for number_I in self._numbers.values():
            columns += distances(number_I, shown_L, candidates.item_C)
        return np.stack(columns, axis=1)


def _scores_in_lists(score_CT: np.ndarray, on_list_CT: np.ndarray) -> np.ndarray:
    """Each tool's scores over the mean and standard deviation of its own list; 0 for items that are not on it.

    Standardised within the list, scores over the pool's mean are what the shown scores give.
    """
    number_T = np.maximum(on_list_CT.sum(axis=0), 1)
    mean_T = np.where(on_list_CT, score_CT, 0.0).sum(axis=0) / number_T
    spread_T = np.sqrt(np.where(on_list_CT, (score_CT - mean_T) ** 2, 0.0).sum(axis=0) / number_T)
    scores_CT: np.ndarray = np.where(on_list_CT, (score_CT - mean_T) / np.where(spread_T > 0, spread_T, 1.0), 0.0)
    return scores_CT
