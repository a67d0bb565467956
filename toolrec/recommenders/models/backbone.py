"""What the backbones share: the network's outline, and a trained one as a recommender.

Shape suffixes: B users in the batch, L history length, D width, I items plus padding.
"""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolrec.recommenders.base import top_k
from toolrec.recommenders.config import BackboneKind, TransformerConfig
from toolrec.recommenders.models.transformer import Transformer
from toolrec.recommenders.scoring import ScoringRecommender, clean_history
from toolrec.recommenders.search import best_items
from toolrec.recommenders.training.batches import Example
from toolrec.recommenders.training.validation import pad_last
from toolrec.records import RankedItem

KEPT_STATES = 8192
"""Histories whose backbone state is kept: about 10 MB at width 128."""

GROUP_HISTORIES = 8
"""Histories that go through a model together at most."""

GROUP_STRETCH = 1.25
"""How many times as long as the shortest of a group its longest history may be."""


class BackboneModel(nn.Module, ABC):
    """Item embeddings, a Transformer, and inner products with the same item embeddings.

    Args:
        num_tokens: rows of the embedding after padding: the items, and what a model reads besides them.
        max_length: positions of the Transformer.
        is_causal: whether a position sees only what stands before it.
    """

    kind: BackboneKind
    """How checkpoints call it."""

    mask_index: int | None = None
    """What it reads at masked positions; None for a model that knows no masks."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        num_items: int,
        num_tokens: int,
        model_history_length: int,
        max_length: int,
        is_causal: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_items, self.model_history_length = num_items, model_history_length
        self.item = nn.Embedding(num_tokens + 1, config.width, padding_idx=0)
        self.transformer = Transformer(config, max_length=max_length, is_causal=is_causal)
        nn.init.normal_(self.item.weight, std=config.width**-0.5)
        with torch.no_grad():
            self.item.weight[0].zero_()

    @property
    def weight_ID(self) -> Tensor:
        """Embeddings of padding and the items: what states are scored against."""
        return self.item.weight[: self.num_items + 1]

    @property
    def is_causal(self) -> bool:
        """Whether a position sees only what stands before it."""
        return self.transformer.is_causal

    @property
    def max_length(self) -> int:
        """Positions that the Transformer has."""
        return len(self.transformer.position)

    def forward(self, input_BL: Tensor) -> Tensor:
        """States of every position, `[B, L, D]`."""
        states_BLD: Tensor = self.transformer(self.item(input_BL), input_BL)
        return states_BLD

    def at(self, input_BL: Tensor, wanted_BL: Tensor) -> Tensor:
        """States of the wanted positions, row by row, `[T, D]`."""
        return self.transformer.at(self.item(input_BL), input_BL, wanted_BL)

    def last(self, input_BL: Tensor, last_B: Tensor) -> Tensor:
        """States of the positions `last_B` of a query, `[B, D]`."""
        return self.transformer.last(self.item(input_BL), input_BL, last_B)

    def query(self, history_BL: Tensor, last_B: Tensor) -> tuple[Tensor, Tensor]:
        """What is read to find the item that follows right-padded histories, and the position where the answer stands."""
        return query_of(history_BL, last_B, mask_index=self.mask_index)

    @abstractmethod
    def examples(self, sequences: Sequence[np.ndarray], *, rng: np.random.Generator, mask_share: float) -> list[Example]:
        """One epoch's training examples, cut and masked anew."""

    @abstractmethod
    def fixed_examples(self, sequences: Sequence[np.ndarray], *, mask_share: float) -> list[Example]:
        """Examples in which every item but a sequence's first is a target, the same at every call: for frozen states."""


def query_of(history_BL: Tensor, last_B: Tensor, *, mask_index: int | None) -> tuple[Tensor, Tensor]:
    """The histories themselves, whose last position answers; or, with a mask after their last item, that mask's position."""
    if mask_index is None:
        return history_BL, last_B
    asked_B = last_B + 1
    return F.pad(history_BL, (0, 1)).scatter(1, asked_B[:, None], mask_index), asked_B


