"""The kinds of members in training: a backbone, and an attribute encoder on a frozen one.

Shape suffixes: B examples in the batch, L input positions, D the backbone's width, T positions with a target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from toolrec.recommenders.config import BackboneKind, TransformerConfig
from toolrec.recommenders.models.attribute import AttributeEncoderModel
from toolrec.recommenders.models.backbone import BackboneModel, query_of
from toolrec.recommenders.models.bert4rec import BERT4RecModel
from toolrec.recommenders.models.sasrec import SASRecModel
from toolrec.recommenders.training.batches import Batch, Example
from toolrec.recommenders.training.frozen import FrozenStates
from toolrec.recommenders.training.validation import ValidationSet, full_ranking, mean_ndcg

BACKBONES: dict[BackboneKind, type[SASRecModel] | type[BERT4RecModel]] = {"sasrec": SASRecModel, "bert4rec": BERT4RecModel}


def new_backbone(kind: BackboneKind, config: TransformerConfig, *, num_items: int, model_history_length: int) -> BackboneModel:
    """An untrained backbone."""
    return BACKBONES[kind](config, num_items=num_items, model_history_length=model_history_length)


def at_targets(states_BLD: Tensor, batch: Batch) -> Tensor:
    """The states at positions that have a target, row by row, `[T, D]`."""
    return states_BLD[torch.from_numpy(batch.target_BL > 0).to(states_BLD.device)]


class BackboneTrainee:
    """A backbone in training: all its weights.

    Args:
        compile: None compiles the network where it is on a GPU.
    """

    name = "backbone"

    def __init__(
        self,
        model: BackboneModel,
        sequences: Sequence[np.ndarray],
        validation: ValidationSet,
        *,
        mask_share: float,
        compile: bool | None = None,
    ) -> None:
        self.model, self.mask_share = model, mask_share
        # Lengths differ from batch to batch: compiled once for all of them.
        wanted = model.item.weight.is_cuda if compile is None else compile
        self.compiled = torch.compile(model, dynamic=True) if wanted else None
        self.sequences, self.validation = sequences, validation

    @property
    def weight_ID(self) -> Tensor:
        """The item embeddings, which train too."""
        return self.model.weight_ID

    def examples(self, rng: np.random.Generator) -> Sequence[Example]:
        """The training sequences, cut and masked anew."""
        return self.model.examples(self.sequences, rng=rng, mask_share=self.mask_share)

    def target_states(self, batch: Batch) -> Tensor:
        """The model's states; compiled, of all positions first, so that one graph serves any number of targets."""
        device = self.weight_ID.device
        input_BL = torch.from_numpy(batch.input_BL).to(device)
        if self.compiled is not None:
            return at_targets(self.compiled(input_BL), batch)
        return self.model.at(input_BL, torch.from_numpy(batch.target_BL > 0).to(device))

    def validate(self) -> float:
        """NDCG@10 over the validation set."""
        positions = full_ranking(
            lambda history_BL, last_B, _: self.model.last(*self.model.query(history_BL, last_B)),
            self.weight_ID,
            self.validation,
            model_history_length=self.model.model_history_length,
        )
        return mean_ndcg(positions)


class EncoderTrainee:
    """An attribute encoder in training: its own weights only, over the frozen states."""

    def __init__(self, name: str, model: AttributeEncoderModel, frozen: FrozenStates) -> None:
        self.name, self.model, self.frozen = name, model, frozen
        self.weight_ID = frozen.weight_ID.to(model.dense.weight.device)

    def examples(self, rng: np.random.Generator) -> Sequence[Example]:
        """The examples whose backbone states are known: the same every epoch."""
        return self.frozen.examples

    def target_states(self, batch: Batch) -> Tensor:
        """The encoder's states over the backbone's frozen ones."""
        device = self.weight_ID.device
        side_BLS = self.model.side(torch.from_numpy(batch.input_BL).to(device))
        side_TS = at_targets(side_BLS, batch)
        frozen_TD = self.frozen.target_states(batch.example_B).to(device)
        return self.model.join(frozen_TD.to(side_TS.dtype), side_TS)

    def validate(self) -> float:
        """NDCG@10 over the validation set."""
        value_IS = self.model.item_values()
        device = self.weight_ID.device

        def state_of(history_BL: Tensor, last_B: Tensor, places: np.ndarray) -> Tensor:
            frozen_BD = torch.from_numpy(self.frozen.last_UD[places]).to(device, dtype=torch.float32)
            asked = query_of(history_BL, last_B, mask_index=self.frozen.about["mask_index"])
            return self.model.last(*asked, frozen_BD, value_IS)

        positions = full_ranking(
            state_of,
            self.weight_ID,
            self.frozen.validation,
            model_history_length=self.frozen.about["model_history_length"],
        )
        return mean_ndcg(positions)
