"""The next-item losses, over positions that have a target.

The softmax losses make their gradients together with the loss, chunk by chunk: they never hold positions x items, stay in
the processor's cache, and follow the type of the states (bfloat16 under autocast) in their products only.

Shape suffixes: T positions with a target, I items plus padding, D width, N negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from toolrec.recommenders.config import FitConfig

CHUNK_BYTES = 4 * 2**20
"""Scores are held for so many bytes of positions at a time on a CPU."""

GPU_CHUNK_BYTES = 512 * 2**20
"""Likewise on a GPU, which wants large products."""


def _chunk(num_columns: int, hidden_TD: Tensor) -> int:
    return max(64, (GPU_CHUNK_BYTES if hidden_TD.is_cuda else CHUNK_BYTES) // (4 * num_columns))


class _FullCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy over the whole pool."""

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor) -> Tensor:
        item_ID = weight_ID[1:].to(hidden_TD.dtype)  # padding is no item
        num_positions = len(hidden_TD)
        grad_hidden_TD = torch.empty_like(hidden_TD)
        grad_weight_ID = torch.zeros_like(weight_ID)
        loss = weight_ID.new_zeros(())
        step = _chunk(len(item_ID), hidden_TD)
        for start in range(0, num_positions, step):
            part_TD = hidden_TD[start : start + step]
            target_T1 = (target_T[start : start + step] - 1).unsqueeze(1)
            score_TI = (part_TD @ item_ID.T).to(weight_ID.dtype)
            score_TI -= score_TI.amax(dim=1, keepdim=True)
            at_target_T1 = score_TI.gather(1, target_T1)
            score_TI.exp_()
            total_T1 = score_TI.sum(dim=1, keepdim=True)
            loss += (total_T1.log() - at_target_T1).sum()
            score_TI /= total_T1 * num_positions
            score_TI.scatter_add_(1, target_T1, torch.full_like(at_target_T1, -1.0 / num_positions))
            slope_TI = score_TI.to(hidden_TD.dtype)
            torch.mm(slope_TI, item_ID, out=grad_hidden_TD[start : start + step])
            if ctx.needs_input_grad[1]:
                grad_weight_ID[1:] += slope_TI.T @ part_TD
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


@dataclass(frozen=True, slots=True)
class Negatives:
    """Distinct items that all positions are told apart from, and the log of the chance that each one was drawn."""

    item_N: Tensor
    log_chance_N: Tensor


def uniform_negatives(num_items: int, num_negatives: int, generator: torch.Generator) -> Negatives:
    """Distinct items from `1..num_items`, each with the same chance; all of them where more are asked for."""
    item_N = torch.randperm(num_items, generator=generator)[:num_negatives] + 1
    return Negatives(item_N, torch.full((len(item_N),), math.log(len(item_N) / num_items)))


def in_batch_negatives(target_T: Tensor, share_I: Tensor, num_negatives: int, generator: torch.Generator) -> Negatives:
    """Targets of the batch, `num_negatives` draws: an item comes with the chance `1 - (1 - share)^draws`.

    Args:
        share_I: every item's share of the training targets.
    """
    place_N = torch.randint(len(target_T), (num_negatives,), generator=generator)
    item_N = torch.unique(target_T.cpu()[place_N])
    log_missed_N = num_negatives * torch.log1p(-share_I[item_N].clamp(min=1e-6, max=1 - 1e-6))
    return Negatives(item_N, torch.log(-torch.expm1(log_missed_N)).to(torch.float32))


class _SampledSoftmax(torch.autograd.Function):
    """Mean cross-entropy of the target among itself and weighted negatives."""

    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor, item_N: Tensor, log_chance_N: Tensor) -> Tensor:
        dtype, num_positions = weight_ID.dtype, len(hidden_TD)
        has_weight_grad = ctx.needs_input_grad[1]  # frozen embeddings need none, and save a third of the products
        negative_ND = weight_ID[item_N].to(hidden_TD.dtype)
        # The target's own chance of standing among the negatives of another position is theirs to make up for.
        log_chance_N = log_chance_N.to(dtype)
        grad_hidden_TD = torch.empty_like(hidden_TD)
        grad_negative_ND = torch.zeros(negative_ND.shape, dtype=dtype, device=weight_ID.device)
        slope_T = torch.empty(num_positions, dtype=dtype, device=weight_ID.device)
        loss = weight_ID.new_zeros(())
        place_I = torch.full((len(weight_ID),), -1, device=item_N.device)
        place_I[item_N] = torch.arange(len(item_N), device=item_N.device)
        place_T = place_I[target_T]
        step = _chunk(len(item_N), hidden_TD)
        for start in range(0, num_positions, step):
            part = slice(start, start + step)
            part_TD = hidden_TD[part]
            target_TD = weight_ID[target_T[part]].to(hidden_TD.dtype)
            at_target_T1 = (part_TD * target_TD).sum(dim=1, keepdim=True, dtype=dtype)
            score_TN = (part_TD @ negative_ND.T).to(dtype).sub_(log_chance_N)
            (own_row,) = torch.nonzero(place_T[part] >= 0, as_tuple=True)
            score_TN[own_row, place_T[part][own_row]] = -torch.inf
            highest_T1 = torch.maximum(score_TN.amax(dim=1, keepdim=True), at_target_T1)
            score_TN.sub_(highest_T1).exp_()
            own_T1 = (at_target_T1 - highest_T1).exp_()
            total_T1 = score_TN.sum(dim=1, keepdim=True) + own_T1
            loss += (total_T1.log() + highest_T1 - at_target_T1).sum()
            score_TN /= total_T1 * num_positions
            slope_T1 = (own_T1 / total_T1 - 1.0) / num_positions
            slope_TN = score_TN.to(hidden_TD.dtype)
            torch.mm(slope_TN, negative_ND, out=grad_hidden_TD[part])
            grad_hidden_TD[part] += slope_T1.to(hidden_TD.dtype) * target_TD
            if has_weight_grad:
                grad_negative_ND += slope_TN.T @ part_TD
            slope_T[part] = slope_T1[:, 0]
        grad_weight_ID = torch.zeros_like(weight_ID)
        if has_weight_grad:
            grad_weight_ID.index_add_(0, item_N, grad_negative_ND)
            grad_weight_ID.index_add_(0, target_T, slope_T[:, None] * hidden_TD)
        ctx.save_for_backward(grad_hidden_TD, grad_weight_ID)
        return loss / num_positions

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden_TD, grad_weight_ID = ctx.saved_tensors
        (grad,) = grads
        return grad_hidden_TD * grad, grad_weight_ID * grad if ctx.needs_input_grad[1] else None, None, None, None


