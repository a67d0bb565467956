"""A causal Transformer over right-padded histories, shared by the backbone and the attribute encoders.

Right padding and causal attention need no padding mask: a real position never sees what stands after it.

Shape suffixes: B users in the batch, L history length, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolrec.recommenders.config import TransformerConfig


class Block(nn.Module):
    """One pre-norm layer: causal self-attention, then a feed-forward part, each with its residual."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Every position attends to itself and to what stands before it."""
        normed_BLD = self.attention_norm(x_BLD)
        key_BHLD, value_BHLD = self._heads(self.key_value(normed_BLD), 2)
        (query_BHLD,) = self._heads(self.query(normed_BLD), 1)
        mixed_BHLD = F.scaled_dot_product_attention(
            query_BHLD, key_BHLD, value_BHLD, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        x_BLD = x_BLD + self._drop(self.attention_out(mixed_BHLD.transpose(1, 2).flatten(2)))
        return self._feed(x_BLD)

    def last(self, x_BLD: Tensor, last_B: Tensor) -> Tensor:
        """The layer's output at the positions `last_B` only: keys and values of all, one query a row."""
        normed_BLD = self.attention_norm(x_BLD)
        key_BHLD, value_BHLD = self._heads(self.key_value(normed_BLD), 2)
        rows_B = torch.arange(len(x_BLD), device=x_BLD.device)
        (query_BHLD,) = self._heads(self.query(normed_BLD[rows_B, last_B]).unsqueeze(1), 1)
        mask = None
        if len(x_BLD) > 1:  # a single history has no padding to hide
            position_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
            mask = (position_L <= last_B[:, None])[:, None, None, :]
        mixed_BHLD = F.scaled_dot_product_attention(query_BHLD, key_BHLD, value_BHLD, attn_mask=mask)
        x_BD = x_BLD[rows_B, last_B] + self.attention_out(mixed_BHLD.transpose(1, 2).flatten(1))
        return self._feed(x_BD)

    def _feed(self, x: Tensor) -> Tensor:
        return x + self._drop(self.feed_out(self._drop(F.gelu(self.feed_in(self.feed_norm(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _heads(self, x_BLD: Tensor, parts: int) -> tuple[Tensor, ...]:
        num_rows, length, width = x_BLD.shape
        head_width = width // (parts * self.num_heads)
        split = x_BLD.view(num_rows, length, parts, self.num_heads, head_width)
        return split.permute(2, 0, 3, 1, 4).unbind(0)


class CausalTransformer(nn.Module):
    """Learned positions, dropout, the layers and a last normalisation."""

    def __init__(self, config: TransformerConfig, *, max_length: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.position = nn.Parameter(torch.empty(max_length, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.out_norm = nn.LayerNorm(config.width)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """States of every position."""
        x_BLD = self._enter(x_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        normed: Tensor = self.out_norm(x_BLD)
        return normed

    def last(self, x_BLD: Tensor, last_B: Tensor) -> Tensor:
        """State of position `last_B` of every row; the last layer is computed there only."""
        x_BLD = self._enter(x_BLD)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD)
        top = self.blocks[-1]
        assert isinstance(top, Block)
        normed: Tensor = self.out_norm(top.last(x_BLD, last_B))
        return normed

    def _enter(self, x_BLD: Tensor) -> Tensor:
        return F.dropout(x_BLD + self.position[: x_BLD.shape[1]], self.dropout, self.training)
