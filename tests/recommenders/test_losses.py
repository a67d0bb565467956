"""The losses, against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from toolrec.recommenders.training.losses import (
    Negatives,
    full_cross_entropy,
    gbce,
    in_batch_negatives,
    other_items,
    pairwise,
    sampled_softmax,
    uniform_negatives,
)

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


def test_sampled_softmax_over_all_items_is_the_full_cross_entropy_with_its_gradients(case):
    negatives = uniform_negatives(NUM_ITEMS, NUM_ITEMS, torch.Generator().manual_seed(1))
    ours, theirs = sampled_softmax(*case, negatives), plain(*case)
    torch.testing.assert_close(ours, theirs)
    gradients = torch.autograd.grad(3 * ours, case[:2]), torch.autograd.grad(3 * theirs, case[:2])
    torch.testing.assert_close(*gradients)


def test_sampled_softmax_has_the_gradients_of_its_own_formula(case):
    hidden_TD, weight_ID, target_T = case
    negatives = uniform_negatives(NUM_ITEMS, 20, torch.Generator().manual_seed(1))
    score_TN = hidden_TD @ weight_ID[negatives.item_N].T - negatives.log_chance_N
    score_TN = score_TN.masked_fill(target_T[:, None] == negatives.item_N, -torch.inf)
    at_target_T1 = (hidden_TD * weight_ID[target_T]).sum(1, keepdim=True)
    theirs = (torch.logsumexp(torch.cat([at_target_T1, score_TN], 1), 1) - at_target_T1[:, 0]).mean()
    ours = sampled_softmax(*case, negatives)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, case[:2]), torch.autograd.grad(theirs, case[:2]))


def test_sampled_softmax_is_near_the_full_cross_entropy_on_average(case):
    generator = torch.Generator().manual_seed(2)
    losses = [sampled_softmax(*case, uniform_negatives(NUM_ITEMS, 25, generator)).item() for _ in range(200)]
    assert np.mean(losses) == pytest.approx(plain(*case).item(), rel=0.05)


def test_in_batch_negatives_come_by_their_share_and_make_up_for_it(case):
    hidden_TD, weight_ID, _ = case
    generator = torch.Generator().manual_seed(3)
    share_I = torch.zeros(NUM_ITEMS + 1, dtype=torch.float64)
    share_I[1:] = torch.linspace(1, 5, NUM_ITEMS, dtype=torch.float64)
    share_I /= share_I.sum()
    target_T = torch.multinomial(share_I, 300, replacement=True, generator=generator)
    pool_T = torch.multinomial(share_I, 100_000, replacement=True, generator=generator)
    losses = []
    for _ in range(300):
        negatives = in_batch_negatives(pool_T, share_I, 40, generator)
        assert len(set(negatives.item_N.tolist())) == len(negatives.item_N)
        losses.append(sampled_softmax(hidden_TD, weight_ID, target_T, negatives).item())
    assert np.mean(losses) == pytest.approx(plain(hidden_TD, weight_ID, target_T).item(), rel=0.05)


def test_the_target_is_not_its_own_negative():
    hidden_TD, weight_ID = torch.ones(1, 1), torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    negatives = Negatives(torch.tensor([3, 1]), torch.log(torch.tensor([2 / 3, 2 / 3])))
    loss = sampled_softmax(hidden_TD, weight_ID, torch.tensor([3]), negatives)
    # item 1 is left, drawn with the chance 2/3: it stands for 3/2 items
    assert loss.item() == pytest.approx(np.log(np.exp(3) + 3 / 2 * np.exp(1)) - 3)


def test_negatives_are_distinct_items():
    negatives = uniform_negatives(10, 99, torch.Generator().manual_seed(0))
    assert sorted(negatives.item_N.tolist()) == list(range(1, 11))
    assert negatives.log_chance_N.tolist() == [0.0] * 10


ONE = {"hidden_TD": torch.ones(1, 1), "weight_ID": torch.tensor([[0.0], [1.0], [2.0], [3.0], [0.5]])}


def softplus(x):
    return np.log1p(np.exp(x))


def test_gbce_without_calibration_is_the_binary_cross_entropy():
    loss = gbce(**ONE, target_T=torch.tensor([2]), item_N=torch.tensor([1, 3]), calibration=0.0)
    assert loss.item() == pytest.approx((softplus(-2) + softplus(1) + softplus(3)) / 3)


def test_full_calibration_raises_the_targets_probability_to_the_sampling_rate():
    loss = gbce(**ONE, target_T=torch.tensor([2]), item_N=torch.tensor([1]), calibration=1.0)
    assert loss.item() == pytest.approx((1 / 3 * softplus(-2) + softplus(1)) / 2)  # 1 negative of 3 other items


def test_pairwise_losses_are_their_formulas():
    both = {"target_T": torch.tensor([3]), "negative_T": torch.tensor([1])}
    assert pairwise(**ONE, **both, kind="bpr").item() == pytest.approx(softplus(1 - 3))
    assert pairwise(**ONE, **both, kind="bce").item() == pytest.approx(softplus(-3) + softplus(1))


def test_a_drawn_item_is_never_the_target_and_every_other_one_comes():
    target_T = torch.full((2000,), 3)
    assert set(other_items(target_T, 5, torch.Generator().manual_seed(0)).tolist()) == {1, 2, 4, 5}


def test_states_of_half_precision_give_nearly_the_same(case):
    hidden_TD, weight_ID, target_T = case[0].detach().bfloat16(), case[1].detach().float(), case[2]
    negatives = uniform_negatives(NUM_ITEMS, 20, torch.Generator().manual_seed(1))
    for loss in (full_cross_entropy, lambda *given: sampled_softmax(*given, negatives)):
        whole = loss(hidden_TD.float(), weight_ID, target_T).item()
        assert loss(hidden_TD, weight_ID, target_T).item() == pytest.approx(whole, rel=0.02)


def test_an_item_that_is_no_target_in_the_first_epoch_still_has_a_chance(case):
    share_I = torch.zeros(NUM_ITEMS + 1, dtype=torch.float64)
    negatives = in_batch_negatives(case[2], share_I, 20, torch.Generator().manual_seed(0))
    assert torch.isfinite(negatives.log_chance_N).all()


def test_a_pool_of_one_item_has_no_other():
    assert other_items(torch.ones(5, dtype=torch.int64), 1, torch.Generator()).tolist() == [1] * 5
