"""What a frozen encoder is held against: backbone and encoder trained together, and the attribute as an input from nothing.

Shape suffixes: B users or examples in the batch, L history length, D the backbone's width, T positions with a target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from toolrec.recommenders.models.attribute import AttributeEncoderModel
from toolrec.recommenders.models.backbone import BackboneModel, StateRecommender, in_groups
from toolrec.recommenders.models.values import AttributeInput, ItemValues
from toolrec.recommenders.training.batches import Batch, Example
from toolrec.recommenders.training.trainees import at_targets
from toolrec.recommenders.training.validation import ValidationSet, full_ranking, mean_ndcg, pad_last


class JointModel(nn.Module):
    """A backbone and an attribute encoder on it, as one network; with an untrained encoder it is the backbone."""

    def __init__(self, backbone: BackboneModel, encoder: AttributeEncoderModel) -> None:
        super().__init__()
        self.backbone, self.encoder = backbone, encoder

    def states(self, input_BL: Tensor, batch: Batch) -> Tensor:
        """States at the targets, `[T, D]`."""
        state_TD = at_targets(self.backbone(input_BL), batch)
        return self.encoder.join(state_TD, at_targets(self.encoder.side(input_BL), batch))

    def last(self, input_BL: Tensor, last_B: Tensor) -> Tensor:
        """States of the positions `last_B` of queries, `[B, D]`."""
        state_BD = self.backbone.last(input_BL, last_B)
        return self.encoder.last(input_BL, last_B, state_BD, self.encoder.item_values())


class InputModel(nn.Module):
    """A backbone that reads an item as the sum of its own embedding and its attribute's."""

    def __init__(self, backbone: BackboneModel, values: ItemValues) -> None:
        super().__init__()
        self.backbone = backbone
        self.values = AttributeInput(values, backbone.item.embedding_dim)

    def states(self, input_BL: Tensor, batch: Batch) -> Tensor:
        """States at the targets, `[T, D]`."""
        return at_targets(self.backbone.transformer(self._read(input_BL), input_BL), batch)

    def last(self, input_BL: Tensor, last_B: Tensor) -> Tensor:
        """States of the positions `last_B` of queries, `[B, D]`."""
        return self.backbone.transformer.last(self._read(input_BL), input_BL, last_B)

    def _read(self, input_BL: Tensor) -> Tensor:
        embedding_BLD: Tensor = self.backbone.item(input_BL) + self.values(input_BL)
        return embedding_BLD


class JointTrainee:
    """A joint or an input model in training: all its weights, the item embeddings among them."""

    def __init__(
        self,
        name: str,
        model: JointModel | InputModel,
        sequences: Sequence[np.ndarray],
        validation: ValidationSet,
        *,
        mask_share: float,
    ) -> None:
        self.name, self.model, self.mask_share = name, model, mask_share
        self.sequences, self.validation = sequences, validation

    @property
    def weight_ID(self) -> Tensor:
        """The item embeddings, which train too."""
        return self.model.backbone.weight_ID

    def examples(self, rng: np.random.Generator) -> Sequence[Example]:
        """The training sequences, cut and masked anew."""
        return self.model.backbone.examples(self.sequences, rng=rng, mask_share=self.mask_share)

    def target_states(self, batch: Batch) -> Tensor:
        """The model's states."""
        return self.model.states(torch.from_numpy(batch.input_BL).to(self.weight_ID.device), batch)

    def validate(self) -> float:
        """NDCG@10 over the validation set."""
        return mean_ndcg(joint_positions(self.model, self.validation))


def joint_positions(model: JointModel | InputModel, users: ValidationSet) -> np.ndarray:
    """1-based positions of users' targets by full ranking, int64, in the order of the users."""
    backbone = model.backbone
    return full_ranking(
        lambda history_BL, last_B, _: model.last(*backbone.query(history_BL, last_B)),
        backbone.weight_ID,
        users,
        model_history_length=backbone.model_history_length,
    )


class JointRecommender(StateRecommender):
    """A trained joint or input model as a recommender; it is moved to float64 and frozen."""

    def __init__(self, model: JointModel | InputModel, *, popularity_I: np.ndarray, name: str = "joint") -> None:
        self.model = model.to(dtype=torch.float64).eval().requires_grad_(False)
        super().__init__(
            name,
            weight_ID=model.backbone.weight_ID,
            popularity_I=popularity_I,
            model_history_length=model.backbone.model_history_length,
        )

    @torch.inference_mode()
    def states(self, histories: Sequence[np.ndarray]) -> Tensor:
        """The model's states of histories."""

        def of_group(group: Sequence[np.ndarray], _rows: Sequence[int]) -> Tensor:
            padded = pad_last(group, model_history_length=self.model_history_length)
            return self.model.last(*self.model.backbone.query(*padded))

        return in_groups(histories, of_group)
