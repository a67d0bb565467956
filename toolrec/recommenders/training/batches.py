"""Training sequences become windows, windows become examples, examples become batches of similar length.

Shape suffixes: B examples in the batch, L input positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BUCKET_BATCHES = 16
"""Batches are cut from shuffled runs of so many batches sorted by length: little padding, still a new mix every epoch."""


class Example(NamedTuple):
    """What a model reads and what it should say at every position: int64, the same length; a target of 0 is none."""

    input_L: np.ndarray
    target_L: np.ndarray


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded examples; `example_B` are their numbers. Where the target is 0 there is none."""

    example_B: np.ndarray
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


def next_item_examples(windows: Sequence[np.ndarray]) -> list[Example]:
    """At every position the item that comes next."""
    return [Example(window[:-1], window[1:]) for window in windows]


def masked_examples(windows: Sequence[np.ndarray], is_masked: Sequence[np.ndarray], *, mask_index: int) -> list[Example]:
    """Masked positions read `mask_index` and have their item as target; all others have none."""
    return [
        Example(np.where(masked_L, mask_index, window), np.where(masked_L, window, 0))
        for window, masked_L in zip(windows, is_masked, strict=True)
    ]


def batches(examples: Sequence[Example], *, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch: every example once, in a new order, examples of similar length together."""
    lengths = np.array([len(example.input_L) for example in examples])
    order = rng.permutation(len(examples))
    groups: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * BUCKET_BATCHES):
        run = order[start : start + batch_size * BUCKET_BATCHES]
        run = run[np.argsort(lengths[run], kind="stable")]
        groups.extend(run[i : i + batch_size] for i in range(0, len(run), batch_size))
    for number in rng.permutation(len(groups)):
        yield make_batch(examples, groups[number])


def make_batch(examples: Sequence[Example], example_B: np.ndarray) -> Batch:
    """Pads the given examples to the longest of them."""
    longest = max(len(examples[i].input_L) for i in example_B)
    input_BL = np.zeros((len(example_B), longest), dtype=np.int64)
    target_BL = np.zeros((len(example_B), longest), dtype=np.int64)
    for row, index in enumerate(example_B):
        example = examples[index]
        input_BL[row, : len(example.input_L)] = example.input_L
        target_BL[row, : len(example.target_L)] = example.target_L
    return Batch(example_B, input_BL, target_BL)


def num_batches(num_examples: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    whole, rest = divmod(num_examples, batch_size * BUCKET_BATCHES)
    return whole * BUCKET_BATCHES + -(-rest // batch_size)
