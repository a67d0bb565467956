"""A Transformer over right-padded histories, shared by the backbones and the attribute encoders.

Causal attention over right padding needs no padding mask: a real position never sees what stands after it. Attention to
both sides hides the padding. Under autocast all activations have its type, and the weights stay in single precision.

Shape suffixes: B users in the batch, L history length, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.models.dropout import dropout


def attend(query_BHLD: Tensor, key_BHLD: Tensor, value_BHLD: Tensor, mask: Tensor, *, dropout_p: float) -> Tensor:
    """Scaled dot-product attention for training on a CPU, by batched products.

    In bfloat16 it takes a third of the time of torch's own kernel there, forward and backward; on a GPU torch's is faster.

    Args:
        query_BHLD: fewer positions than keys and values have, where only some are asked for.
        mask: 0 where a key may be seen, -inf where not; `[L, L]`, or `[B, 1, L]` with one row for all queries.
    """
    num_heads, width = query_BHLD.shape[1], query_BHLD.shape[-1]
    if mask.ndim == 3:
        mask = mask.repeat_interleave(num_heads, dim=0)
    query, key, value = (x.flatten(0, 1) for x in (query_BHLD * width**-0.5, key_BHLD, value_BHLD))
    score = torch.baddbmm(mask.to(query.dtype), query, key.transpose(1, 2))
    share = dropout(torch.softmax(score, dim=-1, dtype=score.dtype), dropout_p, training=True)
    return torch.bmm(share, value).view(query_BHLD.shape)


class Block(nn.Module):
    """One layer: self-attention, then a feed-forward part, each with its residual; normalised before or after."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads, self.dropout, self.attention_dropout = config.num_heads, config.dropout, config.attention_dropout
        self.is_pre_norm = config.norm == "pre"
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, config.feed_forward * width)
        self.feed_out = nn.Linear(config.feed_forward * width, width)

    def forward(self, x_BLD: Tensor, mask: Tensor, *, is_causal: bool) -> Tensor:
        """Every position attends to those that the mask lets it see."""
        inner_BLD = self.attention_norm(x_BLD) if self.is_pre_norm else x_BLD
        mixed_BLD = self._mixed(inner_BLD, inner_BLD, mask, is_causal=is_causal)
        return self._feed(self._join(x_BLD, self.attention_out(mixed_BLD), self.attention_norm))

    def at(self, x_BLD: Tensor, mask: Tensor, wanted_BL: Tensor) -> Tensor:
        """The layer's output at the wanted positions only, row by row, `[T, D]`; attention is to both sides.

        Rows want different numbers of positions: their queries are filled up to the most of any row.
        """
        inner_BLD = self.attention_norm(x_BLD) if self.is_pre_norm else x_BLD
        count_B = wanted_BL.sum(1)
        most = int(count_B.max())
        place_BQ = (~wanted_BL).byte().argsort(dim=1, stable=True)[:, :most]
        asked_BQD = inner_BLD.gather(1, place_BQ[:, :, None].expand(-1, -1, inner_BLD.shape[-1]))
        is_asked_BQ = torch.arange(most, device=x_BLD.device) < count_B[:, None]
        mixed_TD = self._mixed(asked_BQD, inner_BLD, mask, is_causal=False)[is_asked_BQ]
        return self._feed(self._join(x_BLD[wanted_BL], self.attention_out(mixed_TD), self.attention_norm))

    def _mixed(self, asked_BLD: Tensor, inner_BLD: Tensor, mask: Tensor, *, is_causal: bool) -> Tensor:
        key_BHLD, value_BHLD = self._heads(self.key_value(inner_BLD), 2)
        (query_BHLD,) = self._heads(self.query(asked_BLD), 1)
        dropout_p = self.attention_dropout if self.training else 0.0
        if inner_BLD.is_cuda or not self.training:
            # The causal flag, where it holds, lets the fast kernels run.
            seen = None if is_causal else (mask == 0)[:, None]
            mixed_BHLD = F.scaled_dot_product_attention(
                query_BHLD, key_BHLD, value_BHLD, attn_mask=seen, dropout_p=dropout_p, is_causal=is_causal
            )
        else:
            mixed_BHLD = attend(query_BHLD, key_BHLD, value_BHLD, mask, dropout_p=dropout_p)
        return mixed_BHLD.transpose(1, 2).flatten(2)

    def last(self, x_BLD: Tensor, last_B: Tensor) -> Tensor:
        """The layer's output at the positions `last_B` only: keys and values of all up to there, one query a row."""
        inner_BLD = self.attention_norm(x_BLD) if self.is_pre_norm else x_BLD
        key_BHLD, value_BHLD = self._heads(self.key_value(inner_BLD), 2)
        rows_B = torch.arange(len(x_BLD), device=x_BLD.device)
        (query_BHLD,) = self._heads(self.query(inner_BLD[rows_B, last_B]).unsqueeze(1), 1)
        mask = None
        if len(x_BLD) > 1:  # a single history has no padding to hide
            position_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
            mask = (position_L <= last_B[:, None])[:, None, None, :]
        mixed_BHLD = F.scaled_dot_product_attention(query_BHLD, key_BHLD, value_BHLD, attn_mask=mask)
        mixed_BD = self.attention_out(mixed_BHLD.transpose(1, 2).flatten(1))
        return self._feed(self._join(x_BLD[rows_B, last_B], mixed_BD, self.attention_norm))

    def _feed(self, x: Tensor) -> Tensor:
        inner = self.feed_norm(x) if self.is_pre_norm else x
        inner = self.feed_out(self._drop(F.gelu(self.feed_in(inner))))
        return self._join(x, inner, self.feed_norm)

    def _join(self, x: Tensor, inner: Tensor, norm: nn.Module) -> Tensor:
        joined = x + self._drop(inner)
        if self.is_pre_norm:
            return joined
        normed: Tensor = norm(joined)
        return normed

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, training=self.training)

    def _heads(self, x_BLD: Tensor, parts: int) -> tuple[Tensor, ...]:
        num_rows, length, width = x_BLD.shape
        head_width = width // (parts * self.num_heads)
        split = x_BLD.view(num_rows, length, parts, self.num_heads, head_width)
        return split.permute(2, 0, 3, 1, 4).unbind(0)