def sampled_softmax(hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor, negatives: Negatives) -> Tensor:
    """Mean cross-entropy of the target among itself and shared negatives, corrected for how they were drawn.

    A negative that is the position's own target is taken out. Every other one stands for `1 / chance` items like it, so
    that the normaliser is right in the mean; with every item as a negative it is the full cross-entropy.

    Source:
        The importance-sampled softmax of Bengio and Senecal (2003).
    """
    device = weight_ID.device
    loss: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]
        hidden_TD, weight_ID, target_T, negatives.item_N.to(device), negatives.log_chance_N.to(device)
    )
    return loss


def gbce(hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor, item_N: Tensor, *, calibration: float) -> Tensor:
    """Generalised binary cross-entropy over shared uniform negatives; `calibration` 0 is the plain binary cross-entropy.

    The target's probability is raised to a power below 1, which takes back the overconfidence that sampling brings.

    Source:
        Petrov and Macdonald, "gSASRec" (RecSys 2023), equations 12 and 13. We differ: all positions of a batch share their
        negatives, and a position's own target among them is taken out.
    """
    num_others = len(weight_ID) - 2
    rate = min(1.0, len(item_N) / max(num_others, 1))
    power = rate * (calibration * (1.0 - 1.0 / rate) + 1.0 / rate)
    at_target_T = (hidden_TD * weight_ID[target_T].to(hidden_TD.dtype)).sum(dim=1, dtype=weight_ID.dtype)
    score_TN = (hidden_TD @ weight_ID[item_N].to(hidden_TD.dtype).T).to(weight_ID.dtype)
    miss_TN = F.softplus(score_TN).masked_fill(target_T[:, None] == item_N, 0.0)
    return (power * F.softplus(-at_target_T) + miss_TN.sum(dim=1)).mean() / (len(item_N) + 1)


def pairwise(hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor, negative_T: Tensor, *, kind: str) -> Tensor:
    """One negative a position: `bce` scores target and negative apart, `bpr` their difference.

    Source:
        SASRec (Kang and McAuley, 2018), equation 7, and BPR (Rendle et al., 2009).
    """
    at_target_T = (hidden_TD * weight_ID[target_T].to(hidden_TD.dtype)).sum(dim=1, dtype=weight_ID.dtype)
    at_negative_T = (hidden_TD * weight_ID[negative_T].to(hidden_TD.dtype)).sum(dim=1, dtype=weight_ID.dtype)
    if kind == "bpr":
        return F.softplus(at_negative_T - at_target_T).mean()
    return (F.softplus(-at_target_T) + F.softplus(at_negative_T)).mean()


def other_items(target_T: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
    """For every target one uniform item that is not it; a pool of one item has only the target."""
    drawn_T = torch.randint(1, max(num_items, 2), target_T.shape, generator=generator).to(target_T.device)
    other_T = drawn_T + (drawn_T >= target_T).to(drawn_T.dtype)
    return other_T.clamp(max=num_items)  # a pool of one item has no other


def next_item_loss(
    hidden_TD: Tensor, weight_ID: Tensor, target_T: Tensor, *, config: FitConfig, share_I: Tensor, generator: torch.Generator
) -> Tensor:
    """The loss that the configuration names, with negatives drawn as it says.

    Args:
        share_I: every item's share of the training targets, on the CPU.
        generator: of the negatives, on the CPU.
    """
    num_items = len(weight_ID) - 1
    if config.loss == "cross_entropy":
        return full_cross_entropy(hidden_TD, weight_ID, target_T)
    if config.loss in ("bce", "bpr"):
        return pairwise(hidden_TD, weight_ID, target_T, other_items(target_T, num_items, generator), kind=config.loss)
    if config.loss == "in_batch_softmax":
        drawn = in_batch_negatives(target_T, share_I, config.num_negatives, generator)
        return sampled_softmax(hidden_TD, weight_ID, target_T, drawn)
    drawn = uniform_negatives(num_items, config.num_negatives, generator)
    if config.loss == "gbce":
        return gbce(hidden_TD, weight_ID, target_T, drawn.item_N.to(weight_ID.device), calibration=config.calibration)
    return sampled_softmax(hidden_TD, weight_ID, target_T, drawn)
