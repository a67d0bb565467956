"""States of a frozen backbone at every training target, computed once and shared without copying.

examples/  input.npy, target.npy (int32, all examples end to end), start.npy (int64, where each begins)
states.npy  float16 [targets, width], in the order of the examples' targets
last.npy    float16 [validation users, width]
item.npy    float32 [items + 1, width], the backbone's item embeddings
about.json  what was frozen

A folder of these files is memory-mapped: encoders, trials and processes on a machine read the same pages.

Shape suffixes: B examples in the batch, L input positions, D the backbone's width, P all targets, T the batch's targets.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolrec.errors import CheckpointError
from toolrec.recommenders.models.backbone import BackboneModel
from toolrec.recommenders.training.batches import Batch, Example, make_batch
from toolrec.recommenders.training.fitting import working_dtype
from toolrec.recommenders.training.validation import ValidationSet, full_ranking
from toolrec.util.files import atomic_folder, read_json, write_json
from toolrec.util.progress import track

BLOCK_EXAMPLES = 64
ABOUT = "about.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FrozenStates:
    """A frozen backbone as attribute encoders see it: examples, its states at their targets, its item embeddings.

    Args:
        examples: fixed, the same every epoch.
        starts: where every example's targets begin among all targets.
        state_PD: float16 states at the targets, memory-mapped.
        last_UD: float16 states of the validation histories.
        weight_ID: the item embeddings.
        about: `is_causal`, `max_length`, `model_history_length`, `mask_index` (or None), and what the caller gave.
    """

    examples: Sequence[Example]
    starts: np.ndarray
    state_PD: np.ndarray
    last_UD: np.ndarray
    weight_ID: Tensor
    validation: ValidationSet
    about: dict[str, Any]

    def target_states(self, example_B: np.ndarray) -> Tensor:
        """States at the targets of the given examples, one after the other, float16 `[T, D]`."""
        parts = [self.state_PD[self.starts[i] : self.starts[i + 1]] for i in example_B]
        return torch.from_numpy(np.concatenate(parts))


def freeze(
    model: BackboneModel,
    examples: Sequence[Example],
    validation: ValidationSet,
    *,
    folder: Path,
    about: dict[str, Any] | None = None,
) -> FrozenStates:
    """Computes a backbone's states and writes them to a new folder, whole or not at all.

    Args:
        examples: of `BackboneModel.fixed_examples`.
        about: what to remember with the states, checked by whoever opens them.
    """
    fields = {
        "is_causal": model.is_causal,
        "max_length": model.max_length,
        "model_history_length": model.model_history_length,
        "mask_index": model.mask_index,
        **(about or {}),
    }
    num_targets = np.array([np.count_nonzero(example.target_L) for example in examples])
    starts = np.concatenate([[0], np.cumsum(num_targets)]).astype(np.int64)
    width = model.item.embedding_dim
    with atomic_folder(folder) as place:
        np.save(place / "input.npy", np.concatenate([e.input_L for e in examples]).astype(np.int32))
        np.save(place / "target.npy", np.concatenate([e.target_L for e in examples]).astype(np.int32))
        np.save(place / "start.npy", np.cumsum([0, *(len(e.input_L) for e in examples)]).astype(np.int64))
        np.save(place / "item.npy", model.weight_ID.detach().float().cpu().numpy())
        state_PD = np.lib.format.open_memmap(place / "states.npy", mode="w+", dtype=np.float16, shape=(int(starts[-1]), width))
        _states_at_targets(model, examples, starts, state_PD)
        state_PD.flush()
        del state_PD
        np.save(place / "last.npy", _last_states(model, validation))
        write_json(place / ABOUT, fields)
    _log.info("backbone states computed once: %d training targets, width %d", int(starts[-1]), width)
    return open_frozen(folder, validation)


def open_frozen(folder: Path, validation: ValidationSet) -> FrozenStates:
    """Memory-maps a folder of frozen states.

    Raises:
        CheckpointError: a file is missing or damaged, or the states are of another validation set.
    """
    fields = read_json(folder / ABOUT, error=CheckpointError)
    try:
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("input", "target", "start", "states", "last", "item")
        }
    except (OSError, ValueError) as error:
        raise CheckpointError(f"frozen states cannot be read ({error})", value=str(folder)) from None
    start = arrays["start"]
    examples = [Example(arrays["input"][begin:end], arrays["target"][begin:end]) for begin, end in itertools.pairwise(start)]
    num_targets = np.add.reduceat((arrays["target"] > 0).astype(np.int64), start[:-1])
    starts = np.concatenate([[0], np.cumsum(num_targets)])
    if len(arrays["states"]) != starts[-1] or len(arrays["last"]) != len(validation.targets):
        raise CheckpointError("frozen states do not fit their examples or the validation set", value=str(folder))
    weight_ID = torch.from_numpy(np.array(arrays["item"]))
    return FrozenStates(examples, starts, arrays["states"], arrays["last"], weight_ID, validation, fields)


@contextlib.contextmanager
def frozen_for_now(
    model: BackboneModel, examples: Sequence[Example], validation: ValidationSet, *, folder: Path
) -> Iterator[FrozenStates]:
    """Frozen states in a temporary folder under `folder`, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".frozen-states-") as place:
        yield freeze(model, examples, validation, folder=Path(place) / "states")


@torch.no_grad()
def _states_at_targets(model: BackboneModel, examples: Sequence[Example], starts: np.ndarray, state_PD: np.ndarray) -> None:
    model.eval()
    device = model.item.weight.device
    order = np.argsort([len(example.input_L) for example in examples], kind="stable")
    with track("backbone states", total=len(order), unit="sequences") as bar:
        for start in range(0, len(order), BLOCK_EXAMPLES):
            batch: Batch = make_batch(examples, order[start : start + BLOCK_EXAMPLES])
            # As training computes them; validation's states below are those of single precision, like the served ones.
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=working_dtype("auto", device) == torch.bfloat16):
                states_BLD = model(torch.from_numpy(batch.input_BL).to(device)).float().cpu().numpy()
            for row, number in enumerate(batch.example_B):
                state_PD[starts[number] : starts[number + 1]] = states_BLD[row][batch.target_BL[row] > 0]
            bar.advance(len(batch.example_B))


@torch.no_grad()
def _last_states(model: BackboneModel, validation: ValidationSet) -> np.ndarray:
    last_UD = np.empty((len(validation.histories), model.item.embedding_dim), dtype=np.float16)

    def keep(history_BL: Tensor, last_B: Tensor, places: np.ndarray) -> Tensor:
        state_BD = model.last(*model.query(history_BL, last_B))
        last_UD[places] = state_BD.float().cpu().numpy()
        return state_BD

    full_ranking(keep, model.weight_ID, validation, model_history_length=model.model_history_length)
    return last_UD