class Transformer(nn.Module):
    """Learned positions, dropout, the layers, and a normalisation at the end or, for post-norm layers, at the start.

    Args:
        is_causal: every position sees itself and what stands before it; else all of the history.
    """

    def __init__(self, config: TransformerConfig, *, max_length: int, is_causal: bool) -> None:
        super().__init__()
        self.dropout, self.is_causal, self.is_pre_norm = config.dropout, is_causal, config.norm == "pre"
        self.position = nn.Parameter(torch.empty(max_length, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.out_norm = nn.LayerNorm(config.width)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x_BLD: Tensor, history_BL: Tensor) -> Tensor:
        """States of every position; `history_BL` says where padding is."""
        x_BLD = self._enter(x_BLD)
        mask = self._mask(history_BL, x_BLD.dtype)
        for block in self.blocks:
            x_BLD = block(x_BLD, mask, is_causal=self.is_causal)
        return self._leave(x_BLD)

    def at(self, x_BLD: Tensor, history_BL: Tensor, wanted_BL: Tensor) -> Tensor:
        """States of the wanted positions, row by row, `[T, D]`; where attention is to both sides, the last layer is
        computed there only."""
        if self.is_causal:
            wanted: Tensor = self(x_BLD, history_BL)[wanted_BL]
            return wanted
        x_BLD, mask = self._below_top(x_BLD, history_BL)
        return self._leave(self._top.at(x_BLD, mask, wanted_BL))

    def last(self, x_BLD: Tensor, history_BL: Tensor, last_B: Tensor) -> Tensor:
        """State of position `last_B` of every row; the last layer is computed there only."""
        x_BLD, _ = self._below_top(x_BLD, history_BL)
        return self._leave(self._top.last(x_BLD, last_B))

    @property
    def _top(self) -> Block:
        top = self.blocks[-1]
        assert isinstance(top, Block)
        return top

    def _below_top(self, x_BLD: Tensor, history_BL: Tensor) -> tuple[Tensor, Tensor]:
        x_BLD = self._enter(x_BLD)
        mask = self._mask(history_BL, x_BLD.dtype)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, mask, is_causal=self.is_causal)
        return x_BLD, mask

    def _enter(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.position[: x_BLD.shape[1]]
        if not self.is_pre_norm:
            x_BLD = self.out_norm(x_BLD)
        if torch.is_autocast_enabled(x_BLD.device.type):
            x_BLD = x_BLD.to(torch.get_autocast_dtype(x_BLD.device.type))
        return dropout(x_BLD, self.dropout, training=self.training)

    def _leave(self, x: Tensor) -> Tensor:
        if not self.is_pre_norm:
            return x
        normed: Tensor = self.out_norm(x)
        return normed

    def _mask(self, history_BL: Tensor, dtype: torch.dtype) -> Tensor:
        if self.is_causal:
            length = history_BL.shape[1]
            return torch.full((length, length), -torch.inf, dtype=dtype, device=history_BL.device).triu(1)
        return torch.zeros(history_BL.shape, dtype=dtype, device=history_BL.device).masked_fill(history_BL == 0, -torch.inf)[
            :, None
        ]
