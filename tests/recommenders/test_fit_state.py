"""A training that goes on from its state comes to the same as one that was never stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toolrec.data import Dataset
from toolrec.errors import CheckpointError
from toolrec.recommenders import FitConfig, RecommendersConfig, TransformerConfig
from toolrec.recommenders.training.build import backbone_in_training
from toolrec.recommenders.training.fit_state import load_best, read_fields
from toolrec.recommenders.training.fitting import EpochLog, FitResult, fit
from toolrec.recommenders.training.validation import validation_set


class Killed(Exception):
    """What a trial sees when it is stopped at a report."""


def config_of(kind: str) -> RecommendersConfig:
    small = TransformerConfig(width=8, num_layers=1, num_heads=2, dropout=0.3)
    fitting = FitConfig(loss="sampled_softmax", num_negatives=16, max_epochs=4, batch_size=32, learning_rate=0.01)
    return RecommendersConfig(backbone_kind=kind, backbone=small, backbone_fit=fitting, model_history_length=20)  # type: ignore[arg-type]


def trained(
    demo: Dataset, config: RecommendersConfig, *, state_path: Path | None = None, kill_at: int | None = None
) -> tuple[FitResult, dict[str, torch.Tensor], list[EpochLog]]:
    trainee, seed = backbone_in_training(demo, config, validation_set(demo, max_users=50), device="cpu")
    told: list[EpochLog] = []

    def on_epoch(epoch: EpochLog) -> None:
        told.append(epoch)
        if epoch.epoch == kill_at:
            raise Killed

    result = fit(trainee, config.backbone_fit, seed=seed, on_epoch=on_epoch, state_path=state_path)
    return result, trainee.model.state_dict(), told


def figures(log: list[EpochLog]) -> list[tuple[int, float, float]]:
    return [(epoch.epoch, epoch.loss, epoch.ndcg_at_10) for epoch in log]


@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(demo: Dataset, tmp_path: Path, kind: str):
    config, state = config_of(kind), tmp_path / "state.safetensors"
    whole, whole_weights, whole_log = trained(demo, config)
    with pytest.raises(Killed):
        trained(demo, config, state_path=state, kill_at=2)
    assert [epoch["epoch"] for epoch in read_fields(state)["log"]] == [1, 2]
    resumed, weights, log = trained(demo, config, state_path=state)
    assert figures(log) == figures(whole_log)  # epochs 1 and 2 are told again, not trained again
    assert (resumed.best_epoch, resumed.num_epochs, resumed.stopped_by) == (whole.best_epoch, 4, "epochs")
    for name, weight in whole_weights.items():
        assert torch.equal(weights[name], weight), name


def test_a_training_that_is_done_is_not_trained_further(demo: Dataset, tmp_path: Path):
    config, state = config_of("sasrec"), tmp_path / "state.safetensors"
    first, _, _ = trained(demo, config, state_path=state)
    before = state.read_bytes()
    again, _, told = trained(demo, config, state_path=state)
    assert again.best_ndcg_at_10 == first.best_ndcg_at_10
    assert [epoch.epoch for epoch in told] == [1, 2, 3, 4]
    assert state.read_bytes() == before


def test_the_best_epochs_weights_are_in_the_state(demo: Dataset, tmp_path: Path):
    config, state = config_of("sasrec"), tmp_path / "state.safetensors"
    _, weights, _ = trained(demo, config, state_path=state)
    other, _ = backbone_in_training(demo, config.replaced(seed=9), validation_set(demo, max_users=50), device="cpu")
    load_best(state, other.model)
    for name, weight in other.model.state_dict().items():
        assert np.array_equal(weight.numpy(), weights[name].numpy()), name


def test_a_state_of_another_training_or_architecture_is_refused(demo: Dataset, tmp_path: Path):
    config, state = config_of("sasrec"), tmp_path / "state.safetensors"
    trained(demo, config.replaced(backbone_fit=config.backbone_fit.replaced(max_epochs=1)), state_path=state)
    with pytest.raises(CheckpointError, match="another training"):
        trained(demo, config, state_path=state)
    wider = config.replaced(backbone=config.backbone.replaced(width=16))
    other, _ = backbone_in_training(demo, wider, validation_set(demo, max_users=50), device="cpu")
    with pytest.raises(CheckpointError, match="another architecture"):
        load_best(state, other.model)


def test_a_damaged_state_is_refused(demo: Dataset, tmp_path: Path):
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        trained(demo, config_of("sasrec"), state_path=state)
