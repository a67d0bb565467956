"""A training's whole state after an epoch, in one file: whoever reads it goes on as if nothing had happened. No pickle.

weights.NAME, average.NAME, best.NAME   every trained parameter: as it was validated, its other half, and of the best epoch
optimizer.NAME.KEY                      the optimizer's moments and step counts
rng.NAME                                states of torch's generators
metadata: fields                        JSON: settings, numpy's generator, steps, log
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from toolrec.errors import CheckpointError
from toolrec.util.files import atomic_file


def write_state(path: Path, tensors: dict[str, Tensor], fields: dict[str, Any]) -> None:
    """Writes a state over the one before, whole or not at all."""
    with atomic_file(path) as temporary:
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(held, temporary, metadata={"fields": json.dumps(fields, allow_nan=False)})


def read_fields(path: Path) -> dict[str, Any]:
    """What a state says of itself, without its tensors.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    return _read(path, with_tensors=False)[1]


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A state's tensors and fields.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    return _read(path, with_tensors=True)


def load_best(path: Path, model: nn.Module) -> None:
    """Gives a model the weights of a state's best epoch.

    Raises:
        CheckpointError: the state is missing, damaged or of another architecture.
    """
    tensors, _ = read_state(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(fitting(path, tensors, f"best.{name}", parameter))


def fitting(path: Path, tensors: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A state's tensor, of the same shape as `like`.

    Raises:
        CheckpointError: there is none, or it has another shape.
    """
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != like.shape:
        shape = None if tensor is None else tuple(tensor.shape)
        raise CheckpointError(
            f"the training's state {path} is of another architecture: {name}", value=shape, allowed=tuple(like.shape)
        )
    return tensor


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()} if with_tensors else {}  # noqa: SIM118
            fields = json.loads((handle.metadata() or {})["fields"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"a training's state cannot be read ({error})", value=str(path), hint="without that file its training begins anew"
        ) from None
    return tensors, fields
