"""Training sequences become windows, windows become batches of similar length.

Shape suffixes: B windows in the batch, L input positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BUCKET_BATCHES = 16
"""Batches are cut from shuffled runs of so many batches sorted by length: little padding, still a new mix every epoch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded inputs and their next items; `window_B` are the windows' numbers. Where the target is 0 there is none."""

    window_B: np.ndarray
    input_BL: np.ndarray
    target_BL: np.ndarray


def make_windows(
    sequences: Sequence[np.ndarray], *, model_history_length: int, rng: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Cuts sequences into windows of at most `model_history_length` + 1 items.

    Every item but a sequence's first is a target exactly once: neighbouring windows share one item. Sequences of fewer
    than two items have no target and give no window.

    Args:
        rng: None cuts from the end, so that the last window is as long as can be. Else the last window of a sequence that
            needs more than one has a random length: cut anew every epoch, an item is met at many positions.
    """
    windows = []
    for sequence in sequences:
        end = len(sequence)
        length = model_history_length
        if rng is not None and end > model_history_length + 1:
            length = int(rng.integers(1, model_history_length + 1))
        while end >= 2:
            start = max(0, end - length - 1)
            windows.append(sequence[start:end])
            end, length = start + 1, model_history_length
    return windows


def batches(windows: Sequence[np.ndarray], *, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch: every window once, in a new order, windows of similar length together."""
    lengths = np.array([len(w) for w in windows])
    order = rng.permutation(len(windows))
    groups: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * BUCKET_BATCHES):
        run = order[start : start + batch_size * BUCKET_BATCHES]
        run = run[np.argsort(lengths[run], kind="stable")]
        groups.extend(run[i : i + batch_size] for i in range(0, len(run), batch_size))
    for number in rng.permutation(len(groups)):
        yield make_batch(windows, groups[number])


def make_batch(windows: Sequence[np.ndarray], window_B: np.ndarray) -> Batch:
    """Pads the given windows to the longest of them."""
    longest = max(len(windows[i]) for i in window_B) - 1
    input_BL = np.zeros((len(window_B), longest), dtype=np.int64)
    target_BL = np.zeros((len(window_B), longest), dtype=np.int64)
    for row, index in enumerate(window_B):
        window = windows[index]
        input_BL[row, : len(window) - 1] = window[:-1]
        target_BL[row, : len(window) - 1] = window[1:]
    return Batch(window_B, input_BL, target_BL)


def num_batches(num_windows: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    whole, rest = divmod(num_windows, batch_size * BUCKET_BATCHES)
    return whole * BUCKET_BATCHES + -(-rest // batch_size)
