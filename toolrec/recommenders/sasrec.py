"""SASRec: the sequential backbone, trained on whole sequences, and as a recommender.

Shape suffixes: B users in the batch, L history length, D width, I items plus padding, T positions with a target.

Source:
    Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). We differ: pre-norm layers with a
    four times wider GELU feed-forward part, and a softmax loss in place of binary cross-entropy with one negative.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn

from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.scoring import ScoringRecommender, clean_history
from toolrec.recommenders.transformer import CausalTransformer

KEPT_STATES = 8192
"""Histories whose backbone state is kept: about 10 MB at width 128."""


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

    Histories go through the model one by one: on a CPU that is as fast as padded batches, and a list cannot depend on what
    else is in the batch. Inference is in float64, and scores are rounded to 4 decimals when they become a list: another
    number of threads changes bits far below that. A history without items gets the training split's popularity.

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
    def last_state(self, history_L: np.ndarray) -> Tensor:
        """State of a history of 1 to `model_history_length` items, float64 `[1, D]`."""

    @torch.inference_mode()
    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item: float64 `[B, num_items + 1]`, column 0 is -inf.

        Raises:
            DataError: an index is not in the pool.
        """
        score_BI = np.empty((len(history_BL), self.num_items + 1))
        for row, history in enumerate(history_BL):
            history_L = clean_history(history, num_items=self.num_items)[-self.model_history_length :]
            if len(history_L):
                score_BI[row] = (self.last_state(history_L) @ self.item_DI)[0].cpu().numpy()
            else:
                score_BI[row] = self.popularity_I
        score_BI[:, 0] = -np.inf
        return score_BI


class SASRec(StateRecommender):
    """The plain backbone as a recommender.

    It keeps the states of the last `KEPT_STATES` histories: every attribute encoder, the fusion and a repeated call with
    another k start from the same state.

    Args:
        model: a trained model; it is moved to float64 and frozen.
    """

    def __init__(self, model: SASRecModel, *, popularity_I: np.ndarray, name: str = "backbone", device: str = "cpu") -> None:
        self.model = model.to(device=device, dtype=torch.float64).eval().requires_grad_(False)
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        super().__init__(
            name,
            weight_ID=self.model.item.weight,
            popularity_I=popularity_I,
            model_history_length=len(self.model.transformer.position),
        )

    @torch.inference_mode()
    def last_state(self, history_L: np.ndarray) -> Tensor:
        """The backbone's state of a history."""
        key = hashlib.blake2b(np.ascontiguousarray(history_L).tobytes(), digest_size=16).digest()
        state = self._kept.get(key)
        if state is None:
            state = self.model.last(*as_row(history_L, self.item_DI.device))
            self._kept[key] = state
            if len(self._kept) > KEPT_STATES:
                self._kept.popitem(last=False)
        return state


def as_row(history_L: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """One history as a batch of one, and its last position."""
    history_1L = torch.from_numpy(history_L.astype(np.int64)).unsqueeze(0)
    return history_1L.to(device), torch.tensor([len(history_L) - 1], device=device)
