"""What encoders read of an attribute: embeddings of categories, of numbers between learned knots, of texts, of missing values.

Shape suffixes: N items asked for, I items plus padding, S the encoder's width, E the text embeddings' width, V values plus
the missing one, K knots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolrec.data import Pool
from toolrec.errors import ConfigError
from toolrec.recommenders.models.text import TextEncoder, embed_texts

MISSING = 0
"""The value index of an item that does not have the attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """Every item's values: item i has `value[offsets[i]:offsets[i + 1]]`; padding has none.

    `num_values` counts the missing value too.
    """

    offsets: np.ndarray
    value: np.ndarray
    num_values: int

    @property
    def num_items(self) -> int:
        """Items of the pool."""
        return len(self.offsets) - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Every item's number as a place on the scale of the pool's quantiles, NaN where missing; `num_knots` lie on it.

    The place of the j-th quantile knot is j: however skewed the numbers are, each stretch of length 1 holds about as many
    items.
    """

    place_I: np.ndarray
    num_knots: int

    @property
    def num_items(self) -> int:
        """Items of the pool."""
        return len(self.place_I) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Every item's text as a vector of length 1 around the pool's mean; zeros where missing."""

    text_IE: np.ndarray

    @property
    def num_items(self) -> int:
        """Items of the pool."""
        return len(self.text_IE) - 1


ItemValues = Categories | Numbers | Texts


def values_digest(values: ItemValues) -> str:
    """Hex SHA-256 of all that an encoder reads of an attribute."""
    digest = hashlib.sha256(type(values).__name__.encode())
    for field in fields(values):
        digest.update(np.ascontiguousarray(getattr(values, field.name)).data)
    return digest.hexdigest()


def attribute_values(pool: Pool, attribute: str, *, num_buckets: int, text_encoder: TextEncoder | None = None) -> ItemValues:
    """The values of one attribute of the pool.

    Raises:
        ConfigError: the pool has no such attribute, or it is a text and there is no text encoder.
    """
    spec = pool.attributes.get(attribute)
    if spec is None:
        raise ConfigError("unknown attribute", value=attribute, allowed=list(pool.attributes))
    if spec.kind == "number":
        return number_values(pool.numbers(attribute), num_buckets=num_buckets)
    if spec.kind == "text":
        if text_encoder is None:
            raise ConfigError(
                "an attribute of kind text needs a sentence-embedding model",
                value=attribute,
                hint="give its folder with --text-encoder DIR, or leave the attribute out of --attributes",
            )
        return text_values(pool.texts(attribute), text_encoder)
    vocabulary, offsets, value_ids = pool.categories(attribute)
    return category_values(offsets, value_ids, num_values=len(vocabulary))


def category_values(offsets: np.ndarray, value_ids: np.ndarray, *, num_values: int) -> Categories:
    """An item without any value has the missing one. `value_ids` are `1..num_values - 1`."""
    length_I = np.diff(offsets)
    filled_I = np.maximum(length_I, 1)
    filled_I[0] = 0
    filled = np.concatenate([[0], np.cumsum(filled_I)]).astype(np.int64)
    value = np.full(filled[-1], MISSING, dtype=np.int64)
    has_value = np.repeat(length_I > 0, filled_I)
    value[has_value] = value_ids
    return Categories(offsets=filled, value=value, num_values=num_values)


def number_values(number_I: np.ndarray, *, num_buckets: int) -> Numbers:
    """Numbers on the scale of at most `num_buckets` quantiles of the pool's numbers."""
    known = number_I[1:][np.isfinite(number_I[1:])]
    knot_K = np.unique(np.quantile(known, np.linspace(0.0, 1.0, num_buckets))) if len(known) else np.zeros(1)
    place_I = np.where(np.isfinite(number_I), np.interp(number_I, knot_K, np.arange(len(knot_K))), np.nan)
    return Numbers(place_I=place_I.astype(np.float32), num_knots=len(knot_K))


def text_values(texts: list[str], encoder: TextEncoder) -> Texts:
    """Embeds the texts (index 0 is padding, "" is missing): centred, since what all texts share tells nothing, and scaled."""
    known_I = np.array([bool(text) for text in texts])
    embedding_NE = embed_texts([text for text in texts if text], encoder)
    centred_NE = embedding_NE - embedding_NE.mean(axis=0, keepdims=True)
    length_N1 = np.linalg.norm(centred_NE, axis=1, keepdims=True)
    text_IE = np.zeros((len(texts), embedding_NE.shape[1]), dtype=np.float32)
    text_IE[known_I] = centred_NE / np.maximum(length_N1, 1e-6)
    return Texts(text_IE=text_IE)


class CategoryEmbedding(nn.Module):
    """The mean of the embeddings of an item's values."""

    offsets: Tensor
    value: Tensor

    def __init__(self, values: Categories, width: int) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.from_numpy(values.offsets))
        self.register_buffer("value", torch.from_numpy(values.value))
        self.embedding = nn.Embedding(values.num_values, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, item_N: Tensor) -> Tensor:
        """Embeddings of items, `[N, S]`."""
        start_N = self.offsets[item_N]
        length_N = self.offsets[item_N + 1] - start_N
        end_N = length_N.cumsum(0)
        # One number for every value of every item: where it stands among all values.
        shift_N = start_N - (end_N - length_N)
        place = torch.arange(int(length_N.sum()), device=item_N.device) + torch.repeat_interleave(shift_N, length_N)
        return F.embedding_bag(self.value[place], self.embedding.weight, end_N - length_N, mode="mean")


