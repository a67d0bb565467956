"""Sweeps through the command: results, pruning, promotion, the test split, bad input, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolrec.cli import run_command
from toolrec.data import Dataset
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.recommenders.training.fit_state import read_fields
from toolrec.tuning.trials import stored_rows

ROOT = Path(__file__).resolve().parents[2]
SMALL = "learning_rate: {loguniform: [0.001, 0.01]}\nwidth: {choice: [8, 16]}\n"


def tune(*arguments: object) -> int:
    return run_command(["tune", *(str(argument) for argument in arguments)])


def epochs_of(sweep: Path) -> dict[str, int]:
    return {row.trial_id: row.num_epochs for row in stored_rows(sweep / "trials")}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sweep(
    local_ray: None, tmp_path_factory: pytest.TempPathFactory, demo_folder: Path, demo_recommenders: Path, space: Path
) -> Path:
    """A smoke test of an encoder's sweep, its best trial promoted to a folder of its own."""
    place = tmp_path_factory.mktemp("sweeps") / "smoke"
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--space", space, "--max-concurrent", 1]
    assert tune("encoder", demo_folder, *options, "--smoke-test", "--sweep", place, "--promote-to", place / "best") == 0
    return place


def test_every_trial_and_epoch_is_in_the_results(sweep: Path):
    results, epochs = pd.read_parquet(sweep / "results.parquet"), pd.read_parquet(sweep / "epochs.parquet")
    summary = json.loads((sweep / "summary.json").read_text())
    assert json.loads((sweep / "sweep.json").read_text())["resources"]["max_concurrent"] == 1
    assert results["trial"].tolist() == [1, 2, 3, 4]
    assert {"learning_rate", "width", "status", "ndcg@10", "duration_s"} <= set(results.columns)
    assert len(epochs) == results["epochs"].sum() == summary["num_epochs"]
    assert results["ndcg@10"].max() == epochs["ndcg@10"].max() == summary["best_ndcg_at_10"]
    assert "<svg" in (sweep / "plot.svg").read_text()


def test_asha_prunes_what_stands_below_the_trials_before_it(sweep: Path):
    """With one trial at a time who reports first is no matter of luck, so the pruned ones can be told from the first epochs."""
    results, epochs = pd.read_parquet(sweep / "results.parquet"), pd.read_parquet(sweep / "epochs.parquet")
    first = epochs.loc[epochs["epoch"] == 1].sort_values("trial")["ndcg@10"].to_numpy()
    below = [i > 0 and first[i] < np.percentile(first[:i], 100 * (1 - 1 / 3)) for i in range(4)]  # one rung, a third passes
    assert any(below)
    assert (results["status"] == "pruned").tolist() == below
    assert results["epochs"].tolist() == [1 if is_below else 3 for is_below in below]


def test_the_best_trial_is_read_by_whoever_reads_recommenders(sweep: Path, demo: Dataset, demo_recommenders: Path):
    summary = json.loads((sweep / "summary.json").read_text())
    before, after = recommenders_manifest(demo_recommenders), recommenders_manifest(sweep / "best")
    assert set(load_recommenders(sweep / "best", demo)) == {member["name"] for member in before["members"]}
    [genre] = [member for member in after["members"] if member["name"] == "genre"]
    assert genre["validation"]["ndcg@10"] == summary["best_ndcg_at_10"]
    assert genre["sweep"]["params"] == summary["best_params"]
    others = [member["files"] for member in before["members"] if member["name"] != "genre"]
    assert [member["files"] for member in after["members"] if member["name"] != "genre"] == others
    assert after["checksum"] != before["checksum"]


def test_the_test_split_is_read_once(sweep: Path, capsys: pytest.CaptureFixture[str]):
    assert tune("test", sweep) == 0
    assert "Read now." in capsys.readouterr().out
    figures = json.loads((sweep / "test.json").read_text())
    assert list(figures["rows"]) == ["popularity", "backbone", "genre"]
    assert tune("test", sweep) == 0
    assert "Read before" in capsys.readouterr().out


def test_a_complete_sweep_is_shown_and_not_run_again(sweep: Path, capsys: pytest.CaptureFixture[str]):
    assert tune("show", sweep) == 0
    assert "4/4 trials ended" in capsys.readouterr().out
    assert tune("resume", sweep) == 2
    assert "the sweep is complete" in capsys.readouterr().err


def test_a_backbone_goes_to_a_folder_of_its_own(local_ray: None, tmp_path: Path, demo: Dataset, demo_folder: Path):
    space = tmp_path / "space.yaml"
    space.write_text("width: {choice: [8]}\n", encoding="utf-8")
    options = ["--space", space, "--trials", 1, "--epochs", 1, "--sweep", tmp_path / "sweep", "--scheduler", "none"]
    assert tune("backbone", demo_folder, *options) == 0
    assert list(load_recommenders(tmp_path / "sweep" / "recommenders", demo)) == ["popularity", "backbone"]


