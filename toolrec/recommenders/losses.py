"""The two next-item losses, over positions that have a target.

Shape suffixes: T positions with a target, I items plus padding, D width, N negatives.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 8 * 2**20
"""Scores of a full cross-entropy are held for so many bytes of positions at a time: they stay in the processor's cache."""


class _FullCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy over the whole pool; the gradient is made together with the loss, chunk by chunk.

    The plain way keeps three arrays of positions x items; this one keeps one chunk of them, and is faster on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor) -> Tensor:
        item_ID = weight_ID[1:]  # padding is no item
        num_positions = len(hidden_TD)
        grad_hidden_TD = torch.empty_like(hidden_TD)
        grad_weight_ID = torch.zeros_like(weight_ID)
        loss = hidden_TD.new_zeros(())
        step = max(64, CHUNK_BYTES // (4 * len(item_ID)))
        for start in range(0, num_positions, step):
            part_TD = hidden_TD[start : start + step]
            target_T1 = (target_T[start : start + step] - 1).unsqueeze(1)
            score_TI = part_TD @ item_ID.T
            score_TI -= score_TI.amax(dim=1, keepdim=True)
            at_target_T1 = score_TI.gather(1, target_T1)
            score_TI.exp_()
            total_T1 = score_TI.sum(dim=1, keepdim=True)
            loss += (total_T1.log() - at_target_T1).sum()
            score_TI /= total_T1 * num_positions
            score_TI.scatter_add_(1, target_T1, torch.full_like(at_target_T1, -1.0 / num_positions))
            torch.mm(score_TI, item_ID, out=grad_hidden_TD[start : start + step])
            grad_weight_ID[1:].addmm_(score_TI.T, part_TD)
        ctx.save_for_backward(grad_hidden_TD, grad_weight_ID)
        return loss / num_positions

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad_hidden_TD, grad_weight_ID = ctx.saved_tensors
        (grad,) = grads
        return grad_hidden_TD * grad, grad_weight_ID * grad if ctx.needs_input_grad[1] else None, None


def full_cross_entropy(hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor) -> Tensor:
    """Mean over positions of the cross-entropy of the target among all items (row 0 of the weights is padding)."""
    loss: Tensor = _FullCrossEntropy.apply(hidden_TD, weight_ID, target_T)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax(hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor, negative_N: Tensor) -> Tensor:
    """Mean cross-entropy of the target among itself and shared uniform negatives.

    A negative that is the position's own target is taken out; the remaining ones stand for all other items, so their
    share of the normaliser is scaled up to the pool's size. With every item as a negative it is the full cross-entropy.

    Args:
        negative_N: distinct item indexes, drawn uniformly, shared by all positions.

    Source:
        The importance-sampled softmax of Bengio and Senecal (2003), for a uniform proposal without replacement.
    """
    num_others = len(weight_ID) - 2
    at_target_T = (hidden_TD * weight_ID[target_T]).sum(dim=1)
    score_TN = hidden_TD @ weight_ID[negative_N].T
    is_target_TN = negative_N == target_T[:, None]
    num_left_T = (len(negative_N) - is_target_TN.sum(dim=1)).clamp(min=1)
    correction_T = math.log(max(num_others, 1)) - num_left_T.to(hidden_TD.dtype).log()
    score_TN = (score_TN + correction_T[:, None]).masked_fill(is_target_TN, -torch.inf)
    total_T = torch.logsumexp(torch.cat([at_target_T[:, None], score_TN], dim=1), dim=1)
    return (total_T - at_target_T).mean()


def draw_negatives(num_items: int, num_negatives: int, generator: torch.Generator) -> Tensor:
    """Distinct item indexes from `1..num_items`, uniform; all of them where more are asked for."""
    return torch.randperm(num_items, generator=generator)[:num_negatives] + 1
