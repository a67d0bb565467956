"""What is wrong with the input is said in one line, with exit code 2, before anything is started or written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import start_cli

from toolrec.cli import run_command
from toolrec.connect import connected
from toolrec.errors import ConfigError

MARKER = "sk-marker-0123456789abcdef"


@pytest.fixture
def command(demo_folder: Path, demo_recommenders: Path, tmp_path: Path) -> list[str]:
    return ["evaluate", str(demo_folder), "--recommenders", str(demo_recommenders), "--run", str(tmp_path / "run")]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--users", "0"], "not a number of users; got: 0"),
        (["--users", "many"], "not a number of users; got: many"),
        (["--users", "100000"], "100000"),
        (["--attributes", "genre,colour"], "no recommender was trained for this attribute; got: colour"),
        (["--tools", "somewhere"], "unknown place for the tools; got: somewhere"),
        (["--llm-url", "http://127.0.0.1:1/v1"], "--llm-url and --llm-model go together"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--concurrency", "0"], "concurrency must be at least 1"),
        (["--actors", "0"], "num_actors must be at least 1"),
        (["--temperature", "7"], "temperature is out of range"),
        (["--keep-tools"], "--keep-tools needs"),
        (["--tools-config", "nowhere.yaml"], "cannot read the tools' options"),
        (["--prompt-history-length", "0"], "prompt_history_length must be at least 1"),
    ],
)
def test_a_wrong_flag(command: list[str], flags: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command([*command, *flags]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command(["evaluate", str(tmp_path / "nothing")]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_recommenders_of_another_data_set(
    command: list[str], demo_recommenders: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    other = tmp_path / "other"
    assert run_command(["data", "prepare", "demo", "--users", "40", "--items", "120", "--seed", "9", "--out", str(other)]) == 0
    capsys.readouterr()
    assert run_command([command[0], str(other), *command[2:]]) == 2
    assert "data set" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_damaged_weights(command: list[str], demo_recommenders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    damaged = tmp_path / "recommenders"
    shutil.copytree(demo_recommenders, damaged)
    weights = damaged / "backbone" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert run_command([*command[:3], str(damaged), *command[4:]]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_resumed(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    assert run_command([*command, "--resume"]) == 2
    assert "manifest.json" in capsys.readouterr().err
    assert run_command([*command[:4], "--resume"]) == 2
    assert "--resume needs the run folder" in capsys.readouterr().err


def test_an_endpoint_that_cannot_be_reached(command: list[str], tmp_path: Path):
    flags = ["--llm-url", "http://127.0.0.1:9/v1", "--llm-model", "m", "--llm-max-attempts", "2"]
    process = start_cli(*command, *flags, OPENAI_API_KEY=MARKER)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "error: " in output and "127.0.0.1:9" in output
    assert "Traceback" not in output and MARKER not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:9", "no running Ray at this address"),
        ("ray://127.0.0.1:10001", "not the address of a Ray head node"),
        ("head", "not the address of a Ray head node"),
        ("127.0.0.1:99999", "no running Ray at this address"),
    ],
)
def test_a_ray_that_is_not_there(address: str, reason: str):
    with pytest.raises(ConfigError, match=reason), connected(address):
        raise AssertionError("connected to nothing")
