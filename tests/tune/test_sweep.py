"""Sweeps through the command: results, pruning, promotion, the test split, bad input, and a kill in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from toolrec.cli import run_app
from toolrec.data import Dataset
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.recommenders.fit_state import read_fields
from tune.commands import build_app
from tune.trials import stored_rows

ROOT = Path(__file__).resolve().parents[2]
SMALL = "learning_rate: {loguniform: [0.001, 0.01]}\nwidth: {choice: [8, 16]}\n"


def tune(*arguments: object) -> int:
    return run_app(build_app(), "python -m tune", [str(argument) for argument in arguments])


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
    assert results["trial"].tolist() == [1, 2, 3, 4]
    assert {"learning_rate", "width", "status", "ndcg@10", "duration_s"} <= set(results.columns)
    assert len(epochs) == results["epochs"].sum() == summary["num_epochs"]
    assert results["ndcg@10"].max() == epochs["ndcg@10"].max() == summary["best_ndcg_at_10"]
    assert "<svg" in (sweep / "plot.svg").read_text()


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


def test_a_worse_trial_does_not_replace_what_is_there(
    local_ray: None, sweep: Path, tmp_path: Path, demo_folder: Path, demo_recommenders: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "best"
    shutil.copytree(sweep / "best", target)
    space = tmp_path / "space.yaml"
    space.write_text("learning_rate: {choice: [0.000001]}\n", encoding="utf-8")
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--promote-to", target, "--space", space]
    assert tune("encoder", demo_folder, *options, "--trials", 1, "--epochs", 1, "--sweep", tmp_path / "sweep") == 0
    assert "not promoted: genre" in capsys.readouterr().out
    assert recommenders_manifest(target) == recommenders_manifest(sweep / "best")
    assert tune("test", tmp_path / "sweep") == 2


def test_a_backbone_goes_to_a_folder_of_its_own(local_ray: None, tmp_path: Path, demo: Dataset, demo_folder: Path):
    space = tmp_path / "space.yaml"
    space.write_text("width: {choice: [8]}\n", encoding="utf-8")
    options = ["--space", space, "--trials", 1, "--epochs", 1, "--sweep", tmp_path / "sweep", "--scheduler", "none"]
    assert tune("backbone", demo_folder, *options) == 0
    assert list(load_recommenders(tmp_path / "sweep" / "recommenders", demo)) == ["popularity", "backbone"]


def test_a_sweep_whose_trials_all_fail_ends_with_the_first_error(
    local_ray: None, tmp_path: Path, demo_folder: Path, demo_recommenders: Path, capsys: pytest.CaptureFixture[str]
):
    space = tmp_path / "space.yaml"
    space.write_text("width: {choice: [7]}\n", encoding="utf-8")
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--space", space, "--trials", 2]
    before = recommenders_manifest(demo_recommenders)
    assert tune("encoder", demo_folder, *options, "--sweep", tmp_path / "sweep") == 2
    said = capsys.readouterr().err
    assert "all 2 trials failed; the first: the width must be a multiple of the number of heads" in said
    assert recommenders_manifest(demo_recommenders) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attribute", "color"], "unknown attribute; got: color"),
        (["--attribute", "genre", "--trials", "0"], "the setting trials is out of range"),
        (["--attribute", "genre", "--epochs", "2", "--grace-epochs", "3"], "more grace epochs than epochs"),
        (["--attribute", "genre", "--gpus-per-trial", "-1"], "the setting GPUs of a trial is out of range"),
        (["--attribute", "genre", "--space", "nowhere.yaml"], "the search space cannot be read"),
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


@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_and_loses_at_most_the_running_epochs(
    tmp_path: Path, demo_folder: Path, demo_recommenders: Path, space: Path
):
    sweep = tmp_path / "sweeps" / "killed"
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--space", space, "--scheduler", "none"]
    limits = ["--trials", 4, "--epochs", 6, "--patience", 6, "--num-cpus", 2, "--promote", "never"]
    command = [sys.executable, "-m", "tune", "encoder", demo_folder, *options, *limits, "--sweep", sweep]
    # A process group of its own, so that a Ray that should outlive its driver would be found.
    driver = subprocess.Popen([str(part) for part in command], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline_s = time.monotonic() + 600
        while sum(epochs_of(sweep).values()) < 8:
            assert driver.poll() is None, driver.stderr.read() if driver.stderr else ""
            assert time.monotonic() < deadline_s, "no trial got going"
            time.sleep(0.05)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    time.sleep(1.0)  # a trial's last write may be under way
    before = {row.trial_id: row.log for row in stored_rows(sweep / "trials")}
    resumed = subprocess.run(
        [sys.executable, "-m", "tune", "resume", str(sweep), "--num-cpus", "2"], cwd=ROOT, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert epochs_of(sweep) == {trial: 6 for trial in epochs_of(sweep)}
    assert len(epochs_of(sweep)) == 4
    # What had been trained before the kill is still there, with its times: it was not trained again.
    for trial_id, log in before.items():
        assert read_fields(sweep / "trials" / trial_id / "state.safetensors")["log"][: len(log)] == log


def test_optuna_searches(local_ray: None, tmp_path: Path, demo_folder: Path, demo_recommenders: Path, space: Path):
    pytest.importorskip("optuna")
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--space", space, "--searcher", "optuna"]
    limits = ["--trials", 3, "--epochs", 1, "--promote", "never", "--sweep", tmp_path / "sweep"]
    assert tune("encoder", demo_folder, *options, *limits) == 0
    rows = stored_rows(tmp_path / "sweep" / "trials")
    assert [row.number for row in rows] == [1, 2, 3]
    assert all(0.001 <= row.params["learning_rate"] <= 0.01 and row.params["width"] in (8, 16) for row in rows)


def test_a_missing_optuna_is_named_with_what_installs_it(tmp_path: Path, demo_folder: Path, demo_recommenders: Path):
    without = "import sys; sys.modules['optuna'] = None; from tune.commands import build_app; from toolrec.cli import run_app; "
    options = ["--attribute", "genre", "--recommenders", demo_recommenders, "--searcher", "optuna", "--sweep", tmp_path / "sweep"]
    arguments = [str(part) for part in ("encoder", demo_folder, *options)]
    code = f"{without}sys.exit(run_app(build_app(), 'python -m tune', {arguments!r}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'toolrec[optuna]'" in ended.stderr
    assert not (tmp_path / "sweep").exists()
