"""Windows and batches lose nothing."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.recommenders.training.batches import batches, make_windows, masked_examples, next_item_examples, num_batches

sequences = st.lists(st.integers(0, 40).map(lambda n: np.arange(1, n + 1)), max_size=20)


@settings(deadline=None)
@given(sequences, st.integers(1, 12), st.sampled_from([None, 0, 1]))
def test_every_item_but_the_first_is_a_target_once(rows, length, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    windows = make_windows(rows, model_history_length=length, rng=rng)
    assert all(2 <= len(window) <= length + 1 for window in windows)
    targets = Counter(int(item) for window in windows for item in window[1:])
    assert targets == Counter(int(item) for row in rows for item in row[1:])


@settings(deadline=None)
@given(sequences, st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_has_every_window_once(rows, length, batch_size, seed):
    windows = make_windows(rows, model_history_length=length)
    seen = []
    epoch = list(batches(next_item_examples(windows), batch_size=batch_size, rng=np.random.default_rng(seed)))
    for batch in epoch:
        assert batch.input_BL.shape == batch.target_BL.shape
        for row, number in enumerate(batch.example_B):
            window = windows[number]
            seen.append(int(number))
            np.testing.assert_array_equal(batch.input_BL[row, : len(window) - 1], window[:-1])
            np.testing.assert_array_equal(batch.target_BL[row, : len(window) - 1], window[1:])
            assert not batch.input_BL[row, len(window) - 1 :].any() and not batch.target_BL[row, len(window) - 1 :].any()
    assert sorted(seen) == list(range(len(windows)))
    assert len(epoch) == num_batches(len(windows), batch_size)


def test_the_last_window_ends_where_the_sequence_ends():
    windows = make_windows([np.arange(1, 9)], model_history_length=3)
    assert [window.tolist() for window in windows] == [[5, 6, 7, 8], [2, 3, 4, 5], [1, 2]]


@pytest.mark.parametrize("length", [0, 1])
def test_a_sequence_without_a_target_gives_no_window(length):
    assert make_windows([np.arange(length)], model_history_length=5) == []


def test_batches_hold_windows_of_similar_length():
    rng = np.random.default_rng(0)
    windows = [np.arange(n) for n in rng.integers(2, 200, size=320)]
    padded = sum(batch.input_BL.size for batch in batches(next_item_examples(windows), batch_size=20, rng=rng))
    assert padded < 1.15 * sum(len(window) - 1 for window in windows)


def test_random_cuts_differ_between_epochs_and_spare_short_sequences():
    rng = np.random.default_rng(0)
    cuts = {tuple(len(w) for w in make_windows([np.arange(30)], model_history_length=10, rng=rng)) for _ in range(50)}
    assert len(cuts) > 5
    assert len(make_windows([np.arange(11)], model_history_length=10, rng=rng)) == 1


def test_a_masked_position_reads_the_mask_and_has_its_item_as_target():
    (example,) = masked_examples([np.array([7, 8, 9])], [np.array([False, True, False])], mask_index=99)
    assert example.input_L.tolist() == [7, 99, 9]
    assert example.target_L.tolist() == [0, 8, 0]
