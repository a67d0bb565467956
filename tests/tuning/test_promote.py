"""Promotion: only what is better replaces what is there, one at a time, and the test split knows its member."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import toolrec.tuning.promote
from toolrec.data import Dataset
from toolrec.errors import CheckpointError
from toolrec.recommenders import RecommendersConfig, recommenders_manifest
from toolrec.recommenders.config import FitConfig, TransformerConfig
from toolrec.recommenders.training.fitting import fit
from toolrec.tuning.config import PROTOCOL, SweepConfig
from toolrec.tuning.held_out import test_figures as figures_of
from toolrec.tuning.promote import Promoted, promote
from toolrec.tuning.results import Summary
from toolrec.tuning.spaces import Domain
from toolrec.tuning.trial import STATE, Plan, trainee_of
from toolrec.tuning.trials import TrialRow
from toolrec.util.files import write_json

SMALL = RecommendersConfig(
    backbone=TransformerConfig(width=8, num_layers=1),
    backbone_fit=FitConfig(max_epochs=1, max_validation_users=50),
    model_history_length=20,
)


class Swept:
    """A backbone's sweep of one trial of one epoch, as far as promotion reads it."""

    def __init__(self, folder: Path, dataset: Dataset, *, seed: int = 0) -> None:
        self.folder, self.dataset = folder, dataset
        self.config = SweepConfig(
            member="backbone",
            dataset=dataset.path,
            recommenders=None,
            base=SMALL.replaced(seed=seed),
            space={"dropout": Domain(kind="choice", values=(0.1,))},
            promote_to=folder.parent / "recommenders",
        )
        self.plan = Plan(
            member="backbone",
            dataset=dataset.path,
            text_encoder=None,
            frozen=None,
            trials=folder / "trials",
            base=self.config.base,
            max_validation_users=50,
            device="cpu",
            num_threads=1,
        )
        trainee, seed = trainee_of(self.plan, self.config.base)
        result = fit(trainee, self.config.fit, seed=seed, state_path=self.plan.trials / "one" / STATE)
        self.best = TrialRow(
            trial_id="one",
            number=1,
            status="finished",
            params={},
            best_ndcg_at_10=result.best_ndcg_at_10,
            best_epoch=1,
            log=[asdict(epoch) for epoch in result.log],
        )
        self.protocol: Mapping[str, Any] = {
            "schema_version": 2,
            "kind": "sweep",
            "config": self.config.as_json(),
            "dataset": {"name": dataset.name, "checksum": dataset.checksum},
            "validation": "50 users",
        }

    def promote(self, **changes: Any) -> Promoted:
        return promote(self.config.replaced(**changes), self.plan, self.dataset, self.protocol, self.best)

    def complete(self, promoted: Promoted) -> None:
        """Writes what the test split's command reads."""
        write_json(self.folder / PROTOCOL, self.protocol)
        summary = Summary(
            member="backbone",
            num_trials=1,
            num_pruned=0,
            num_failed=0,
            num_epochs=1,
            unpruned_epochs=1,
            duration_s=1.0,
            best_trial=1,
            best_ndcg_at_10=float(self.best.best_ndcg_at_10 or 0.0),
            best_epoch=1,
            best_params={},
            promoted_to=str(promoted.folder),
            promoted_checksum=promoted.checksum,
            note=promoted.note,
        )
        write_json(self.folder / "summary.json", asdict(summary))


def test_only_a_better_trial_replaces_what_is_there(demo: Dataset, tmp_path: Path):
    swept = Swept(tmp_path / "sweep", demo)
    first = swept.promote()
    assert first.folder == tmp_path / "recommenders"
    before = recommenders_manifest(tmp_path / "recommenders")
    again = swept.promote()
    assert (again.folder, again.checksum) == (None, None)
    assert again.note.startswith("not promoted: backbone in ")
    assert recommenders_manifest(tmp_path / "recommenders") == before
    assert swept.promote(promote="always").checksum == first.checksum


def test_a_promotion_waits_for_the_one_before_and_compares_with_what_it_left(
    demo: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    swept = Swept(tmp_path / "sweep", demo)
    swept.promote()
    said, ended = threading.Event(), []
    monkeypatch.setattr(toolrec.tuning.promote, "stage", lambda _: said.set())
    with (tmp_path / ".recommenders.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: ended.append(swept.promote()))
        second.start()
        assert said.wait(60)
        assert not ended
        manifest = recommenders_manifest(tmp_path / "recommenders")
        manifest["members"][1]["validation"]["ndcg@10"] = 0.9
        write_json(tmp_path / "recommenders" / "manifest.json", manifest)
    second.join(60)
    assert "has a validation ndcg@10 of 0.9000" in ended[0].note


def test_a_later_member_with_the_same_parameters_is_not_taken_for_the_sweeps(demo: Dataset, tmp_path: Path):
    swept = Swept(tmp_path / "first", demo)
    swept.complete(swept.promote())
    Swept(tmp_path / "second", demo, seed=1).promote(promote="always")
    with pytest.raises(CheckpointError, match="is no longer the sweep's"):
        figures_of(tmp_path / "first")
    assert not (tmp_path / "first" / "test.json").exists()


def test_the_promoted_member_is_tested_once(demo: Dataset, tmp_path: Path):
    swept = Swept(tmp_path / "sweep", demo)
    swept.complete(swept.promote())
    figures, is_new = figures_of(tmp_path / "sweep")
    assert is_new and list(figures["rows"]) == ["popularity", "backbone"]
    swept.promote(promote="always", base=SMALL.replaced(seed=1))
    assert figures_of(tmp_path / "sweep") == (json.loads((tmp_path / "sweep" / "test.json").read_text()), False)