class NumberEmbedding(nn.Module):
    """An embedding at every knot; a number between two knots takes from both by its distance: close numbers are alike.

    The knots begin at the pool's quantiles and move in training, in order: each gap between neighbours is positive.
    """

    place_I: Tensor

    def __init__(self, values: Numbers, width: int) -> None:
        super().__init__()
        self.register_buffer("place_I", torch.from_numpy(values.place_I))
        self.embedding = nn.Embedding(values.num_knots + 1, width)
        self.first = nn.Parameter(torch.zeros(()))
        # softplus(log(e - 1)) = 1, the gap between quantiles on this scale.
        self.gap = nn.Parameter(torch.full((values.num_knots - 1,), float(np.log(np.e - 1.0))))
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def knots(self) -> Tensor:
        """Where the knots lie on the scale of quantiles, `[K]`, rising."""
        return torch.cat([self.first[None], self.first + F.softplus(self.gap).cumsum(0)])

    def forward(self, item_N: Tensor) -> Tensor:
        """Embeddings of items, `[N, S]`."""
        place_N, knot_K = self.place_I[item_N], self.knots()
        is_known_N = ~place_N.isnan()
        place_N = place_N.nan_to_num(0.0)
        last = len(knot_K) - 1
        right_N = torch.searchsorted(knot_K.detach(), place_N).clamp(min(1, last), last)
        left_N = (right_N - 1).clamp(min=0)
        gap_N = (knot_K[right_N] - knot_K[left_N]).clamp(min=1e-6)
        share_N1 = ((place_N - knot_K[left_N]) / gap_N).clamp(0.0, 1.0)[:, None]
        weight = self.embedding.weight
        # Knot j has the value index j + 1.
        between_NS = torch.lerp(F.embedding(left_N + 1, weight), F.embedding(right_N + 1, weight), share_N1)
        return torch.where(is_known_N[:, None], between_NS, weight[MISSING])


class TextEmbedding(nn.Module):
    """A learned projection of frozen text vectors; missing texts have an embedding of their own."""

    text_IE: Tensor

    def __init__(self, values: Texts, width: int) -> None:
        super().__init__()
        self.register_buffer("text_IE", torch.from_numpy(values.text_IE))
        self.projection = nn.Linear(values.text_IE.shape[1], width)
        self.missing = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.projection.weight, std=width**-0.5)  # of vectors of length 1: as large as other embeddings
        nn.init.zeros_(self.projection.bias)
        nn.init.normal_(self.missing, std=width**-0.5)

    def forward(self, item_N: Tensor) -> Tensor:
        """Embeddings of items, `[N, S]`."""
        text_NE = self.text_IE[item_N]
        is_known_N1 = (text_NE != 0).any(dim=1, keepdim=True)
        projected_NS = self.projection(text_NE)
        return torch.where(is_known_N1, projected_NS, self.missing.to(projected_NS.dtype))


ValueEmbedding = CategoryEmbedding | NumberEmbedding | TextEmbedding


class AttributeInput(nn.Module):
    """An attribute's embedding of whatever stands in a history: zeros for padding and for a mask.

    Only the items that are asked for are computed, so that a large pool costs a batch nothing.
    """

    def __init__(self, values: ItemValues, width: int) -> None:
        super().__init__()
        self.num_items = values.num_items
        self.value = _embedding(values, width)

    def forward(self, input_BL: Tensor) -> Tensor:
        """Embeddings at every position, `[B, L, S]`."""
        token_N, place_BL = torch.unique(input_BL, return_inverse=True)
        is_item_N = (token_N > 0) & (token_N <= self.num_items)
        embedding_NS = self.value(token_N.clamp(max=self.num_items)).masked_fill(~is_item_N[:, None], 0.0)
        return F.embedding(place_BL, embedding_NS)

    def table(self) -> Tensor:
        """Embeddings of everything that can stand in a history, `[I + 1, S]`: the mask comes last."""
        embedding_1IS: Tensor = self(torch.arange(self.num_items + 2, device=next(self.parameters()).device)[None])
        return embedding_1IS[0]


def _embedding(values: ItemValues, width: int) -> ValueEmbedding:
    if isinstance(values, Categories):
        return CategoryEmbedding(values, width)
    if isinstance(values, Numbers):
        return NumberEmbedding(values, width)
    return TextEmbedding(values, width)


def values_of_tensors(tensors: Mapping[str, Any], prefix: str) -> ItemValues:
    """Stored values, told apart by their tensors' names under `prefix`.

    Raises:
        KeyError: they are of no known kind.
    """
    if f"{prefix}text_IE" in tensors:
        return Texts(text_IE=tensors[f"{prefix}text_IE"].numpy())
    num_values = len(tensors[f"{prefix}embedding.weight"])
    if f"{prefix}place_I" in tensors:
        return Numbers(place_I=tensors[f"{prefix}place_I"].numpy(), num_knots=num_values - 1)
    return Categories(offsets=tensors[f"{prefix}offsets"].numpy(), value=tensors[f"{prefix}value"].numpy(), num_values=num_values)
