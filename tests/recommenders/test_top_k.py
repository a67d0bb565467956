"""From scores to lists, against a naive sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.recommenders import pad_histories, top_k


def naive(score_I, k, seen):
    items = [i for i in range(1, len(score_I)) if i not in seen and np.isfinite(score_I[i])]
    return sorted(items, key=lambda i: (-np.round(score_I[i], 4), i))[:k]


scores = st.lists(
    st.one_of(
        st.floats(-1e6, 1e6),
        st.sampled_from([0.0, -0.0, 1.0, 1.00004, 1.00005, 1.00006, -np.inf, np.nan]),
    ),
    min_size=2,
    max_size=40,
)


@settings(deadline=None)
@given(scores, st.integers(1, 60), st.data())
def test_agrees_with_a_naive_sort(values, k, data):
    score_I = np.array(values)
    seen = data.draw(st.lists(st.integers(1, len(values) - 1)))
    ranked = top_k(score_I[None], k=k, seen=[seen])[0]
    assert [item.item_index for item in ranked] == naive(score_I, k, set(seen))
    assert [item.score for item in ranked] == [float(np.round(score_I[item.item_index], 4)) for item in ranked]


@settings(deadline=None)
@given(scores, st.integers(1, 20))
def test_a_difference_below_the_rounding_never_changes_the_order(values, k):
    score_BI = np.round(np.array(values)[None] / 1e3, 4)  # in the middle of a rounding step, as scores nearly always are
    shifted_BI = score_BI + np.random.default_rng(0).uniform(-1e-9, 1e-9, score_BI.shape)
    ranked, again = top_k(score_BI, k=k)[0], top_k(shifted_BI, k=k)[0]
    assert [i.item_index for i in ranked] == [i.item_index for i in again]
    assert [i.score for i in ranked] == [i.score for i in again]


def test_masked_items_do_not_take_places():
    assert [i.item_index for i in top_k(np.arange(10.0)[None], k=3, seen=[[9, 8]])[0]] == [7, 6, 5]


def test_ties_go_to_the_smaller_index():
    assert [i.item_index for i in top_k(np.array([[9.0, 1.0, 2.0, 2.0, 1.0]]), k=4)[0]] == [2, 3, 1, 4]


def test_scores_are_left_as_they_were():
    score_BI = np.arange(6.0)[None]
    top_k(score_BI, k=2, seen=[[5]])
    np.testing.assert_array_equal(score_BI, np.arange(6.0)[None])


def test_all_items_seen_gives_an_empty_list():
    assert top_k(np.arange(4.0)[None], k=3, seen=[[1, 2, 3]]) == [[]]


@pytest.mark.parametrize(("histories", "expected"), [([[1, 2], [3]], [[1, 2], [3, 0]]), ([[]], [[0]]), ([], np.zeros((0, 1)))])
def test_histories_are_padded_at_the_end(histories, expected):
    np.testing.assert_array_equal(pad_histories(histories), np.array(expected))
