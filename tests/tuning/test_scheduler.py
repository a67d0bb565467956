"""ASHA's decisions, what a restored sweep's scheduler knows of the trials before it, and the limit of trials at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.tune.experiment import Experiment

from toolrec.recommenders import RecommendersConfig
from toolrec.recommenders.training.fit_state import write_state
from toolrec.tuning.config import Resources, SweepConfig
from toolrec.tuning.spaces import encoder_space
from toolrec.tuning.sweep import drawn_from, searcher_of
from toolrec.tuning.trial import METRIC
from toolrec.tuning.watch import RememberingASHA


def scheduler(folder: Path) -> RememberingASHA:
    return RememberingASHA(folder, max_epochs=9, grace_epochs=1, reduction_factor=3)


def decided(asha: RememberingASHA, trial_id: str, *bests: float) -> list[str]:
    trial = SimpleNamespace(trial_id=trial_id)
    asha.on_trial_add(None, trial)
    return [asha.on_trial_result(None, trial, {"epoch": i, METRIC: best}) for i, best in enumerate(bests, start=1)]


def stored(folder: Path, trial_id: str, *values: float) -> None:
    log = [{"epoch": i, "ndcg_at_10": value} for i, value in enumerate(values, start=1)]
    write_state(folder / trial_id / "state.safetensors", {"weights.a": torch.zeros(1)}, {"log": log})


def test_a_trial_below_the_top_third_of_those_before_is_stopped_at_a_rung(tmp_path: Path):
    asha = scheduler(tmp_path)
    assert decided(asha, "first", 0.10) == ["CONTINUE"]
    assert decided(asha, "worse", 0.09) == ["STOP"]
    assert decided(asha, "better", 0.11) == ["CONTINUE"]


def test_nothing_is_stopped_between_rungs(tmp_path: Path):
    asha = scheduler(tmp_path)
    decided(asha, "first", 0.10, 0.20, 0.30)
    assert decided(asha, "slower", 0.11, 0.11, 0.12) == ["CONTINUE", "CONTINUE", "STOP"]


def test_the_last_epoch_is_no_rung(tmp_path: Path):
    asha = scheduler(tmp_path)  # of 9 epochs: rungs at 1 and 3
    decided(asha, "first", *[0.10] * 8, 0.50)
    assert decided(asha, "worse", *[0.11] * 9) == ["CONTINUE"] * 9


@pytest.mark.parametrize("best", [0.05, 0.09])
def test_after_a_restore_the_trials_before_count(tmp_path: Path, best: float):
    stored(tmp_path, "before", 0.10)
    asha = scheduler(tmp_path)
    asha.on_trial_add(None, SimpleNamespace(trial_id="before"))
    assert decided(asha, "after", best) == ["STOP"]
    assert decided(scheduler(tmp_path), "alone", best) == ["CONTINUE"]


@pytest.mark.parametrize("limit", [1, 2])
def test_random_draws_keep_to_the_trials_at_a_time(tmp_path: Path, limit: int):
    config = SweepConfig(
        member="genre",
        dataset=tmp_path,
        recommenders=tmp_path,
        base=RecommendersConfig(),
        space=encoder_space(),
        num_trials=4,
        promote_to=tmp_path,
    )
    searcher = searcher_of(config, Resources(max_concurrent=limit))
    space = {name: drawn_from(domain) for name, domain in config.space.items()}
    searcher.add_configurations(Experiment("sweep", run=lambda _: None, config=space, num_samples=4, storage_path=str(tmp_path)))
    running = [searcher.next_trial() for _ in range(limit)]
    assert None not in running
    assert searcher.next_trial() is None
    searcher.on_trial_complete(running[0].trial_id)
    assert searcher.next_trial() is not None
