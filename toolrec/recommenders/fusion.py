"""Reciprocal rank fusion of recommenders' lists: what the tools give together without any LLM. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolrec.errors import ConfigError
from toolrec.recommenders.base import FUSION_CONSTANT, top_k
from toolrec.recommenders.scoring import ScoringRecommender, clean_history
from toolrec.records import RankedItem

LIST_LENGTH = 50
"""How many items of every member's list are fused: the longest list that a tool returns."""


class Fusion(ScoringRecommender):
    """Fuses the members' top lists: an item's score is the sum over lists of `61 / (60 + position)`.

    A first place counts 1, so that rounding to 4 decimals keeps neighbouring positions apart; the order is that of the
    source's `1 / (60 + position)`. Items on no member's list are never recommended: a list can be shorter than k.

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
        return self._fuse(histories, mask_seen=False)

    def _block_lists(self, block: Sequence[np.ndarray], *, k: int, mask_seen: bool) -> list[list[RankedItem]]:
        """Fuses the members' lists, each made with the same `mask_seen`."""
        return top_k(self._fuse(block, mask_seen=mask_seen), k=k)

    def _fuse(self, histories: Sequence[np.ndarray], *, mask_seen: bool) -> np.ndarray:
        score_BI = np.full((len(histories), self.num_items + 1), -np.inf)
        for member in self.members:
            member_lists = member.recommend_many([h.tolist() for h in histories], k=LIST_LENGTH, mask_seen=mask_seen)
            for row, ranked in enumerate(member_lists):
                for position, item in enumerate(ranked, start=1):
                    share = (FUSION_CONSTANT + 1) / (FUSION_CONSTANT + position)
                    before = score_BI[row, item.item_index]
                    score_BI[row, item.item_index] = share if before == -np.inf else before + share
        return score_BI
