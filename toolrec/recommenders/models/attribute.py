"""The attribute encoder: what is trained on top of the frozen backbone so that a tool is oriented to one attribute.

Attribute values of the history's items are embedded, pass through a small Transformer of their own, are concatenated with
the backbone's state, and a dense layer maps back to the item space. Scores are inner products with the backbone's frozen
item embeddings.

Shape suffixes: B users in the batch, L history length, D the backbone's width, S the encoder's width, I items plus padding.

Source:
    ToolRec (arXiv 2405.15114), section 3.3.2. We differ: categories and numbers have learned embeddings; only free text is
    read through a text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.models.backbone import Backbone, StateRecommender, in_groups
from toolrec.recommenders.models.dropout import dropout
from toolrec.recommenders.models.transformer import Transformer
from toolrec.recommenders.models.values import AttributeInput, ItemValues


class AttributeEncoderModel(nn.Module):
    """Value embeddings, a small Transformer, and the dense layer back to the item space.

    Args:
        values: of the pool's items, which are stored with the weights.
        backbone_width: width of the backbone's states.
        max_length: positions of the backbone's queries.
        is_causal: whether it reads as a causal backbone does, or to both sides around masked positions.
    """

    def __init__(
        self, config: TransformerConfig, values: ItemValues, *, backbone_width: int, max_length: int, is_causal: bool
    ) -> None:
        super().__init__()
        self.values = AttributeInput(values, config.width)
        self.transformer = Transformer(config, max_length=max_length, is_causal=is_causal)
        self.dropout = config.dropout
        self.dense = nn.Linear(backbone_width + config.width, backbone_width)
        # It starts as the backbone itself: training only has to find what the attribute adds.
        with torch.no_grad():
            self.dense.bias.zero_()
            self.dense.weight.zero_()
            self.dense.weight[:, :backbone_width].fill_diagonal_(1.0)

    def item_values(self) -> Tensor:
        """The attribute embedding of every item, `[I + 1, S]`; zeros for padding and, last, for a mask."""
        return self.values.table()

    def side(self, input_BL: Tensor) -> Tensor:
        """The side Transformer's states over the attribute's values, `[B, L, S]`."""
        side_BLS: Tensor = self.transformer(self.values(input_BL), input_BL)
        return side_BLS

    def join(self, state: Tensor, side: Tensor) -> Tensor:
        """States in the item space, from the backbone's and the side's at the same positions."""
        joined = torch.cat([state, dropout(side, self.dropout, training=self.training)], dim=-1)
        mapped: Tensor = self.dense(joined)
        return mapped

    def last(self, input_BL: Tensor, last_B: Tensor, state_BD: Tensor, value_IS: Tensor) -> Tensor:
        """States in the item space at the positions `last_B` of queries; `value_IS` is `item_values()`, made once."""
        side_BS = self.transformer.last(F.embedding(input_BL, value_IS), input_BL, last_B)
        return self.join(state_BD.to(side_BS.dtype), side_BS)


class AttributeRecommender(StateRecommender):
    """An attribute encoder on its frozen backbone, as a recommender named after the attribute.

    Args:
        model: a trained encoder; it is moved to float64 and frozen.
    """

    def __init__(self, name: str, model: AttributeEncoderModel, backbone: Backbone) -> None:
        device = backbone.item_DI.device
        self.model = model.to(device=device, dtype=torch.float64).eval().requires_grad_(False)
        self.backbone = backbone
        self.value_IS = self.model.item_values()
        super().__init__(
            name,
            weight_ID=backbone.model.weight_ID,
            popularity_I=backbone.popularity_I,
            model_history_length=backbone.model_history_length,
        )

    @torch.inference_mode()
    def states(self, histories: Sequence[np.ndarray]) -> Tensor:
        """The encoder's states of histories, over the backbone's."""
        backbone_BD = self.backbone.states(histories)

        def of_group(group: Sequence[np.ndarray], rows: Sequence[int]) -> Tensor:
            return self.model.last(*self.backbone.queries(group), backbone_BD[list(rows)], self.value_IS)

        return in_groups(histories, of_group)
