"""A sweep's settings: what the command line gives, what the sweep's file keeps, and what is refused before any trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolrec.errors import ConfigError
from toolrec.recommenders import RecommendersConfig
from toolrec.tuning.config import BackboneSweep, EncoderSweep, Resources, SweepConfig, config_of, resources_of
from toolrec.tuning.spaces import Domain, encoder_space


def a_sweep(tmp_path: Path, **fields: Any) -> SweepConfig:
    given = {
        "member": "genre",
        "dataset": tmp_path / "data",
        "recommenders": tmp_path / "recommenders",
        "base": RecommendersConfig(),
        "space": encoder_space(),
        "promote_to": tmp_path / "recommenders",
    }
    return SweepConfig(**{**given, **fields})


def test_a_sweep_survives_its_file(tmp_path: Path):
    config = a_sweep(tmp_path, num_trials=7, seed=3)
    assert config_of({"config": json.loads(json.dumps(config.as_json()))}) == config


def test_the_file_keeps_the_resources_and_not_which_ray_it_was():
    stored = json.loads(json.dumps(Resources(gpus_per_trial=0.5, max_concurrent=2, address="10.0.0.1:6379").as_json()))
    kept = resources_of({"resources": stored})
    assert (kept.gpus_per_trial, kept.max_concurrent, kept.address) == (0.5, 2, None)
    assert kept.replaced(gpus_per_trial=1).gpus_per_trial == 1
    assert resources_of({}) == Resources()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"space": {"width": {"choice": [16, 7]}}},
            "multiple of the number of heads; got: 7 and 2",
        ),
        ({"space": {"num_heads": {"choice": [5]}}}, "multiple of the number of heads; got: 32 and 5"),
        ({"space": {"dropout": {"uniform": [0.0, 1.5]}}}, r"dropout \(--dropout\) is out of range; got: 1.5"),
        ({"space": {"max_epochs": {"choice": [3]}}}, "unknown parameter in the search space; got: max_epochs"),
        ({"grace_epochs": 500}, "more grace epochs than epochs; got: 500; allowed: 1 to 200"),
        ({"num_trials": 0}, r"num_trials \(--trials\) is out of range"),
        ({"scheduler": "median"}, r"scheduler \(--scheduler\) has no such value; got: median; allowed: asha, none"),
    ],
)
def test_what_no_trial_could_be_trained_with_is_refused_at_the_start(tmp_path: Path, fields: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        a_sweep(tmp_path, **fields)


def test_a_trial_has_nine_epochs_at_least_or_as_many_as_asked_for(tmp_path: Path):
    sweep = BackboneSweep(dataset=tmp_path / "demo", recipe="sasrec_demo")
    assert sweep.completed()[0].max_epochs == 24
    config, folder = sweep.replaced(epochs=4, patience=2, sweep=tmp_path / "sweep").completed()
    assert (config.max_epochs, config.fit.patience, folder) == (4, 2, tmp_path / "sweep")
    assert config.promote_to == tmp_path / "sweep" / "recommenders"


def test_a_file_gives_space_and_resources(tmp_path: Path):
    given = {"space": {"width": {"choice": [8, 16]}}, "resources": {"gpus_per_trial": "0.25"}}
    settings = EncoderSweep.of({"dataset": tmp_path, "attribute": "genre", **given})
    assert settings.space == {"width": Domain(kind="choice", values=(8, 16))}
    assert settings.resources.gpus_per_trial == 0.25
