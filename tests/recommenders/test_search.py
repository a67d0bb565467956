"""Blocks of items give the same lists as all scores at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.recommenders import search
from toolrec.recommenders.base import top_k
from toolrec.recommenders.search import best_items


def case(num_users, num_items, *, ties=False, seed=0):
    rng = np.random.default_rng(seed)
    state_BD = rng.normal(size=(num_users, 4))
    item_DI = rng.normal(size=(4, num_items + 1))
    if ties:
        state_BD, item_DI = np.round(state_BD), np.round(item_DI)
    seen = [rng.permutation(num_items)[: rng.integers(0, num_items)] + 1 for _ in range(num_users)]
    return state_BD, item_DI, seen


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.integers(1, 60), st.integers(1, 70), st.booleans(), st.integers(0, 5))
def test_agrees_with_all_scores_at_once(num_users, num_items, k, ties, seed):
    state_BD, item_DI, seen = case(num_users, num_items, ties=ties, seed=seed)
    expected = top_k(state_BD @ item_DI, k=k, seen=seen)
    assert best_items(torch.from_numpy(state_BD), torch.from_numpy(item_DI), k=k, seen=seen) == expected


@pytest.mark.parametrize("ties", [False, True])
def test_many_blocks_are_one_list(ties):
    num_items = 3 * search.BLOCK_SCORES // 200 + 7
    state_BD, item_DI, _ = case(200, num_items, ties=ties)
    seen = [np.arange(1, 20)] * 200
    lists = best_items(torch.from_numpy(state_BD), torch.from_numpy(item_DI), k=10, seen=seen)
    assert lists[::50] == top_k((state_BD @ item_DI)[::50], k=10, seen=seen[::50])
    assert {item.item_index > num_items // 2 for ranked in lists for item in ranked} == {False, True}


def test_without_masking_seen_items_come_back():
    state_BD, item_DI = torch.ones(1, 1), torch.tensor([[9.0, 1.0, 3.0, 2.0]])
    assert [i.item_index for i in best_items(state_BD, item_DI, k=5)[0]] == [2, 3, 1]
    assert [i.item_index for i in best_items(state_BD, item_DI, k=5, seen=[np.array([2])])[0]] == [3, 1]
    assert best_items(state_BD, item_DI, k=5, seen=[np.array([1, 2, 3])]) == [[]]
