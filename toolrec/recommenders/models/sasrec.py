"""SASRec: a causal backbone, trained to say the next item at every position of whole sequences.

Source:
    Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). We differ: a four times wider GELU
    feed-forward part, pre-norm layers unless configured otherwise, and whichever loss the configuration names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolrec.recommenders.config import TransformerConfig
from toolrec.recommenders.models.backbone import BackboneModel
from toolrec.recommenders.training.batches import Example, make_windows, next_item_examples


class SASRecModel(BackboneModel):
    """Causal: the state of a position answers for the item after it."""

    kind = "sasrec"

    def __init__(self, config: TransformerConfig, *, num_items: int, model_history_length: int) -> None:
        super().__init__(
            config,
            num_items=num_items,
            num_tokens=num_items,
            model_history_length=model_history_length,
            max_length=model_history_length,
            is_causal=True,
        )

    def examples(self, sequences: Sequence[np.ndarray], *, rng: np.random.Generator, mask_share: float) -> list[Example]:
        """Windows cut anew, with the next item at every position."""
        return next_item_examples(make_windows(sequences, model_history_length=self.model_history_length, rng=rng))

    def fixed_examples(self, sequences: Sequence[np.ndarray], *, mask_share: float) -> list[Example]:
        """Windows cut from the end, with the next item at every position."""
        return next_item_examples(make_windows(sequences, model_history_length=self.model_history_length))
