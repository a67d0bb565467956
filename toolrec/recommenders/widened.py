"""A trained backbone over a pool that was widened with invented items: what a list costs, and loses, in a larger pool.

Shape suffixes: I items plus padding, D width, N invented items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from toolrec.errors import ConfigError
from toolrec.recommenders.models.backbone import Backbone, StateRecommender

BLOCK_ITEMS = 65_536
"""Items that are invented at a time."""


class WidenedPool(StateRecommender):
    """The backbone's lists where the pool has further items that nobody asked for.

    An invented item lies between two real ones, drawn with replacement: so do its scores. Items elsewhere in the space would
    win everywhere, for training pushes all real items away from what users like on average. Histories and targets are real;
    whatever the invented items take from a list is lost.

    Args:
        num_items: of the widened pool; the real items keep their indexes.
        seed: of the invented items; those of a smaller pool are the first of a larger one.

    Raises:
        ConfigError: the real pool is larger.
    """

    def __init__(self, backbone: Backbone, num_items: int, *, seed: int = 0) -> None:
        if num_items < backbone.num_items:
            raise ConfigError("a widened pool cannot have fewer items", value=num_items, allowed=f"from {backbone.num_items}")
        self._backbone = backbone
        super().__init__(
            backbone.name,
            weight_ID=_widened(backbone.item_DI.T, num_items, np.random.default_rng(seed)),
            popularity_I=np.pad(backbone.popularity_I, (0, num_items - backbone.num_items)),
            model_history_length=backbone.model_history_length,
        )

    def states(self, histories: Sequence[np.ndarray]) -> Tensor:
        """The backbone's states of histories."""
        return self._backbone.states(histories)


def _widened(real_ID: Tensor, num_items: int, rng: np.random.Generator) -> Tensor:
    num_real, width = len(real_ID) - 1, real_ID.shape[1]
    weight_ID = torch.empty((num_items + 1, width), dtype=real_ID.dtype)
    weight_ID[: num_real + 1] = real_ID
    for start in range(num_real + 1, num_items + 1, BLOCK_ITEMS):
        # Whole blocks are drawn, so that a smaller pool's items are a larger one's too.
        one_N, other_N = torch.from_numpy(rng.integers(1, num_real + 1, size=(2, BLOCK_ITEMS)))
        share_N1 = torch.from_numpy(rng.random((BLOCK_ITEMS, 1))).to(real_ID.dtype)
        end = min(start + BLOCK_ITEMS, num_items + 1)
        weight_ID[start:end] = (share_N1 * real_ID[one_N] + (1 - share_N1) * real_ID[other_N])[: end - start]
    return weight_ID
