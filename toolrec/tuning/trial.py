"""One trial: trains a member with the settings that it was given, reports every epoch, keeps its state in the sweep's folder.

trials/<id>/trial.json          its number and what it was given, written by the driver
trials/<id>/state.safetensors   everything after the last epoch: a trial that was killed goes on from here
trials/<id>/end.json            there once the training has ended by itself; a pruned trial has none
trials/<id>/error.json          there if the training failed
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from toolrec.data import Dataset, load_dataset
from toolrec.errors import ToolRecError
from toolrec.recommenders import RecommendersConfig
from toolrec.recommenders.models.text import SentenceEncoder
from toolrec.recommenders.models.values import ItemValues, attribute_values
from toolrec.recommenders.training.build import backbone_in_training, encoder_in_training
from toolrec.recommenders.training.fitting import EpochLog, Trainee, fit
from toolrec.recommenders.training.frozen import FrozenStates, open_frozen
from toolrec.recommenders.training.validation import ValidationSet, validation_set
from toolrec.tuning.spaces import with_params
from toolrec.util import heap
from toolrec.util.files import write_json

METRIC = "best_ndcg@10"
"""What trials are compared by: the best epoch so far, since that is the one that is kept."""

STATE, TRIAL, END, ERROR = "state.safetensors", "trial.json", "end.json", "error.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that the trials of a sweep have in common.

    Args:
        member: `backbone`, or an attribute.
        text_encoder: folder of a sentence-embedding model, for attributes of kind text.
        frozen: folder of the backbone's states, which all trials on a machine map; None for backbones.
        trials: folder of the trials' own folders, the same on every node.
        device: a torch device.
        num_threads: of a trial's computations.
    """

    member: str
    dataset: Path
    text_encoder: Path | None
    frozen: Path | None
    trials: Path
    base: RecommendersConfig
    max_validation_users: int
    device: str
    num_threads: int


def run_trial(params: Mapping[str, Any], *, plan: Plan) -> None:
    """Trains with the parameters; Ray Tune may end it at any report.

    Raises:
        ConfigError: the parameters do not fit, or the training diverged.
    """
    heap.give_back()  # what the trial before it in this process has freed
    torch.set_num_threads(plan.num_threads)
    place = plan.trials / tune.get_context().get_trial_id()
    (place / ERROR).unlink(missing_ok=True)
    best = -1.0

    def told(epoch: EpochLog) -> None:
        nonlocal best
        best = max(best, epoch.ndcg_at_10)
        tune.report(
            {"epoch": epoch.epoch, "ndcg@10": epoch.ndcg_at_10, METRIC: best, "loss": epoch.loss, "trained_s": epoch.duration_s}
        )

    try:
        config = with_params(plan.base, params, is_backbone=plan.frozen is None)
        trainee, seed = trainee_of(plan, config)
        fit_config = config.backbone_fit if plan.frozen is None else config.encoder_fit
        result = fit(trainee, fit_config, seed=seed, on_epoch=told, state_path=place / STATE)
    except ToolRecError as error:
        write_json(place / ERROR, {"message": str(error), "exit_code": error.exit_code})
        raise
    write_json(place / END, {"stopped_by": result.stopped_by})


def trainee_of(plan: Plan, config: RecommendersConfig) -> tuple[Trainee, int]:
    """The untrained member that a trial trains, and its seed."""
    dataset, validation, frozen = _opened(plan)
    if frozen is None:
        return backbone_in_training(dataset, config, validation, device=plan.device)
    values = _values(plan, config.num_buckets)
    return encoder_in_training(plan.member, config, values, frozen, device=plan.device)


@functools.lru_cache(maxsize=1)
def _opened(plan: Plan) -> tuple[Dataset, ValidationSet, FrozenStates | None]:
    """What trials read, once for all trials of a process."""
    dataset = load_dataset(plan.dataset)
    validation = validation_set(dataset, max_users=plan.max_validation_users)
    return dataset, validation, None if plan.frozen is None else open_frozen(plan.frozen, validation)


@functools.lru_cache(maxsize=8)
def _values(plan: Plan, num_buckets: int) -> ItemValues:
    dataset, _, _ = _opened(plan)
    text_encoder = None if plan.text_encoder is None else SentenceEncoder(plan.text_encoder)
    return attribute_values(dataset.pool, plan.member, num_buckets=num_buckets, text_encoder=text_encoder)
