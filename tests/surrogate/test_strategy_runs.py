"""A strategy in the whole harness, without Ray: its name stands in rows, traces, table and protocol, and names stay hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolrec.config import RunConfig
from toolrec.data import load_dataset
from toolrec.errors import ConfigError
from toolrec.experiments.here import simulate_here
from toolrec.pipeline import run_evaluation
from toolrec.runs.folder import read_rounds, read_trace, read_users


def test_a_run_names_its_strategy_and_its_prompts_hold_no_real_name(demo_folder: Path, demo_recommenders: Path, tmp_path: Path):
    settings = {
        "dataset": demo_folder,
        "recommenders": demo_recommenders,
        "run": tmp_path / "run",
        "evaluation": {"users": 6},
        "surrogate": {"strategy": "llmrank", "obscure": "both", "bootstraps": 2},
    }
    summary, run = run_evaluation(RunConfig(**settings), simulate_users=simulate_here)
    assert summary["surrogate"]["label"] == "surrogate llmrank (embedded rules, not an LLM)"
    protocol = summary["protocol"]
    assert (protocol["strategy"], protocol["protocol"], protocol["bootstraps"], protocol["obscure"]) == (
        "llmrank",
        "plain text",
        2,
        "both",
    )
    assert "rounds" not in protocol and "only_attribute" not in protocol
    users = read_users(run)
    assert users["strategy"].unique().tolist() == ["llmrank"] and (users["ended_by"] == "finish").all()
    user_index = int(users["user_index"].iloc[0])
    assert read_trace(run, user_index).strategy == "llmrank"
    pool = load_dataset(demo_folder).pool
    told = json.dumps(read_rounds(run)["messages"].tolist())
    assert "Movie " in told and not any(title in told for title in pool.titles[1:])
    assert summary["leaks"]["num_messages"] == 6 * (1 + 2) and summary["leaks"]["num_leaks"] == 0


def test_what_the_rules_cannot_answer_is_refused_before_anything_is_written(
    demo_folder: Path, demo_recommenders: Path, tmp_path: Path
):
    settings = {"dataset": demo_folder, "recommenders": demo_recommenders, "run": tmp_path / "run"}
    with pytest.raises(ConfigError, match="embedded rules know no titles"):
        run_evaluation(RunConfig(**settings, surrogate={"strategy": "zero-shot"}), simulate_users=simulate_here)
    assert not (tmp_path / "run").exists()
