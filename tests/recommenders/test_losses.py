"""The losses, against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from toolrec.recommenders.losses import draw_negatives, full_cross_entropy, sampled_softmax

NUM_ITEMS, WIDTH = 50, 8


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(300, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    weight_ID = torch.randn(NUM_ITEMS + 1, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    target_T = torch.randint(1, NUM_ITEMS + 1, (300,), generator=generator)
    return hidden_TD, weight_ID, target_T


def plain(hidden_TD, weight_ID, target_T):
    return F.cross_entropy(hidden_TD @ weight_ID[1:].T, target_T - 1)


def test_full_cross_entropy_and_its_gradients_are_those_of_the_plain_way(case):
    ours, theirs = full_cross_entropy(*case), plain(*case)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(3 * ours, case[:2]), torch.autograd.grad(3 * theirs, case[:2]))


def test_full_cross_entropy_in_many_chunks_is_that_of_one(case):
    hidden_TD, weight_ID, target_T = case
    wide_ID = torch.cat([weight_ID, torch.randn(40_000, WIDTH, dtype=torch.float64)])  # 64 positions a chunk
    torch.testing.assert_close(full_cross_entropy(hidden_TD, wide_ID, target_T), plain(hidden_TD, wide_ID, target_T))


def test_full_cross_entropy_leaves_frozen_embeddings_without_gradient(case):
    hidden_TD, weight_ID, target_T = case
    frozen_ID = weight_ID.detach()
    full_cross_entropy(hidden_TD, frozen_ID, target_T).backward()
    assert hidden_TD.grad is not None and frozen_ID.grad is None


def test_large_scores_do_not_overflow():
    hidden_TD, weight_ID = torch.full((1, 1), 100.0), torch.tensor([[0.0], [100.0], [99.0]])
    assert full_cross_entropy(hidden_TD, weight_ID, torch.tensor([2])).item() == pytest.approx(100.0)


def test_sampled_softmax_over_all_items_is_the_full_cross_entropy(case):
    negative_N = draw_negatives(NUM_ITEMS, NUM_ITEMS, torch.Generator().manual_seed(1))
    torch.testing.assert_close(sampled_softmax(*case, negative_N), plain(*case))


def test_sampled_softmax_is_near_the_full_cross_entropy_on_average(case):
    generator = torch.Generator().manual_seed(2)
    losses = [sampled_softmax(*case, draw_negatives(NUM_ITEMS, 25, generator)).item() for _ in range(200)]
    assert np.mean(losses) == pytest.approx(plain(*case).item(), rel=0.05)


def test_the_target_is_not_its_own_negative():
    hidden_TD, weight_ID = torch.ones(1, 1), torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    loss = sampled_softmax(hidden_TD, weight_ID, torch.tensor([3]), torch.tensor([3, 1]))
    # one negative is left, and stands for the two other items
    assert loss.item() == pytest.approx(np.log(np.exp(3) + 2 * np.exp(1)) - 3)


def test_negatives_are_distinct_items():
    negative_N = draw_negatives(10, 99, torch.Generator().manual_seed(0))
    assert sorted(negative_N.tolist()) == list(range(1, 11))
