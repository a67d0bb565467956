"""`toolrec train --resume`: a training that was stopped or killed comes to what an unbroken one does, and nothing is lost."""

import subprocess
import sys
import time

import pytest

from toolrec.cli import run_command
from toolrec.recommenders import build, fitting, recommenders_manifest
from toolrec.recommenders.fit_state import read_fields
from toolrec.recommenders.unfinished import unfinished

SHAPE = ("--hidden", "8", "--layers", "1", "--heads", "1", "--no-fusions")
FLAGS = ("--attributes", "genre", "--epochs", "6", "--patience", "6", *SHAPE)


@pytest.fixture
def every_state(monkeypatch):
    """States are written after every epoch: the demo's last less than what a kill may cost."""
    monkeypatch.setattr(build, "STATE_INTERVAL_S", 0.0)


def train(demo_folder, out, *flags):
    return run_command(["train", str(demo_folder), "--out", str(out), *FLAGS, *flags])


def stop_after(monkeypatch, member, epochs):
    """Ctrl-C in the middle of a member's next epoch."""
    whole = fitting._Fit._epoch

    def epoch(fit, bar):
        if (fit.trainee.name, len(fit.log)) == (member, epochs):
            raise KeyboardInterrupt
        return whole(fit, bar)

    monkeypatch.setattr(fitting._Fit, "_epoch", epoch)


def members(folder):
    """What was trained, down to the last bit."""
    return [(m["name"], m["files"], m["num_epochs"], m["best_epoch"]) for m in recommenders_manifest(folder)["members"]]


@pytest.mark.parametrize("member", ["backbone", "genre"])
def test_a_stopped_training_comes_to_what_an_unbroken_one_does(demo_folder, tmp_path, monkeypatch, every_state, capsys, member):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(demo_folder, whole) == 0
    with monkeypatch.context() as patches:
        stop_after(patches, member, 3)
        assert train(demo_folder, broken) == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert [child.name for child in tmp_path.iterdir() if "broken" in child.name] == ["broken.unfinished"]
    assert train(demo_folder, broken, "--resume") == 0
    assert f"going on after {3 if member == 'backbone' else 9} epochs" in capsys.readouterr().err
    assert members(broken) == members(whole)
    assert not (tmp_path / "broken.unfinished").exists()


def test_a_killed_training_comes_to_what_an_unbroken_one_does(demo_folder, tmp_path):
    out, state = tmp_path / "rec", tmp_path / "rec.unfinished" / "backbone.safetensors"
    flags = ["train", str(demo_folder), "--attributes", "", "--epochs", "30", "--patience", "30", *SHAPE]
    process = subprocess.Popen([sys.executable, "-m", "toolrec", *flags, "--out", str(out)])
    try:
        deadline_s = time.monotonic() + 120
        while not state.exists():
            assert process.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not out.exists()
    assert len(read_fields(state)["log"]) < 30
    assert run_command([*flags, "--out", str(out), "--resume"]) == 0
    assert [child.name for child in tmp_path.iterdir()] == ["rec"]
    assert run_command([*flags, "--out", str(tmp_path / "whole")]) == 0
    assert members(out) == members(tmp_path / "whole")


def test_stopped_while_fusions_are_fitted_it_fits_them_again(demo_folder, tmp_path, monkeypatch):
    out, flags = tmp_path / "rec", ["--epochs", "1", "--fusions"]
    with monkeypatch.context() as patches:
        patches.setattr(build, "learn_fusions", interrupted)
        assert train(demo_folder, out, *flags) == 130
    tools = members(out)
    assert train(demo_folder, out, *flags, "--resume") == 0
    assert members(out) == tools
    assert (out / "fusions").is_dir()


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_what_is_unfinished_is_not_overwritten(demo_folder, tmp_path, monkeypatch, every_state, capsys):
    out = tmp_path / "rec"
    with monkeypatch.context() as patches:
        stop_after(patches, "backbone", 2)
        assert train(demo_folder, out) == 130
    assert train(demo_folder, out) == 2
    shown = capsys.readouterr().err
    assert "rec.unfinished" in shown and "--resume" in shown
    assert train(demo_folder, out, "--resume", "--learning-rate", "0.5") == 2
    assert "backbone_fit.learning_rate was 0.003, now 0.5" in capsys.readouterr().err
    assert train(demo_folder, out, "--resume") == 0


def test_nothing_is_left_of_one_that_did_not_get_far_or_came_to_nothing(demo_folder, tmp_path, monkeypatch, every_state):
    with monkeypatch.context() as patches:
        stop_after(patches, "backbone", 0)
        assert train(demo_folder, tmp_path / "rec") == 130
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patches:
        patches.setattr(fitting.math, "isfinite", lambda value: False)
        assert train(demo_folder, tmp_path / "rec") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_time_that_is_up_stays_up(demo_folder, tmp_path, monkeypatch, every_state):
    flags = ["--epochs", "100000", "--patience", "100000", "--max-time-s", "4"]
    with monkeypatch.context() as patches:
        stop_after(patches, "genre", 0)
        assert train(demo_folder, tmp_path / "rec", *flags) == 130
    epochs = len(read_fields(tmp_path / "rec.unfinished" / "backbone.safetensors")["log"])
    assert train(demo_folder, tmp_path / "rec", *flags, "--resume") == 0
    assert recommenders_manifest(tmp_path / "rec")["members"][1]["num_epochs"] == epochs


def test_two_at_once_do_not_meet(demo_folder, tmp_path, capsys):
    out = tmp_path / "rec"
    with unfinished(out, {}, resume=False):
        assert train(demo_folder, out, "--resume") == 2
        assert "another process" in capsys.readouterr().err


def test_with_nothing_to_resume_it_begins(demo_folder, tmp_path):
    assert run_command(["train", str(demo_folder), "--out", str(tmp_path / "rec"), *FLAGS, "--resume"]) == 0
