"""What is wrong with the input is said in one line, with exit code 2, before anything is started or written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support import start_cli

from toolrec.cli import run_command
from toolrec.connect import connected
from toolrec.errors import ConfigError
from toolrec.llm.embedded import EmbeddedOptions, run_in_thread
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.simulation.run_folder import read_users

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
        (["--metrics-port", "0"], "not a port; got: 0; allowed: 1 to 65535"),
        (["--prompt-history-length", "0"], "prompt_history_length must be at least 1"),
        (["--prices", "nowhere.yaml"], "cannot read the price file"),
        (["--budget-usd", "3"], "--budget-usd needs the model's price"),
        (["--budget-tokens", "0"], "--budget-tokens must be at least 1"),
        (["--dry-run", "--resume"], "--dry-run and --resume do not go together"),
        (["--cache", "unused", "--cache-max-age", "7"], "not a duration; got: 7"),
        (["--cache-max-age", "7d"], "--cache-max-age needs --cache"),
        (["--replay", "nowhere"], "recording.json"),
        (["--replay", "nowhere", "--llm-url", "http://127.0.0.1:1/v1", "--llm-model", "m"], "--replay asks no endpoint"),
        (["--replay", "examples", "--record", "elsewhere"], "recording.json"),
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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("tools: {num_replicas: 0}", "the tools' options are wrong at tools.num_replicas"),
        ("colour: red", "the tools' options are wrong at colour"),
        ("dataset: elsewhere", "this option of the tools is the run's own; got: dataset"),
        ("- a list", "not a mapping"),
        ("device: cuda", "needs num_gpus above 0"),
    ],
)
def test_wrong_options_of_the_tools(command: list[str], options: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "tools.yaml"
    path.write_text(options)
    assert run_command([*command, "--tools-config", str(path)]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_key_in_place_of_its_variable_is_not_echoed(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command([*command, "--llm-url", "http://127.0.0.1:9/v1", "--llm-model", "m", "--llm-key-env", MARKER]) == 2
    said = capsys.readouterr()
    assert "not the name of an environment variable" in said.err and MARKER not in said.err + said.out
    assert not (tmp_path / "run").exists()


def test_tools_that_are_not_served_leave_no_run_folder(
    local_ray: None, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run_command([*command, "--tools", "attach:elsewhere"]) == 2
    assert "no tools are served under this application name; got: elsewhere" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_stops_the_run_and_the_right_one_resumes_it(command: list[str], tmp_path: Path):
    with run_in_thread(EmbeddedOptions(api_key="right")) as server:
        flags = ["--llm-url", server.base_url, "--llm-model", MODEL_NAME, "--llm-key-env", "TOOLREC_TEST_KEY", "--users", "6"]
        flags += ["--tools", "local", "--num-cpus", "1"]
        refused = start_cli(*command, *flags, TOOLREC_TEST_KEY=MARKER)
        assert MARKER not in finished(refused, 2)
        assert not (tmp_path / "run").exists()
        stopped = start_cli(*command, *flags, "--no-llm-check", TOOLREC_TEST_KEY=MARKER)
        said = finished(stopped, 3)
        assert "the LLM endpoint failed for 6 users in a row" in said and MARKER not in said
        resumed = start_cli(*command, *flags, "--resume", TOOLREC_TEST_KEY="right")
        finished(resumed, 0)
    assert len(read_users(tmp_path / "run")) == 6
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or MARKER.encode() not in path.read_bytes()


def finished(process: subprocess.Popen[str], code: int) -> str:
    """What the command said, when it ended with the given code and no stack trace."""
    output, _ = process.communicate(timeout=150)
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output
