"""The two kinds of members in training, and what they share: windows, the validation set, the frozen states.

Shape suffixes: B rows of the batch, L input positions, D the backbone's width.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toolrec.data import Dataset
from toolrec.recommenders.attribute import AttributeEncoderModel
from toolrec.recommenders.batches import Batch, make_batch, make_windows
from toolrec.recommenders.sasrec import SASRecModel
from toolrec.recommenders.validation import full_ranking, mean_ndcg

IN_MEMORY_BYTES = 256 * 2**20
"""Frozen states above this are kept in a temporary memory-mapped file."""

VALIDATION_SEED = 0
"""Seed of the validation sample: the same users in every training, so that figures can be compared."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Histories without the last two items, and the item that comes next."""

    histories: list[np.ndarray]
    targets: np.ndarray


def validation_set(dataset: Dataset, *, max_users: int) -> ValidationSet:
    """The fixed sample of users that validation positions for; all of them where there are no more than `max_users`."""
    users = dataset.sample_users(max_users if max_users < dataset.num_users else None, VALIDATION_SEED)
    histories = [np.asarray(dataset.history(int(user), "valid"), dtype=np.int64) for user in users]
    targets = np.array([dataset.target(int(user), "valid") for user in users], dtype=np.int64)
    return ValidationSet(histories, targets)


class BackboneTrainee:
    """The backbone in training: all its weights."""

    name = "backbone"

    def __init__(self, model: SASRecModel, sequences: Sequence[np.ndarray], validation: ValidationSet) -> None:
        self.model = model
        self.sequences, self.validation = sequences, validation
        self.model_history_length = len(model.transformer.position)
        self.weight_ID: Tensor = model.item.weight

    def windows(self, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """The training sequences, cut anew."""
        return make_windows(self.sequences, model_history_length=self.model_history_length, rng=rng)

    def states(self, batch: Batch) -> Tensor:
        """The model's states."""
        states_BLD: Tensor = self.model(torch.from_numpy(batch.input_BL).to(self.weight_ID.device))
        return states_BLD

    def validate(self) -> float:
        """NDCG@10 over the validation set."""
        positions = full_ranking(
            lambda history_BL, last_B, _: self.model.last(history_BL, last_B),
            self.weight_ID,
            histories=self.validation.histories,
            targets=self.validation.targets,
            model_history_length=self.model_history_length,
        )
        return mean_ndcg(positions)


class FrozenStates:
    """States of the frozen backbone at every training position, computed once for all attribute encoders.

    Use as a context manager: a memory-mapped file, if one was needed, is gone afterwards.

    Args:
        folder: where the temporary file goes.
        in_memory_bytes: states above this go to the file.
    """

    def __init__(
        self,
        model: SASRecModel,
        windows: Sequence[np.ndarray],
        validation: ValidationSet,
        *,
        folder: Path,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        self.windows, self.validation = windows, validation
        self.weight_ID: Tensor = model.item.weight.detach()
        self.model_history_length = len(model.transformer.position)
        self.starts = np.concatenate([[0], np.cumsum([len(w) - 1 for w in windows])])
        shape = (int(self.starts[-1]), model.item.embedding_dim)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if shape[0] * shape[1] * 4 <= in_memory_bytes:
            self.state_PD: np.ndarray = np.empty(shape, dtype=np.float32)
        else:
            self._temporary = tempfile.TemporaryDirectory(dir=folder, prefix=".frozen-states-")
            place = Path(self._temporary.name) / "states.f32"
            self.state_PD = np.memmap(place, dtype=np.float32, mode="w+", shape=shape)
        self.last_UD = np.empty((len(validation.histories), shape[1]), dtype=np.float32)
        self._compute(model)
        _log.info("backbone states computed once: %d training positions, width %d", *shape)

    def __enter__(self) -> FrozenStates:
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def rows(self, window_B: np.ndarray, *, length: int) -> Tensor:
        """States of the given windows, right-padded with zeros to `length`."""
        states_BLD = np.zeros((len(window_B), length, self.state_PD.shape[1]), dtype=np.float32)
        for row, window in enumerate(window_B):
            start, end = self.starts[window], self.starts[window + 1]
            states_BLD[row, : end - start] = self.state_PD[start:end]
        return torch.from_numpy(states_BLD)

    @torch.no_grad()
    def _compute(self, model: SASRecModel) -> None:
        model.eval()
        device = self.weight_ID.device
        order = np.argsort([len(w) for w in self.windows], kind="stable")
        for start in range(0, len(order), 64):
            batch = make_batch(self.windows, order[start : start + 64])
            states_BLD = model(torch.from_numpy(batch.input_BL).to(device)).cpu().numpy()
            for row, window in enumerate(batch.window_B):
                length = len(self.windows[window]) - 1
                self.state_PD[self.starts[window] : self.starts[window + 1]] = states_BLD[row, :length]

        def keep(history_BL: Tensor, last_B: Tensor, places: np.ndarray) -> Tensor:
            state_BD = model.last(history_BL, last_B)
            self.last_UD[places] = state_BD.cpu().numpy()
            return state_BD

        full_ranking(
            keep,
            self.weight_ID,
            histories=self.validation.histories,
            targets=self.validation.targets,
            model_history_length=self.model_history_length,
        )


class EncoderTrainee:
    """An attribute encoder in training: its own weights only, over the frozen states."""

    def __init__(self, name: str, model: AttributeEncoderModel, frozen: FrozenStates) -> None:
        self.name, self.model, self.frozen = name, model, frozen
        self.weight_ID = frozen.weight_ID

    def windows(self, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """The windows whose backbone states are known: the same every epoch."""
        return self.frozen.windows

    def states(self, batch: Batch) -> Tensor:
        """The encoder's states over the backbone's frozen ones."""
        device = self.weight_ID.device
        frozen_BLD = self.frozen.rows(batch.window_B, length=batch.input_BL.shape[1])
        states_BLD: Tensor = self.model(torch.from_numpy(batch.input_BL).to(device), frozen_BLD.to(device))
        return states_BLD

    def validate(self) -> float:
        """NDCG@10 over the validation set."""
        value_IS = self.model.item_values()
        device = self.weight_ID.device

        def state_of(history_BL: Tensor, last_B: Tensor, places: np.ndarray) -> Tensor:
            frozen_BD = torch.from_numpy(self.frozen.last_UD[places]).to(device)
            return self.model.last(history_BL, last_B, frozen_BD, value_IS)

        validation = self.frozen.validation
        positions = full_ranking(
            state_of,
            self.weight_ID,
            histories=validation.histories,
            targets=validation.targets,
            model_history_length=self.frozen.model_history_length,
        )
        return mean_ndcg(positions)