class StateRecommender(ScoringRecommender):
    """A recommender that scores by inner products of a history's state with frozen item embeddings.

    Histories of about the same length go through the model together. Inference is in float64, and scores are rounded to 4
    decimals when they become a list: what else is in the batch, and another number of threads, change bits far below that.
    A history without items gets the training split's popularity.

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
    def states(self, histories: Sequence[np.ndarray]) -> Tensor:
        """States of histories of 1 to `model_history_length` items each, float64 `[B, D]`."""

    @torch.inference_mode()
    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item: float64 `[B, num_items + 1]`, column 0 is -inf.

        Raises:
            DataError: an index is not in the pool.
        """
        score_BI = np.empty((len(history_BL), self.num_items + 1))
        cleaned = [clean_history(history, num_items=self.num_items)[-self.model_history_length :] for history in history_BL]
        is_known_B = np.array([len(history_L) > 0 for history_L in cleaned], dtype=bool)
        score_BI[~is_known_B] = self.popularity_I
        if is_known_B.any():
            state_BD = self.states([history_L for history_L in cleaned if len(history_L)])
            score_BI[is_known_B] = (state_BD @ self.item_DI).cpu().numpy()
        score_BI[:, 0] = -np.inf
        return score_BI

    def _block_lists(self, block: Sequence[np.ndarray], *, k: int, mask_seen: bool) -> list[list[RankedItem]]:
        """Memory grows with the block of users times a block of items, not with the pool."""
        known = [h for h in block if len(h)]
        ranked = iter(self._best(known, k=k, mask_seen=mask_seen) if known else [])
        return [next(ranked) if len(h) else self._popular(k) for h in block]

    @torch.inference_mode()
    def _best(self, histories: Sequence[np.ndarray], *, k: int, mask_seen: bool) -> list[list[RankedItem]]:
        state_BD = self.states([h[-self.model_history_length :] for h in histories])
        return best_items(state_BD, self.item_DI, k=k, seen=histories if mask_seen else None)

    def _popular(self, k: int) -> list[RankedItem]:
        score_1I = self.popularity_I[None].copy()
        score_1I[:, 0] = -np.inf
        return top_k(score_1I, k=k)[0]


class Backbone(StateRecommender):
    """The plain backbone as a recommender.

    It keeps the states of the last `KEPT_STATES` histories: every attribute encoder, the fusion and a repeated call with
    another k start from the same state.

    Args:
        model: a trained model; it is moved to float64 and frozen.
    """

    def __init__(self, model: BackboneModel, *, popularity_I: np.ndarray, name: str = "backbone", device: str = "cpu") -> None:
        self.model = model.to(device=device, dtype=torch.float64).eval().requires_grad_(False)
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        super().__init__(
            name, weight_ID=model.weight_ID, popularity_I=popularity_I, model_history_length=model.model_history_length
        )

    @torch.inference_mode()
    def states(self, histories: Sequence[np.ndarray]) -> Tensor:
        """The backbone's states of histories."""
        keys = [hashlib.blake2b(np.ascontiguousarray(history_L).tobytes(), digest_size=16).digest() for history_L in histories]
        # One look at each: another thread may drop what is kept.
        found = {key: state for key in keys if (state := self._kept.get(key)) is not None}
        missing = {key: history_L for key, history_L in zip(keys, histories, strict=True) if key not in found}
        if missing:
            state_BD = in_groups(list(missing.values()), self._group_states)
            found.update(zip(missing, state_BD, strict=True))
        for key in missing:
            self._kept[key] = found[key].clone()  # not the whole block's memory
        with contextlib.suppress(KeyError):  # another thread was quicker at the last one
            while len(self._kept) > KEPT_STATES:
                self._kept.popitem(last=False)
        return torch.stack([found[key] for key in keys])

    def queries(self, histories: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """What the model reads for right-padded histories, and the positions of its answers."""
        device = self.item_DI.device
        history_BL, last_B = pad_last(histories, model_history_length=self.model_history_length)
        return self.model.query(history_BL.to(device), last_B.to(device))

    def _group_states(self, group: Sequence[np.ndarray], rows: Sequence[int]) -> Tensor:
        return self.model.last(*self.queries(group))


def in_groups(histories: Sequence[np.ndarray], states_of: Callable[[Sequence[np.ndarray], Sequence[int]], Tensor]) -> Tensor:
    """States of histories, taken together in groups of about the same length.

    On a CPU a group takes two thirds of the time of its histories one by one, and padding to the longest of all more than that.

    Args:
        states_of: the states of a group, `[group, D]`, from its histories and their rows among all.
    """
    order = sorted(range(len(histories)), key=lambda row: len(histories[row]))
    groups = [[order[0]]]
    for row in order[1:]:
        group = groups[-1]
        if len(group) < GROUP_HISTORIES and len(histories[row]) <= GROUP_STRETCH * len(histories[group[0]]) + 1:
            group.append(row)
        else:
            groups.append([row])
    grouped_BD = torch.cat([states_of([histories[row] for row in group], group) for group in groups])
    state_BD = torch.empty_like(grouped_BD)
    state_BD[torch.tensor(order, device=grouped_BD.device)] = grouped_BD
    return state_BD
