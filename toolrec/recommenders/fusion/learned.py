"""Score fusion and the ranker: the members' candidates in an order that was learned on validation. No torch here.

Shape suffixes: B histories, L history length, C candidates, F features, I items plus padding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolrec.recommenders.base import top_k
from toolrec.recommenders.fusion.candidates import Candidates, CandidateSource
from toolrec.recommenders.fusion.listwise import ListwiseModel
from toolrec.recommenders.fusion.ranker_features import RankerFeatures
from toolrec.recommenders.fusion.visible_features import VisibleFeatures
from toolrec.recommenders.scoring import ScoringRecommender, clean_history
from toolrec.records import RankedItem

FUSION = "fusion"
SCORE_FUSION = "score_fusion"
RANKER = "ranker"
TOOLS_RANKER = "tools_ranker"
LEARNED = (SCORE_FUSION, RANKER, TOOLS_RANKER)
"""The fusions that are fitted and stored; `FUSION`, by reciprocal ranks, needs neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedFusions:
    """The learned fusions of a folder by name, and which fusion, learned or not, was best on validation."""

    by_name: Mapping[str, LearnedFusion]
    strongest: str


class LearnedFusion(ScoringRecommender):
    """Orders what the members list. Items that are no candidates are never recommended: a list can be shorter than k.

    A history without items gets the popular ones.

    Args:
        source: of the candidates; share one between fusions, so that members score a history once.
        model: the learned order.
        count_I: the training split's counts, for histories without items.
    """

    def __init__(self, name: str, *, source: CandidateSource, model: ListwiseModel, count_I: np.ndarray) -> None:
        super().__init__(name, num_items=source.num_items)
        self.source, self.model = source, model
        self._count_I = np.asarray(count_I, dtype=np.float64)

    @abstractmethod
    def features(self, history_L: np.ndarray, candidates: Candidates) -> np.ndarray:
        """`feature_CF` of one history's candidates."""

    def choices(self, candidates: Candidates) -> Candidates:
        """The candidates that are ordered: all, unless a fusion knows fewer."""
        return candidates

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores of the unmasked candidates; -inf for all other items."""
        return self._score([clean_history(row, num_items=self.num_items) for row in history_BL], mask_seen=False)

    def _block_lists(self, block: Sequence[np.ndarray], *, k: int, mask_seen: bool) -> list[list[RankedItem]]:
        """The best candidates of each history, the candidates made with the same `mask_seen`."""
        return top_k(self._score(block, mask_seen=mask_seen), k=k)

    def _score(self, histories: Sequence[np.ndarray], *, mask_seen: bool) -> np.ndarray:
        score_BI = np.full((len(histories), self.num_items + 1), -np.inf)
        filled = [row for row, history in enumerate(histories) if len(history)]
        found = self.source.of([histories[row] for row in filled], mask_seen=mask_seen)
        for row, candidates in zip(filled, map(self.choices, found), strict=True):
            if len(candidates.item_C):
                score_BI[row, candidates.item_C] = self.model.score(self.features(histories[row], candidates))
        for row in set(range(len(histories))) - set(filled):
            score_BI[row, 1:] = self._count_I[1:]
        return score_BI


class ScoreFusion(LearnedFusion):
    """A weighted sum of the tools' scores, each as the logarithm of its softmax.

    Args:
        num_tools: the source's first members that take part.
    """

    def __init__(self, *, num_tools: int, source: CandidateSource, model: ListwiseModel, count_I: np.ndarray) -> None:
        super().__init__(SCORE_FUSION, source=source, model=model, count_I=count_I)
        self.num_tools = num_tools

    def features(self, history_L: np.ndarray, candidates: Candidates) -> np.ndarray:
        """The tools' shares."""
        return score_fusion_features(candidates, num_tools=self.num_tools)


class Ranker(LearnedFusion):
    """A small network over all members' scores, item statistics and attribute matches.

    It knows more than a surrogate can: the neighbours' lists, lists of 100, counts of the training sequences.

    Args:
        maker: of the features, with the source's members.
    """

    def __init__(self, *, maker: RankerFeatures, source: CandidateSource, model: ListwiseModel, count_I: np.ndarray) -> None:
        super().__init__(RANKER, source=source, model=model, count_I=count_I)
        self.maker = maker

    def features(self, history_L: np.ndarray, candidates: Candidates) -> np.ndarray:
        """All that the maker knows."""
        return self.maker.of(history_L, candidates)


class ToolsRanker(LearnedFusion):
    """A small network over exactly what a surrogate could see: the tools' lists of 50, its own last items, attributes.

    Args:
        maker: of the features.
    """

    def __init__(self, *, maker: VisibleFeatures, source: CandidateSource, model: ListwiseModel, count_I: np.ndarray) -> None:
        super().__init__(TOOLS_RANKER, source=source, model=model, count_I=count_I)
        self.maker = maker

    def choices(self, candidates: Candidates) -> Candidates:
        """What stands on a tool's longest list."""
        return self.maker.visible(candidates)

    def features(self, history_L: np.ndarray, candidates: Candidates) -> np.ndarray:
        """All that is visible."""
        return self.maker.of(history_L, candidates)


def score_fusion_features(candidates: Candidates, *, num_tools: int) -> np.ndarray:
    """`feature_CF`: logarithms of the first members' softmax."""
    return candidates.log_share_CM[:, :num_tools]
