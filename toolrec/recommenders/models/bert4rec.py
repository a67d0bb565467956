"""BERT4Rec: a backbone that reads to both sides, trained to fill masked positions and asked with a mask at the end.

Shape suffix: L history length.

Source:
    Sun et al., "BERT4Rec" (CIKM 2019). As its reproductions found necessary (Petrov and Macdonald, "A Systematic Review and
    Replicability Study of BERT4Rec", RecSys 2022), part of the examples mask the last item alone, which is what the model
    is asked for later. We differ: such an example ends anywhere in its window, so that not the same item is asked for in every
    epoch, and states are scored against the item embeddings without a projection or bias of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.models.backbone import BackboneModel
from toolrec.recommenders.training.batches import Example, make_windows, masked_examples

LAST_ONLY_SHARE = 0.3
"""Share of the examples that end anywhere in their window and mask their last item and nothing else."""

FIXED_SEED = 0
"""Seed of the masks of fixed examples."""


class BERT4RecModel(BackboneModel):
    """To both sides: the state of a masked position answers for the item there."""

    kind = "bert4rec"

    def __init__(self, config: TransformerConfig, *, num_items: int, model_history_length: int) -> None:
        super().__init__(
            config,
            num_items=num_items,
            num_tokens=num_items + 1,
            model_history_length=model_history_length,
            max_length=model_history_length + 1,
            is_causal=False,
        )
        self.mask_index = num_items + 1

    def examples(self, sequences: Sequence[np.ndarray], *, rng: np.random.Generator, mask_share: float) -> list[Example]:
        """Windows cut anew; each position is masked with the chance `mask_share`, or the last one alone of a window's start."""
        windows, is_masked = [], []
        for window in make_windows(sequences, model_history_length=self.model_history_length, rng=rng):
            if rng.random() < LAST_ONLY_SHARE:
                read = window[: rng.integers(2, len(window) + 1)]
                masked_L = np.zeros(len(read), dtype=bool)
            else:
                read, masked_L = window, rng.random(len(window)) < mask_share
            if not masked_L.any():
                masked_L[-1] = True
            windows.append(read)
            is_masked.append(masked_L)
        return masked_examples(windows, is_masked, mask_index=self.num_items + 1)

    def fixed_examples(self, sequences: Sequence[np.ndarray], *, mask_share: float) -> list[Example]:
        """Every window several times: each of its positions is masked in exactly one of them, and the last one once alone."""
        rng = np.random.default_rng(FIXED_SEED)
        num_parts = max(1, round(1.0 / mask_share))
        windows, is_masked = [], []
        for window in make_windows(sequences, model_history_length=self.model_history_length):
            part_L = rng.permutation(len(window)) % num_parts
            masks = [part_L == part for part in range(min(num_parts, len(window)))]
            masks.append(np.arange(len(window)) == len(window) - 1)
            windows.extend([window] * len(masks))
            is_masked.extend(masks)
        return masked_examples(windows, is_masked, mask_index=self.num_items + 1)
