"""ASHA's decisions, and that a restored sweep's scheduler knows the trials before it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from toolrec.recommenders.fit_state import write_state
from tune.trial import METRIC
from tune.watch import RememberingASHA


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
