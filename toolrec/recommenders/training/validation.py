"""Full-ranking validation in blocks: memory grows with the block, not with users x items.

Shape suffixes: B users in the block, I items plus padding, D width, L history length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toolrec.data import Dataset
from toolrec.errors import ConfigError
from toolrec.metrics import ndcg_at_k
from toolrec.recommenders.base import pad_histories

BLOCK_USERS = 64
BLOCK_SCORES = 2**24
"""Users are ranked at a time so that no more scores than this are held, and at most `BLOCK_USERS`."""

VALIDATION_SEED = 0
"""Seed of the validation sample: the same users in every training, so that figures can be compared."""

StateOf = Callable[[Tensor, Tensor, np.ndarray], Tensor]
"""Last states `[B, D]` of right-padded histories `[B, L]`, their last positions `[B]` and their places in the set `[B]`."""


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Histories without the last two items, and the item that comes next."""

    histories: list[np.ndarray]
    targets: np.ndarray


def validation_set(dataset: Dataset, *, max_users: int) -> ValidationSet:
    """The fixed sample of users that validation positions for; all of them where there are no more than `max_users`."""
    num_users = len(dataset.users_with_target("valid"))
    users = dataset.sample_users(max_users if max_users < num_users else None, VALIDATION_SEED, split="valid")
    histories = [np.asarray(dataset.history(int(user), "valid"), dtype=np.int64) for user in users]
    targets = np.array([dataset.target(int(user), "valid") for user in users], dtype=np.int64)
    return ValidationSet(histories, targets)


def position_of_target(score_BI: Tensor, target_B: Tensor) -> Tensor:
    """1-based position of every row's target: better scores first, ties by item index; -inf scores come after."""
    at_target_B1 = score_BI.gather(1, target_B[:, None])
    item_I = torch.arange(score_BI.shape[1], device=score_BI.device)
    is_before_BI = (score_BI > at_target_B1) | ((score_BI == at_target_B1) & (item_I < target_B[:, None]))
    return is_before_BI.sum(dim=1) + 1


def mean_ndcg(position_B: np.ndarray, *, k: int = 10) -> float:
    """NDCG@k over all users: what training is steered by."""
    return float(ndcg_at_k(position_B, k).mean())


def full_ranking(
    state_of: StateOf,
    weight_ID: Tensor,
    users: ValidationSet,
    *,
    model_history_length: int,
) -> np.ndarray:
    """1-based positions of the targets among the whole pool, the history's items masked.

    Args:
        state_of: gives the last states of a block.
        weight_ID: item embeddings; scores are inner products with the states.
        users: histories, oldest first, at least one item each, and targets.

    Raises:
        ConfigError: a state is no finite number: the training has diverged.

    Returns:
        position_B: int64, in the order of the users. A target that is also in the history comes after all others.
    """
    histories, targets = users.histories, users.targets
    positions = np.zeros(len(histories), dtype=np.int64)
    order = np.argsort([min(len(h), model_history_length) for h in histories], kind="stable")
    device = weight_ID.device
    num_users = max(1, min(BLOCK_USERS, BLOCK_SCORES // len(weight_ID)))
    for start in range(0, len(order), num_users):
        block = order[start : start + num_users]
        history_BL, last_B = pad_last([histories[i] for i in block], model_history_length=model_history_length)
        state_BD = state_of(history_BL.to(device), last_B.to(device), block)
        score_BI = (state_BD.to(weight_ID.dtype) @ weight_ID.T).to(weight_ID.dtype)
        score_BI[:, 0] = -torch.inf
        rows = np.repeat(np.arange(len(block)), [len(histories[i]) for i in block])
        seen = np.concatenate([histories[i] for i in block]).astype(np.int64)
        score_BI[torch.from_numpy(rows).to(device), torch.from_numpy(seen).to(device)] = -torch.inf
        if not bool(torch.isfinite(state_BD).all()):
            raise ConfigError("the model gives states that are no finite numbers", hint="use a smaller learning rate")
        target_B = torch.from_numpy(targets[block].astype(np.int64)).to(device)
        positions[block] = position_of_target(score_BI, target_B).cpu().numpy()
    return positions


def pad_last(histories: Sequence[np.ndarray], *, model_history_length: int) -> tuple[Tensor, Tensor]:
    """Right-padded last items of histories, and the position of each one's last item."""
    cut = [h[-model_history_length:] for h in histories]
    return torch.from_numpy(pad_histories(cut)), torch.tensor([len(h) - 1 for h in cut])
