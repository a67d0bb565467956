"""`toolrec train --resume`: a training that was stopped or killed comes to what an unbroken one does, and nothing is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolrec.cli import run_command
from toolrec.errors import StorageError
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.recommenders.training import build, fitting
from toolrec.recommenders.training import unfinished as unfinished_module
from toolrec.recommenders.training.fit_state import read_fields, write_state

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


KILLED_IN_ITS_FOURTH_EPOCH = """
import os, signal, sys
from toolrec.cli import main
from toolrec.recommenders.training import build, fitting
whole, build.STATE_INTERVAL_S = fitting._Fit._epoch, 0.0
def epoch(fit, bar):
    if len(fit.log) == 3 and os.environ.get("RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(fit, bar)
fitting._Fit._epoch = epoch
main()
"""


def test_a_killed_training_comes_to_what_an_unbroken_one_does(demo_folder, tmp_path):
    flags = ["train", str(demo_folder), *FLAGS]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_ITS_FOURTH_EPOCH, *flags, "--out", str(tmp_path / "rec")], check=False, timeout=500
    )
    assert killed.returncode == -signal.SIGKILL
    assert [child.name for child in tmp_path.iterdir()] == ["rec.unfinished"]
    assert len(read_fields(tmp_path / "rec.unfinished" / "backbone.safetensors")["log"]) == 3
    assert train(demo_folder, tmp_path / "rec", "--resume") == 0
    assert [child.name for child in tmp_path.iterdir()] == ["rec"]
    assert train(demo_folder, tmp_path / "whole") == 0
    assert members(tmp_path / "rec") == members(tmp_path / "whole")


def test_processes_that_train_together_go_on_together_write_one_folder_and_speak_once(demo, demo_folder, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED_IN_ITS_FOURTH_EPOCH)
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2"]
    flags = ["train", str(demo_folder), *FLAGS, "--fusions", "--device", "cpu", "--out", str(tmp_path / "rec")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, str(script), *flags], env=environment, check=False, timeout=500, capture_output=True)
    assert len(read_fields(tmp_path / "rec.unfinished" / "backbone.safetensors")["log"]) == 3
    resumed = subprocess.run(
        [*torchrun, "-m", "toolrec", *flags, "--resume"], env=environment, check=True, timeout=500, capture_output=True, text=True
    )
    assert "going on after 3 epochs" in resumed.stderr
    assert resumed.stdout.count("recommenders of") == 1
    assert list(load_recommenders(tmp_path / "rec", demo)) == ["popularity", "backbone", "genre"]
    assert members(tmp_path / "rec")[1][2] == 6
    assert {path.name for path in tmp_path.iterdir()} == {"killed.py", "rec"}


def test_a_full_disk_loses_what_was_under_way(demo_folder, tmp_path, monkeypatch, every_state, capsys):
    def full(path, tensors, fields):
        if len(fields["log"]) == 3:
            raise StorageError("no space left on the disk", value=str(path))
        write_state(path, tensors, fields)

    with monkeypatch.context() as patches:
        patches.setattr(fitting, "write_state", full)
        assert train(demo_folder, tmp_path / "rec") == StorageError.exit_code
    assert "--resume goes on" in capsys.readouterr().err
    assert train(demo_folder, tmp_path / "rec", "--resume") == 0
    assert "going on after 2 epochs" in capsys.readouterr().err


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


def test_nothing_is_left_of_one_that_did_not_get_far(demo_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patches:
        stop_after(patches, "backbone", 0)
        assert train(demo_folder, tmp_path / "rec") == 130
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_whose_time_was_up_is_trained_no_further(demo_folder, tmp_path, monkeypatch, every_state):
    out, flags = tmp_path / "rec", ["--attributes", "genre,release_year", "--epochs", "100000", "--patience", "100000"]
    with monkeypatch.context() as patches:
        stop_after(patches, "release_year", 0)
        assert train(demo_folder, out, *flags, "--max-time-s", "3") == 130
    logs = [read_fields(state)["log"] for state in sorted((tmp_path / "rec.unfinished").glob("*.safetensors"))]
    assert train(demo_folder, out, *flags, "--max-time-s", "3", "--resume") == 0
    genre, backbone = (len(log) for log in logs)
    assert [member[2] for member in members(out)][1:3] == [backbone, genre]


def test_a_member_that_had_ended_is_said_to_have_ended_as_it_did(demo_folder, tmp_path, monkeypatch, every_state):
    out, flags = tmp_path / "rec", ["--max-time-s", "1000"]
    with monkeypatch.context() as patches:
        stop_after(patches, "genre", 1)
        assert train(demo_folder, out, *flags) == 130
    monkeypatch.setattr(unfinished_module.UnfinishedTraining, "elapsed_s", lambda self, place=None: 5000.0)
    assert train(demo_folder, out, "--max-time-s", "900", "--resume") == 0
    assert [m["stopped_by"] for m in recommenders_manifest(out)["members"]] == ["", "epochs", "time"]


def test_a_folder_that_is_no_training_is_left_alone(demo_folder, tmp_path, capsys):
    notes = tmp_path / "rec.unfinished" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    for flags in ([], ["--resume"]):
        assert train(demo_folder, tmp_path / "rec", *flags) == 2
        assert "is no unfinished training" in capsys.readouterr().err
        assert notes.read_text() == "mine"


def test_two_at_once_do_not_meet(demo_folder, tmp_path, capsys):
    out = tmp_path / "rec"
    with unfinished_module.unfinished(out, {}, resume=False):
        for flags in ([], ["--resume"]):
            assert train(demo_folder, out, *flags) == 2
            assert "another process" in capsys.readouterr().err


def test_with_nothing_to_resume_it_begins(demo_folder, tmp_path):
    assert run_command(["train", str(demo_folder), "--out", str(tmp_path / "rec"), *FLAGS, "--resume"]) == 0
