"""Reciprocal rank fusion: what the tools' lists give together without an LLM. No torch here.

Shape suffixes: B histories, L history length, I items plus padding, C items on any list, M lists.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolrec.errors import ConfigError
from toolrec.recommenders.scoring import ScoringRecommender, clean_history
from toolrec.records import RankedItem

LIST_LENGTH = 50
"""How many items of every member's list are fused: the longest list that a tool returns."""

CONSTANT = 60
"""The constant of Cormack, Clarke and Büttcher, SIGIR 2009."""

FUSED_DECIMALS = 12
"""Fused scores are rounded to this many decimals: sums of the same numbers in another order stay equal."""


def reciprocal_rank_scores(position_CM: np.ndarray) -> np.ndarray:
    """`score_C`: for each item the sum of `1 / (60 + position)` over the lists, rounded to 12 decimals.

    Args:
        position_CM: each item's 1-based position in each list; 0 where it is not on the list.

    Source: Cormack, Clarke and Büttcher, SIGIR 2009.
    """
    share_CM = np.where(position_CM > 0, 1.0 / (CONSTANT + position_CM), 0.0)
    score_C: np.ndarray = np.round(share_CM.sum(axis=1), FUSED_DECIMALS)
    return score_C


def reciprocal_rank_fusion(lists: Sequence[Sequence[int]]) -> list[RankedItem]:
    """Fuses lists of item indexes, each best first; every item of any list, best first, ties by item index.

    An item that a list names twice counts at its first position there.
    """
    item_C = np.array(sorted({item for items in lists for item in items}), dtype=np.int64)
    row_of = {int(item): row for row, item in enumerate(item_C)}
    position_CM = np.zeros((len(item_C), len(lists)), dtype=np.int64)
    for column, items in enumerate(lists):
        for position, item in enumerate(dict.fromkeys(items), start=1):
            position_CM[row_of[int(item)], column] = position
    score_C = reciprocal_rank_scores(position_CM)
    order = np.argsort(-score_C, kind="stable")  # item_C ascends: ties keep the order of the index
    return [RankedItem(item_index=int(item_C[row]), score=float(score_C[row])) for row in order]


class Fusion(ScoringRecommender):
    """Fuses the members' top lists by reciprocal ranks.

    Items on no member's list are never recommended: a list can be shorter than k.

    Args:
        members: the backbone and the attribute tools' recommenders.
    """

    def __init__(self, members: Sequence[ScoringRecommender], *, name: str = "fusion") -> None:
        if not members:
            raise ConfigError("a fusion needs at least one member")
        super().__init__(name, num_items=members[0].num_items)
        self.members = tuple(members)

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Fused scores of the members' unmasked lists; -inf for items on none of them."""
        histories = [clean_history(row, num_items=self.num_items) for row in history_BL]
        score_BI = np.full((len(histories), self.num_items + 1), -np.inf)
        for row, ranked in enumerate(self._fused(histories, mask_seen=False)):
            score_BI[row, [item.item_index for item in ranked]] = [item.score for item in ranked]
        return score_BI

    def _block_lists(self, block: Sequence[np.ndarray], *, k: int, mask_seen: bool) -> list[list[RankedItem]]:
        """Fuses the members' lists, each made with the same `mask_seen`."""
        return [ranked[:k] for ranked in self._fused(block, mask_seen=mask_seen)]

    def _fused(self, histories: Sequence[np.ndarray], *, mask_seen: bool) -> list[list[RankedItem]]:
        asked = [history.tolist() for history in histories]
        by_member = [member.recommend_many(asked, k=LIST_LENGTH, mask_seen=mask_seen) for member in self.members]
        return [
            reciprocal_rank_fusion([[item.item_index for item in ranked] for ranked in lists])
            for lists in zip(*by_member, strict=True)
        ]
