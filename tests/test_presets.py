"""`--compat authors`: one preset, below everything that is given, with its origin told."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from toolrec.cli import build_app
from toolrec.config import RunConfig
from toolrec.errors import ConfigError
from toolrec.presets import COMPAT, unlike_the_authors


def test_the_preset_stands_below_what_is_given():
    config = RunConfig(dataset="d", compat="authors", surrogate={"rounds": 4})
    assert (config.evaluation.users, config.surrogate.mask_seen, config.surrogate.finish_policy) == (200, False, "final_rank")
    assert config.surrogate.rounds == 4
    assert RunConfig(dataset="d").surrogate.mask_seen


def test_a_changed_copy_and_a_stored_one_keep_what_wins():
    config = RunConfig(dataset="d", compat="authors").replaced(**{"surrogate.mask_seen": True})
    assert config.surrogate.mask_seen
    assert RunConfig(**config.as_json()) == config


def test_every_setting_of_a_preset_is_one():
    for preset in COMPAT.values():
        for branch, values in preset.items():
            assert set(values) <= set(type(getattr(RunConfig(dataset="d"), branch)).model_fields)


def test_config_show_says_where_each_comes_from():
    done = CliRunner().invoke(build_app(), ["config", "show", "--compat", "authors", "--users", "50", "--json"])
    shown = json.loads(done.stdout)
    assert shown["settings"]["evaluation"]["users"] == 50 and shown["settings"]["surrogate"]["mask_seen"] is False
    origins = shown["origins"]
    assert origins["evaluation.users"] == "flag --users, over preset --compat authors"
    assert origins["surrogate.mask_seen"] == "preset --compat authors"
    assert origins["surrogate.default_k"] == "default"


def test_an_unknown_preset_names_those_that_there_are():
    with pytest.raises(ConfigError, match="compat") as raised:
        RunConfig(dataset="d", compat="theirs")
    assert "authors" in str(raised.value)


def test_recommenders_trained_otherwise_are_noted():
    theirs = {"model_history_length": 50, "config": {"backbone_fit": {"loss": "bpr"}}}
    assert not list(unlike_the_authors("authors", theirs))
    [note] = unlike_the_authors("authors", {**theirs, "model_history_length": 200})
    assert "histories of 200" in note and "--recipe sasrec_authors" in note
    assert not list(unlike_the_authors(None, {}))
