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
from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.sasrec import SASRec, StateRecommender, as_row
from toolrec.recommenders.transformer import CausalTransformer

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
    """

    offsets: Tensor
    value: Tensor
    weight: Tensor

    def __init__(
        self, config: TransformerConfig, values: AttributeValues, *, backbone_width: int, model_history_length: int
    ) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.from_numpy(values.offsets))
        self.register_buffer("value", torch.from_numpy(values.value))
        self.register_buffer("weight", torch.from_numpy(values.weight))
        self.embedding = nn.Embedding(values.num_values, config.width)
        self.transformer = CausalTransformer(config, max_length=model_history_length)
        self.dropout = config.dropout
        self.dense = nn.Linear(backbone_width + config.width, backbone_width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)

    def item_values(self) -> Tensor:
        """The attribute embedding of every item, `[I, S]`; zeros for padding."""
        return F.embedding_bag(
            self.value,
            self.embedding.weight,
            self.offsets,
            per_sample_weights=self.weight,
            mode="sum",
            include_last_offset=True,
        )

    def forward(self, history_BL: Tensor, state_BLD: Tensor) -> Tensor:
        """States in the item space at every position; `state_BLD` are the frozen backbone's."""
        side_BLS = self.transformer(F.embedding(history_BL, self.item_values()))
        return self._join(state_BLD, side_BLS)

    def last(self, history_BL: Tensor, last_B: Tensor, state_BD: Tensor, value_IS: Tensor) -> Tensor:
        """States in the item space at the positions `last_B`; `value_IS` is `item_values()`, made once."""
        side_BS = self.transformer.last(F.embedding(history_BL, value_IS), last_B)
        return self._join(state_BD, side_BS)

    def _join(self, state: Tensor, side: Tensor) -> Tensor:
        joined = torch.cat([state, side], dim=-1)
        mapped: Tensor = self.dense(F.dropout(joined, self.dropout, self.training))
        return mapped


class AttributeRecommender(StateRecommender):
    """An attribute encoder on its frozen backbone, as a recommender named after the attribute.

    Args:
        model: a trained encoder; it is moved to float64 and frozen.
    """

    def __init__(self, name: str, model: AttributeEncoderModel, backbone: SASRec) -> None:
        device = backbone.item_DI.device
        self.model = model.to(device=device, dtype=torch.float64).eval().requires_grad_(False)
        self.backbone = backbone
        self.value_IS = self.model.item_values()
        super().__init__(
            name,
            weight_ID=backbone.model.item.weight,
            popularity_I=backbone.popularity_I,
            model_history_length=backbone.model_history_length,
        )

    @torch.inference_mode()
    def last_state(self, history_L: np.ndarray) -> Tensor:
        """The encoder's state of a history, over the backbone's."""
        history_1L, last_1 = as_row(history_L, self.item_DI.device)
        return self.model.last(history_1L, last_1, self.backbone.last_state(history_L), self.value_IS)