def test_a_space_whose_choices_do_not_go_together_ends_before_any_trial(
    local_ray: None, tmp_path: Path, demo_folder: Path, demo_recommenders: Path, capsys: pytest.CaptureFixture[str]
):
    space = tmp_path / "space.yaml"
    space.write_text("width: {choice: [7]}\n", encoding="utf-8")
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--space", space, "--trials", 2]
    options += ["--max-concurrent", 1]
    before = recommenders_manifest(demo_recommenders)
    assert tune("encoder", demo_folder, *options, "--sweep", tmp_path / "sweep") == 2
    assert "the width must be a multiple of the number of heads" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
    assert recommenders_manifest(demo_recommenders) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attribute", "color"], "unknown attribute; got: color"),
        (["--attribute", "genre", "--trials", "0"], "--trials) is out of range; got: 0"),
        (["--attribute", "genre", "--epochs", "2", "--grace-epochs", "3"], "more grace epochs than epochs"),
        (["--attribute", "genre", "--gpus-per-trial", "-1"], "--gpus-per-trial) is out of range; got: -1"),
        (["--attribute", "genre", "--space", "nowhere.yaml"], "cannot read the file of --space"),
        (["--attribute", "genre", "--recommenders", "nowhere"], "no recommenders' folder here"),
        (["--attribute", "genre", "--cpus-per-trial", "999"], "a trial wants more CPUs than any node has"),
    ],
)
def test_bad_input_is_named(
    local_ray: None,
    tmp_path: Path,
    demo_folder: Path,
    demo_recommenders: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
):
    given = options if "--recommenders" in options else [*options, "--recommenders", str(demo_recommenders)]
    assert tune("encoder", demo_folder, *given, "--sweep", tmp_path / "sweeps" / "bad") == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_there_is_not_written_into(
    demo_folder: Path, demo_recommenders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["--attribute", "genre", "--recommenders", demo_recommenders]
    assert tune("encoder", demo_folder, *options, "--sweep", tmp_path) == 2
    assert "the sweep's folder is there already" in capsys.readouterr().err


def resumed(sweep: Path) -> list[str]:
    return [sys.executable, "-m", "tune", "resume", str(sweep), "--num-cpus", "2"]


def stopped_after(num_epochs: int, sweep: Path, command: Sequence[object], number: signal.Signals) -> tuple[int, str]:
    """Runs a sweep's command until so many epochs are there, then gives it the signal: exit code and standard error."""
    # A process group of its own, as a terminal gives it: Ctrl-C goes to all of it.
    driver = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
    )
    assert driver.stderr is not None
    try:
        deadline_s = time.monotonic() + 600
        while sum(epochs_of(sweep).values()) < num_epochs:
            assert driver.poll() is None, driver.stderr.read()
            assert time.monotonic() < deadline_s, "no trial got going"
            time.sleep(0.05)
        (os.killpg if number == signal.SIGINT else os.kill)(driver.pid, number)
        said = driver.stderr.read()
    finally:
        driver.kill()
        driver.wait()
    return driver.returncode, said


@pytest.mark.timeout(1800)
def test_a_sweep_that_was_stopped_and_killed_goes_on_and_loses_at_most_the_running_epochs(
    local_ray: None, tmp_path: Path, demo_folder: Path, demo_recommenders: Path, space: Path
):
    sweep = tmp_path / "sweeps" / "killed"
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--space", space, "--scheduler", "none"]
    limits = ["--trials", 4, "--epochs", 12, "--patience", 12, "--num-cpus", 2, "--promote", "never"]
    command = [sys.executable, "-m", "tune", "encoder", demo_folder, *options, *limits, "--sweep", sweep]
    exit_code, said = stopped_after(8, sweep, command, signal.SIGINT)
    assert exit_code == 130, said
    assert f"stopped; go on with python -m tune resume {sweep}" in said
    assert not (sweep / "summary.json").exists()

    stopped = {row.trial_id: row.log for row in stored_rows(sweep / "trials")}
    num_epochs = sum(len(log) for log in stopped.values())
    exit_code, said = stopped_after(num_epochs + 4, sweep, resumed(sweep), signal.SIGKILL)
    assert exit_code == -signal.SIGKILL, said

    killed = {row.trial_id: row.log for row in stored_rows(sweep / "trials")}
    assert tune("resume", sweep) == 0
    assert list(epochs_of(sweep).values()) == [12] * 4
    # What had been trained before is still there, with its times: it was not trained again.
    for before in (stopped, killed):
        for trial_id, log in before.items():
            assert read_fields(sweep / "trials" / trial_id / "state.safetensors")["log"][: len(log)] == log


def test_optuna_searches(local_ray: None, tmp_path: Path, demo_folder: Path, demo_recommenders: Path, space: Path):
    pytest.importorskip("optuna")
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--space", space, "--searcher", "optuna"]
    limits = ["--trials", 3, "--epochs", 1, "--promote", "never", "--max-concurrent", 1, "--sweep", tmp_path / "sweep"]
    assert tune("encoder", demo_folder, *options, *limits) == 0
    rows = stored_rows(tmp_path / "sweep" / "trials")
    assert [row.number for row in rows] == [1, 2, 3]
    assert all(0.001 <= row.params["learning_rate"] <= 0.01 and row.params["width"] in (8, 16) for row in rows)


def test_a_missing_optuna_is_named_with_what_installs_it(
    tmp_path: Path,
    demo_folder: Path,
    demo_recommenders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--searcher", "optuna", "--sweep", tmp_path / "sweep"]
    assert tune("encoder", demo_folder, *options) == 2
    assert "pip install 'toolrec[optuna]'" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
