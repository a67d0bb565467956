"""SASRec: the sequential backbone, trained on whole sequences, and as a recommender.

Shape suffixes: B users in the batch, L history length, D width, I items plus padding, T positions with a target.

Source:
    Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). We differ: pre-norm layers with a
    four times wider GELU feed-forward part, and a softmax loss in place of binary cross-entropy with one negative.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.scoring import ScoringRecommender, clean_history
from toolrec.recommenders.transformer import CausalTransformer
from toolrec.recommenders.validation import pad_last


class SASRecModel(nn.Module):
    """Item embeddings, a causal Transformer, and inner products with the same item embeddings."""

    def __init__(self, config: TransformerConfig, *, num_items: int, model_history_length: int) -> None:
        super().__init__()
        self.item = nn.Embedding(num_items + 1, config.width, padding_idx=0)
        self.transformer = CausalTransformer(config, max_length=model_history_length)
        nn.init.normal_(self.item.weight, std=config.width**-0.5)
        with torch.no_grad():
            self.item.weight[0].zero_()

    def forward(self, history_BL: Tensor) -> Tensor:
        """States of every position, `[B, L, D]`."""
        state_BLD: Tensor = self.transformer(self.item(history_BL))
        return state_BLD

    def last(self, history_BL: Tensor, last_B: Tensor) -> Tensor:
        """States of the positions `last_B`, `[B, D]`."""
        return self.transformer.last(self.item(history_BL), last_B)


class StateRecommender(ScoringRecommender):
    """A recommender that scores by inner products of a history's state with frozen item embeddings.

    Inference is in float64, and scores are rounded to 4 decimals when they become a list: batches of any size, padding and
    the number of threads change bits far below that. A history without items gets the training split's popularity.

    Args:
        weight_ID: item embeddings.
        popularity_I: training counts, for histories without items.
        model_history_length: how many last items are read.
    """

    def __init__(self, name: str, *, weight_ID: Tensor, popularity_I: np.ndarray, model_history_length: int) -> None:
        super().__init__(name, num_items=len(weight_ID) - 1)
        self.item_DI = weight_ID.T
        self.popularity_I = np.asarray(popularity_I, dtype=np.float64)
        self.model_history_length = model_history_length

    @abstractmethod
    def last_state(self, history_BL: Tensor, last_B: Tensor) -> Tensor:
        """States of the last positions, float64 `[B, D]`."""

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item: float64 `[B, num_items + 1]`, column 0 is -inf.

        Raises:
            DataError: an index is not in the pool.
        """
        histories = [clean_history(row, num_items=self.num_items) for row in history_BL]
        score_BI = np.empty((len(histories), self.num_items + 1))
        rows = [row for row, history in enumerate(histories) if len(history)]
        if len(rows) < len(histories):
            score_BI[:] = self.popularity_I
        if rows:
            score_BI[rows] = self._score_real([histories[row] for row in rows])
        score_BI[:, 0] = -np.inf
        return score_BI

    @torch.inference_mode()
    def _score_real(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        device = self.item_DI.device
        history_BL, last_B = pad_last(histories, model_history_length=self.model_history_length)
        state_BD = self.last_state(history_BL.to(device), last_B.to(device))
        score_BI: np.ndarray = (state_BD @ self.item_DI).cpu().numpy()
        return score_BI


class SASRec(StateRecommender):
    """The plain backbone as a recommender.

    Args:
        model: a trained model; it is moved to float64 and frozen.
    """

    def __init__(self, model: SASRecModel, *, popularity_I: np.ndarray, name: str = "backbone", device: str = "cpu") -> None:
        self.model = model.to(device=device, dtype=torch.float64).eval().requires_grad_(False)
        super().__init__(
            name,
            weight_ID=self.model.item.weight,
            popularity_I=popularity_I,
            model_history_length=len(self.model.transformer.position),
        )

    def last_state(self, history_BL: Tensor, last_B: Tensor) -> Tensor:
        """The backbone's states of the last positions."""
        return self.model.last(history_BL, last_B)
