"""The attribute encoder: what is trained on top of the frozen backbone so that a tool is oriented to one attribute.

Attribute values of the history's items are embedded, pass through a small Transformer of their own, are concatenated with
the backbone's state, and a dense layer maps back to the item space. Scores are inner products with the backbone's frozen
item embeddings.

Shape suffixes: B users in the batch, L history length, D the backbone's width, S the encoder's width, I items plus padding,
V values plus the missing one.

Source:
    ToolRec (arXiv 2405.15114), section 3.3.2. We differ: value embeddings are learned, not taken from a text encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolrec.data import Pool
from toolrec.errors import ConfigError
from toolrec.recommenders.backbone import Backbone, StateRecommender
from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.dropout import dropout
from toolrec.recommenders.transformer import Transformer

MISSING = 0
"""The value index of an item that does not have the attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeValues:
    """Every item's values as weights over value embeddings.

    Item i has the values `value[offsets[i]:offsets[i + 1]]` with the weights beside them, which add up to 1; padding has
    none. `num_values` counts the missing value too.
    """

    offsets: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    num_values: int


def attribute_values(pool: Pool, attribute: str, *, num_buckets: int) -> AttributeValues:
    """The values of one attribute of the pool.

    Raises:
        ConfigError: the pool has no such attribute.
    """
    spec = pool.attributes.get(attribute)
    if spec is None:
        raise ConfigError("unknown attribute", value=attribute, allowed=list(pool.attributes))
    if spec.kind == "number":
        return number_values(pool.numbers(attribute), num_buckets=num_buckets)
    vocabulary, offsets, value_ids = pool.categories(attribute)
    return category_values(offsets, value_ids, num_values=len(vocabulary))


def category_values(offsets: np.ndarray, value_ids: np.ndarray, *, num_values: int) -> AttributeValues:
    """An item's values count the same; one without any has the missing value. `value_ids` are `1..num_values - 1`."""
    rows = [value_ids[offsets[i] : offsets[i + 1]].astype(np.int64) for i in range(len(offsets) - 1)]
    filled = [np.zeros(0, np.int64)] + [row if len(row) else np.array([MISSING]) for row in rows[1:]]
    weights = [np.full(len(row), 1.0 / len(row)) if len(row) else np.zeros(0) for row in filled]
    return _packed(filled, weights, num_values)


def number_values(number_I: np.ndarray, *, num_buckets: int) -> AttributeValues:
    """A number lies between two knots and takes from both embeddings by its distance: close numbers have close embeddings.

    Knots are quantiles of the pool's numbers, so that each stretch holds about as many items.
    """
    known = number_I[1:][np.isfinite(number_I[1:])]
    knots = np.unique(np.quantile(known, np.linspace(0.0, 1.0, num_buckets))) if len(known) else np.zeros(1)
    rows, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for number in number_I[1:]:
        if not np.isfinite(number):
            rows.append(np.array([MISSING]))
            weights.append(np.ones(1))
            continue
        right = int(np.clip(np.searchsorted(knots, number), 1, max(len(knots) - 1, 1)))
        if len(knots) == 1:
            rows.append(np.array([1]))
            weights.append(np.ones(1))
            continue
        share = (number - knots[right - 1]) / (knots[right] - knots[right - 1])
        rows.append(np.array([right, right + 1]))  # knot j has the value index j + 1
        weights.append(np.array([1.0 - share, share]))
    return _packed(rows, weights, len(knots) + 1)


def _packed(rows: list[np.ndarray], weights: list[np.ndarray], num_values: int) -> AttributeValues:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return AttributeValues(
        offsets=offsets,
        value=np.concatenate(rows).astype(np.int64),
        weight=np.concatenate(weights).astype(np.float32),
        num_values=num_values,
    )


class AttributeEncoderModel(nn.Module):
    """Value embeddings, a small Transformer, and the dense layer back to the item space.

    Args:
        backbone_width: width of the backbone's states.
        max_length: positions of the backbone's queries.
        is_causal: whether it reads as a causal backbone does, or to both sides around masked positions.
    """

    offsets: Tensor
    value: Tensor
    weight: Tensor

    def __init__(
        self, config: TransformerConfig, values: AttributeValues, *, backbone_width: int, max_length: int, is_causal: bool
    ) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.from_numpy(values.offsets))
        self.register_buffer("value", torch.from_numpy(values.value))
        self.register_buffer("weight", torch.from_numpy(values.weight))
        self.embedding = nn.Embedding(values.num_values, config.width)
        self.transformer = Transformer(config, max_length=max_length, is_causal=is_causal)
        self.dropout = config.dropout
        self.dense = nn.Linear(backbone_width + config.width, backbone_width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        # It starts as the backbone itself: training only has to find what the attribute adds.
        with torch.no_grad():
            self.dense.bias.zero_()
            self.dense.weight.zero_()
            self.dense.weight[:, :backbone_width].fill_diagonal_(1.0)

    def item_values(self) -> Tensor:
        """The attribute embedding of every item, `[I + 1, S]`; zeros for padding and, last, for a mask."""
        value_IS = F.embedding_bag(
            self.value,
            self.embedding.weight,
            self.offsets,
            per_sample_weights=self.weight,
            mode="sum",
            include_last_offset=True,
        )
        return F.pad(value_IS, (0, 0, 0, 1))

    def side(self, input_BL: Tensor) -> Tensor:
        """The side Transformer's states over the attribute's values, `[B, L, S]`."""
        side_BLS: Tensor = self.transformer(F.embedding(input_BL, self.item_values()), input_BL)
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
    def last_state(self, history_L: np.ndarray) -> Tensor:
        """The encoder's state of a history, over the backbone's."""
        return self.model.last(*self.backbone.query(history_L), self.backbone.last_state(history_L), self.value_IS)
